"""The command `segrt-export`."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.validators import Number
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

import segrt
import segrt_export
from segrt import verbosity, zoo
from segrt.config import parse_bands
from segrt.errors import ConfigError, ExportError, SegrtError
from segrt.folders import find_images
from segrt.types import MAX_SIDE, shown
from segrt.waiting import Messages, is_quiet
from segrt_export.convert import OPSET
from segrt_export.source import distinct_target, exported_file, open_source, sealed

if TYPE_CHECKING:
    from segrt_export.device import DeviceFile
    from segrt_export.exporter import Exported
    from segrt_export.quantization import Quantised

_MODELS = Group("Models", sort_key=1)

console = Console(stderr=True)
app = App(
    name="segrt-export",
    version=segrt.__version__,
    usage="Usage: segrt-export [MODEL...] [OPTIONS]",
    help="Convert segmentation models to fast ONNX files, compared with the original.",
    help_flags=["-h", "--help"],
    group_commands=Group("Other", sort_key=9),
)
app.register_install_completion_command(help="Install shell completion.")


@Parameter(name="*", group=_MODELS)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models to export, and to where."""

    every: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False
    """Export every model of the zoo."""

    untrained: Annotated[bool, Parameter(show_default=False)] = False
    """Use random weights, for timing."""

    config: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Configuration of an .onnx file; default: next to it."""

    bands: Annotated[str | None, Parameter(metavar="NAME,...")] = None
    """Names of the input's channels, if it takes bands: red,green,blue,nir."""

    out: Annotated[Path | None, Parameter(name=["--out", "-o"], metavar="FOLDER")] = None
    """Output folder; default for zoo models: cache."""


@Parameter(name="*", group=Group("Conversion", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How models are converted and checked."""

    verify: Annotated[Path | None, Parameter(metavar="PATH")] = None
    """Photo, or folder of photos, to compare with the original on."""

    opset: Annotated[int, Parameter(validator=Number(gte=14, lte=19))] = OPSET
    """ONNX operator set, 14 to 19."""

    format: Literal["onnx", "ort", "mnn", "deepness"] = "onnx"
    """For devices: ort, MODEL.ort for ONNX Runtime, or mnn, MODEL.mnn for MNN. For QGIS: deepness,
    MODEL.deepness.onnx for the plugin Deepness."""

    size: Annotated[str, Parameter(metavar="HxW", show_default=False)] = ""
    """The only height and width that an ort or mnn file takes; the tile of Deepness, 512x512."""

    resolution: Annotated[float | None, Parameter(validator=Number(gt=0), metavar="CM")] = None
    """Centimetres of a pixel, for Deepness."""

    weights: Literal["float32", "float16", "int8"] = "float32"
    """Data type of stored weights; float16 halves the file, int8 (ort and mnn) quarters it."""

    without: Annotated[list[str] | None, Parameter(negative="", metavar="PASS")] = None
    """Graph rewrite to leave out; repeatable."""

    int8: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    """Photos to quantise with: MODEL.int8.onnx is written too, as by segrt quantize."""


@dataclass(frozen=True)
class _Outcome:
    """The export of one model, its other forms, and the reason why one of them failed."""

    name: str
    exported: Exported | None = None
    quantised: Quantised | None = None
    device: DeviceFile | None = None
    error: str = ""


@app.default
def run(
    *names: Annotated[
        str,
        Parameter(
            group=_MODELS,
            metavar="MODEL",
            help="Folder or tar of a Paddle model, .onnx file, or name of a zoo model.",
        ),
    ],
    models: ModelOptions = ModelOptions(),
    conversion: ConversionOptions = ConversionOptions(),
) -> int:
    """Convert models; returns the exit status."""
    if models.every and names:
        raise ConfigError("specify models or --all, not both")
    if not models.every and not names:
        raise ConfigError("specify one or more models, or --all")
    if models.untrained and models.out is None:
        raise ConfigError("--untrained requires an output folder: specify it with -o")
    if conversion.int8 and models.out is None:
        raise ConfigError("--int8 requires an output folder: specify it with -o")
    size = _device_size(models, conversion)
    _check_passes(conversion.without or ())
    images = _photos(conversion.verify)
    if models.every:
        names = tuple(spec.name for spec in zoo.load().models if not spec.bundled)
    outcomes = []
    taken: dict[str, str] = {}
    with _progress_bar() as bar:
        task = bar.add_task("", total=len(names))
        for name in names:
            bar.update(task, description=escape(f"{name}: converting, then comparing"))
            outcomes.append(_export(name, models, conversion, images, size, taken))
            bar.advance(task)
    if not is_quiet():
        console.print(_table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        _complain(f"{outcome.name}: {outcome.error}")
    return 1 if failed else 0


def _device_size(models: ModelOptions, conversion: ConversionOptions) -> tuple[int, int] | None:
    """The size given for a device file; refuses options that don't go with the format."""
    if conversion.format != "deepness" and conversion.resolution is not None:
        raise ConfigError("--resolution is for --format deepness: segrt has no use for it")
    if conversion.weights == "int8" and conversion.format not in ("ort", "mnn"):
        raise ConfigError(
            "--weights int8 is for --format ort and mnn: for ONNX, give photos with --int8"
        )
    if conversion.format == "onnx":
        if conversion.size:
            raise ConfigError(
                "--size is for --format ort, mnn and deepness: an .onnx file takes all sizes"
            )
        return None
    if models.out is None:
        raise ConfigError(
            f"--format {conversion.format} requires an output folder: specify it with -o"
        )
    if conversion.int8:
        raise ConfigError(
            f"--int8 and --format {conversion.format} are two steps: convert MODEL.int8.onnx then"
        )
    if not conversion.size:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", conversion.size)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= min(size) <= max(size) <= MAX_SIDE:
        raise ConfigError(
            f"--size {shown(conversion.size)} is not valid: give height and width, such as 360x480"
        )
    if conversion.format == "deepness" and size[0] != size[1]:
        raise ConfigError(
            f"--size {conversion.size} is not valid: the tiles of Deepness are square"
        )
    return size


def _check_passes(names: Collection[str]) -> None:
    if not names:
        return
    try:
        segrt_export.check_names(names)
    except ExportError as error:
        raise ConfigError(str(error)) from None


def _photos(verify: Path | None) -> list[Path]:
    if verify is None:
        return []
    if verify.is_file():
        return [verify]
    try:
        photos = [Path(file) for file in find_images(str(verify)).files]
    except OSError as error:
        raise ConfigError(f"--verify {verify} contains no photo: {error.strerror}") from None
    if not photos:
        raise ConfigError(f"--verify {verify} contains no photo")
    return photos


def _export(
    name: str,
    models: ModelOptions,
    conversion: ConversionOptions,
    images: Sequence[Path],
    size: tuple[int, int] | None,
    taken: dict[str, str],
) -> _Outcome:
    """Export one model to a path that is not in `taken`, and add its path there."""
    exported = quantised = device = None
    for_device = conversion.format != "onnx"
    weights = "float32" if conversion.weights == "int8" else conversion.weights
    try:
        if for_device and (own := exported_file(name, models.out, taken)):
            file, target = own
            return _Outcome(name, device=_to_device(file, target, conversion, images, size))
        with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
            source, file = open_source(
                name,
                Path(work),
                models.out,
                untrained=models.untrained,
                config=models.config,
                bands=parse_bands(models.bands.split(",")) if models.bands is not None else None,
            )
            source, file = distinct_target(name, source, file, taken)
            with sealed(name, file):
                exported = segrt_export.export(
                    source,
                    file,
                    images=images,
                    opset=conversion.opset,
                    weights=weights,
                    without=conversion.without or (),
                )
            if conversion.int8:
                target = file.with_suffix(".int8.onnx")
                quantised = segrt_export.quantize(file, target, conversion.int8)
        if for_device:
            device = _to_device(file, file, conversion, images, size)
    except (SegrtError, OSError) as error:
        return _Outcome(name, exported, quantised, error=_one_line(error))
    except Exception as error:  # whatever a library raises on one model must not stop the others
        message = f"{type(error).__name__}: {_one_line(error)}"
        return _Outcome(name, exported, quantised, error=message)
    return _Outcome(name, exported, quantised, device)


def _to_device(
    file: Path,
    onnx_target: Path,
    conversion: ConversionOptions,
    images: Sequence[Path],
    size: tuple[int, int] | None,
) -> DeviceFile:
    """Convert an exported model, to the name of an `.onnx` file with another suffix."""
    if conversion.format == "deepness":
        return segrt_export.to_deepness(
            file,
            onnx_target.with_suffix(".deepness.onnx"),
            size=size and size[0],
            resolution=conversion.resolution,
            weights=conversion.weights,
            images=images,
        )
    return segrt_export.to_device(
        file,
        onnx_target.with_suffix(f".{conversion.format}"),
        weights=conversion.weights,
        size=size,
        images=images,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:1000]


def _progress_bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=is_quiet() or not console.is_terminal,
    )


def _table(outcomes: Sequence[_Outcome]) -> Table:
    table = Table(
        Column("file", overflow="fold"), "MB", "seconds", "nodes", "agreement", "worst case"
    )
    for outcome in outcomes:
        if outcome.exported is None and outcome.device is None:
            table.add_row(escape(outcome.name), "", "", "", "failed", "")
            continue
        if outcome.exported is not None:
            report = outcome.exported.report
            parities = [report[key] for key in ("parity", "parity_float32") if key in report]
            table.add_row(
                escape(str(outcome.exported.file)),
                f"{report['bytes'] / 1e6:.1f}",
                f"{report['export_seconds']:.1f}",
                f"{report['nodes']['converter']} -> {report['nodes']['exported']}",
                f"{min(parity['agreement'] for parity in parities):.4%}",
                f"{min(parity['worst'] for parity in parities):.4%}",
            )
        if outcome.quantised is not None:
            report = outcome.quantised.report
            table.add_row(
                escape(str(outcome.quantised.file)),
                f"{report['bytes'] / 1e6:.1f}",
                "",
                f"{report['layers'] - len(report['float_layers'])} in int8",
                f"{report['agreement']:.4f}%",
                f"{report['worst']['agreement']:.4f}%",
            )
        if outcome.device is not None:
            report = outcome.device.report
            table.add_row(
                escape(str(outcome.device.file)),
                f"{report['bytes'] / 1e6:.1f}",
                "",
                "",
                f"{report['parity']['agreement']:.4%}",
                f"{report['parity']['worst']:.4%}",
            )
    return table


def _complain(text: str) -> None:
    console.print(
        f"segrt-export: {text}", style="red", markup=False, highlight=False, soft_wrap=True
    )


verbosity.add_to(app)


def main() -> None:
    """Run the command: errors become one line and exit status 1, or 2 for wrong usage."""
    # Keep the console free of log messages of Paddle and its converter.
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="No ccache found")
    logging.basicConfig(format="%(message)s", handlers=[Messages(console)])
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (CycloptsError, SegrtError, OSError) as error:
        _complain(" ".join(str(error).splitlines()))
        sys.exit(2 if isinstance(error, (CycloptsError, ConfigError)) else 1)


if __name__ == "__main__":
    main()
