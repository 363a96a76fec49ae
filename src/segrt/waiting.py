"""Progress on stderr, if that is a terminal, while something is downloaded or converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
    show = shown and console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not show) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spinner(label: str, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Show that something is going on, and for how long; yields a callback for the current step.

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
    show = shown and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not show) as bar:
        task = bar.add_task(label, total=None, step="")
        yield lambda step: bar.update(task, step=step)
