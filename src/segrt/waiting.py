"""Messages, and progress on terminals while something is downloaded or converted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("segrt")


def is_quiet() -> bool:
    """Whether only errors are to be shown: no messages, and no progress."""
    return not log.isEnabledFor(logging.WARNING)


class Messages(logging.Handler):
    """Prints messages as they are, in one line each, so that commands in them can be copied.

    Example:
        >>> logging.basicConfig(handlers=[Messages(Console(stderr=True))])
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        text = self.format(record)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def download_bar(label: str, shown: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar; yields a callback for the bytes received and the total, if known.

    Example:
        >>> with download_bar("PP-LiteSeg-B") as advance:
        ...     advance(1_000_000, 31_000_000)
    """
    # Loading rich would delay the first image.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    show = shown and console.is_terminal and not is_quiet()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not show) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spinner(label: str, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Show that something is going on, and for how long; yields a callback for the current step.

    Where stderr is no terminal, a line is logged in the beginning.

    Example:
        >>> with spinner("converting PP-LiteSeg-B") as step:
        ...     step("comparing with Paddle")
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
    )
    show = shown and console.is_terminal and not is_quiet()
    if shown and not show:
        log.info("%s ...", label)
    with Progress(*columns, console=console, transient=True, disable=not show) as bar:
        task = bar.add_task(label, total=None, step="")
        yield lambda step: bar.update(task, step=step)
