"""`segrt models`: list, describe, download and remove models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from segrt import store, zoo
from segrt.cli.console import say
from segrt.create import create_pipeline
from segrt.store import Stored

app = App(
    name="models",
    help="List the models, with their published accuracy; describe, download and remove them.",
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
def describe(model: str, /) -> None:
    """Show everything that decides the labels of a model, and where it was found.

    Args:
        model: An .onnx file, a folder with a model, or a name listed by `segrt models`.
    """
    is_path = Path(model).exists() or "/" in model or model.endswith(".onnx")
    where = {"model_dir": Path(model)} if is_path else {"model_name": model}
    table = Table("", Column("value", overflow="fold"), Column("source", overflow="fold"), box=None)
    for name, (value, source) in create_pipeline(device="cpu", **where).describe().items():
        table.add_row(name, escape(value), escape(source))
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)


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
