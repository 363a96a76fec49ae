"""What the commands print to stderr: messages, errors and progress bars."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from segrt.waiting import is_quiet

err = Console(stderr=True)


def say(text: str) -> None:
    """Print a message, unwrapped."""
    if not is_quiet():
        err.print(text, markup=False, highlight=False, soft_wrap=True)


def confirm(question: str) -> bool:
    """Ask on the terminal; no, if there is none."""
    if not (err.is_terminal and sys.stdin and sys.stdin.isatty()):
        return False
    err.print(f"{question} [y/N] ", markup=False, highlight=False, soft_wrap=True, end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def complain(error: object) -> None:
    """Print an error as one line."""
    text = f"segrt: {' '.join(str(error).split(chr(10)))}"
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


class _TimeLeft(TimeRemainingColumn):
    """The time left, in words; nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        left = super().render(task)
        return Text(f"{left} left", left.style) if task.time_remaining else Text()


def progress_bar() -> Progress:
    """A progress bar that is shown on terminals and removed in the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(),
    )
    hidden = is_quiet() or not err.is_terminal
    return Progress(*columns, console=err, transient=True, disable=hidden)
