"""`segrt models`: list, download and remove models."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segrt import store, zoo
from segrt.cli.console import say
from segrt.store import Stored

app = App(
    name="models",
    help="List the models, with their published accuracy; download and remove them.",
    help_epilogue="",
    result_action="return_value",
)


@app.default
def list_models(*, downloaded: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the models.

    Args:
        downloaded: Only those available on this machine.
    """
    available = {stored.spec.name: stored for stored in store.downloaded()}
    table = Table("model", "classes of", "mIoU %", "MB", "available", box=None)
    shown = [spec for spec in zoo.load().models if not downloaded or spec.name in available]
    for spec in shown:
        state = "bundled" if spec.bundled else _state(available.get(spec.name))
        size = f"{spec.size_mb:.1f}" if spec.size_mb else ""
        table.add_row(escape(spec.name), spec.dataset.name, f"{spec.miou:.2f}", size, state)
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)
    for spec in shown:
        if spec.licence:
            text = f"{spec.name}: {spec.licence}"
            out.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command
def fetch(names: list[str], /) -> None:
    """Download official Paddle models, and verify them.

    Args:
        names: Models listed by `segrt models`.
    """
    for spec in [zoo.get(name) for name in names]:
        path = store.fetch(spec)
        note = "" if store.locate(spec) else f'; to convert it, run  segrt-export "{spec.name}"'
        say(f"{spec.name} is in {path}{note}")


@app.command
def remove(names: list[str], /) -> None:
    """Delete downloaded models and their exports.

    Args:
        names: Models listed by `segrt models`.
    """
    for name in names:
        freed = store.remove(name)
        say(f"{name} is removed, {freed / 1e6:.1f} MB are free again")


def _state(stored: Stored | None) -> str:
    if stored is None:
        return ""
    return "ready" if stored.onnx else "downloaded, not converted"
