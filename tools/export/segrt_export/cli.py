"""The command `segrt-export`."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table

from segrt import zoo
from segrt.errors import ExportError, SegrtError
from segrt_export.convert import require
from segrt_export.export import OPSET, Exported, export
from segrt_export.source import open_source

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)
PHOTOS = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Weights(str, Enum):
    """How weights are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@app.command()
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders or tars with a Paddle inference model, or names of `segrt models`."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Where the files go; without it, a named model goes where segrt looks for it.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the zoo.")] = False,
    untrained: Annotated[
        bool,
        typer.Option(
            help="Build the named models with random weights: for timing, their labels mean nothing."
        ),
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="A photo, or a folder of photos, to compare with Paddle on.", show_default=False
        ),
    ] = None,
    opset: Annotated[int, typer.Option(min=14, max=19, help="ONNX operator set.")] = OPSET,
    weights: Annotated[Weights, typer.Option(help="float16 halves the file.")] = Weights.FLOAT32,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PASS", help="A graph rewrite to leave out; may be given again."),
    ] = None,
) -> None:
    """Convert Paddle segmentation models to ONNX, and prove each one equal to Paddle."""
    names = [spec.name for spec in zoo.load().models if not spec.bundled] if every else models or []
    if not names or (every and models) or (untrained and out is None):
        _complain("name one or more models, or --all for every one; --untrained needs -o")
        raise typer.Exit(2)
    if without:
        _check_passes(without)
    images = _photos(verify)
    done: list[tuple[str, Exported | None, str]] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(
                task, description=escape(f"{name}: converting, then comparing with Paddle")
            )
            try:
                with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
                    source, file = open_source(name, Path(work), out, untrained=untrained)
                    result = export(
                        source,
                        file,
                        images=images,
                        opset=opset,
                        weights=weights.value,
                        without=without or (),
                    )
                done.append((name, result, ""))
            except (SegrtError, OSError) as error:
                done.append((name, None, str(error)))
            progress.advance(task)
    console.print(_table(done))
    for name, exported, reason in done:
        if exported is None:
            _complain(f"{name}: {reason}")
    raise typer.Exit(1 if any(exported is None for _, exported, _ in done) else 0)


def _check_passes(names: list[str]) -> None:
    require("onnx")
    from segrt_export.passes import check_names

    try:
        check_names(names)
    except ExportError as error:
        _complain(str(error))
        raise typer.Exit(2) from None


def _photos(verify: Path | None) -> list[Path]:
    if verify is None:
        return []
    files = [verify] if verify.is_file() else sorted(verify.glob("*"))
    photos = [file for file in files if file.suffix.lower() in PHOTOS]
    if not photos:
        _complain(f"{verify} holds no photo to compare on")
        raise typer.Exit(2)
    return photos


def _table(done: list[tuple[str, Exported | None, str]]) -> Table:
    table = Table(
        Column("file", overflow="fold"), "MB", "seconds", "nodes", "agreement", "worst case"
    )
    for name, result, _ in done:
        if result is None:
            table.add_row(escape(name), "", "", "", "failed", "")
            continue
        report = result.report
        parities = [report[key] for key in ("parity", "parity_float32") if key in report]
        table.add_row(
            escape(str(result.file)),
            f"{report['bytes'] / 1e6:.1f}",
            f"{report['export_seconds']:.1f}",
            f"{report['nodes']['converter']} -> {report['nodes']['exported']}",
            f"{min(parity['agreement'] for parity in parities):.4%}",
            f"{min(parity['worst'] for parity in parities):.4%}",
        )
    return table


def _complain(text: str) -> None:
    console.print(
        f"segrt-export: {text}", style="red", markup=False, highlight=False, soft_wrap=True
    )


def main() -> None:
    """Entry point of the console script."""
    # Paddle and its converter log to the console; the table is what the user wants to see.
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="No ccache found")
    try:
        app()
    except (SegrtError, OSError) as error:
        _complain(str(error))
        sys.exit(1)
