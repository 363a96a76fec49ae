"""The command `segrt-export`."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from segrt.errors import SegrtError
from segrt_export.export import OPSET, Exported, export
from segrt_export.program import PaddleModel

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PHOTOS = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Weights(str, Enum):
    """How weights are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@app.command()
def run(
    models: Annotated[list[Path], typer.Argument(help="Folders with a Paddle inference model.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the .onnx files and parity reports go.")],
    verify: Annotated[
        Path | None, typer.Option(help="A photo, or a folder of photos, to compare with Paddle on.", show_default=False)
    ] = None,
    opset: Annotated[int, typer.Option(min=13, max=19, help="ONNX operator set.")] = OPSET,
    weights: Annotated[Weights, typer.Option(help="float16 halves the file.")] = Weights.FLOAT32,
) -> None:
    """Convert Paddle segmentation models to ONNX, and prove each one equal to Paddle."""
    console = Console(stderr=True)
    images = [verify] if verify and verify.is_file() else sorted(p for p in (verify or Path()).glob("*") if verify)
    images = [p for p in images if p.suffix.lower() in PHOTOS]
    if verify and not images:
        console.print(f"segrt-export: {verify} holds no photo to compare on", style="red", markup=False)
        raise typer.Exit(2)
    done: list[tuple[str, Exported | None, str]] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for folder in models:
            task = progress.add_task(f"{folder.name}: converting, then comparing with Paddle")
            try:
                source = PaddleModel.open(folder)
                result = export(source, out, images=images, opset=opset, weights=weights.value)
                done.append((source.name, result, ""))
            except (SegrtError, OSError) as error:
                done.append((folder.name, None, str(error)))
            progress.remove_task(task)
    console.print(_table(done))
    for name, exported, reason in done:
        if exported is None:
            console.print(f"segrt-export: {name}: {reason}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1 if any(result is None for _, result, _ in done) else 0)


def _table(done: list[tuple[str, Exported | None, str]]) -> Table:
    table = Table(Column("file", overflow="fold"), "MB", "seconds", "nodes", "agreement", "worst case")
    for name, result, _ in done:
        if result is None:
            table.add_row(name, "", "", "", "failed", "")
            continue
        report = result.report
        table.add_row(
            str(result.file),
            f"{report['bytes'] / 1e6:.1f}",
            f"{report['export_seconds']:.1f}",
            f"{report['nodes']['converter']} -> {report['nodes']['exported']}",
            f"{report['parity']['agreement']:.4%}",
            f"{report['parity']['worst']:.4%}",
        )
    return table


def main() -> None:
    """Entry point of the console script."""
    # Paddle and its converter log to the console; the table is what the user wants to see.
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.exit(app())
