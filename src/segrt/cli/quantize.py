"""`segrt quantize`: an int8 form of a model, if it keeps its accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import segrt_export
from segrt import consent, model_file
from segrt.cli.console import progress_bar, say
from segrt.cli.options import Yes
from segrt.errors import ConfigError


def quantize(
    model: str,
    /,
    *,
    images: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"], metavar="FILE")],
    labels: Path | None = None,
    metric: Literal["agreement", "miou"] | None = None,
    max_drop: float = 0.5,
    device: Literal["cpu", "gpu"] = "cpu",
    yes: Yes = False,
) -> None:
    """Quantise the convolutions of a model to int8, and measure what that costs.

    Args:
        model: A model listed by `segrt models`, an .onnx file or its URL, or a folder with a model.
        images: Folder of a few dozen photos like yours: half of them calibrate, half measure.
        out: The .onnx file to write; a report in JSON is written next to it.
        labels: Folder of label images, STEM.png for each photo.
        metric: What may drop: agreement with FP32, or miou; default: miou if there are labels.
        max_drop: Percentage points that may be lost; layers stay in FP32 where that is needed.
        device: Where it is to run: cpu, or gpu for TensorRT.
        yes: Install Paddle (1.9 GB) without asking if the model needs it.
    """
    if yes:
        consent.agree()
    if out.suffix != ".onnx":
        raise ConfigError(f"{out} does not end in .onnx: name the file to write")
    for written in (out, out.with_suffix(".json")):
        if written.exists():
            raise ConfigError(f"{written} exists: delete it, or name another file")
    limit = segrt_export.Limit(metric or ("miou" if labels else "agreement"), max_drop)
    file = model_file.find(model)
    with progress_bar() as bar:
        task = bar.add_task("", total=None)
        done = segrt_export.quantize(
            file,
            out,
            images,
            labels=labels,
            limit=limit,
            device=device,
            progress=lambda what, step, total: bar.update(
                task, description=what, completed=step, total=total
            ),
        )
    say(summary(done))


def summary(done: segrt_export.Quantised) -> str:
    """One line about a quantised model."""
    report = done.report
    miou = ""
    if "miou" in report:
        miou = f"mIoU {report['miou']:.2f} % (FP32 {report['miou_float']:.2f} %), "
    kept = len(report["float_layers"])
    return (
        f"{done.file}: {miou}{report['agreement']:.2f} % of the labels as FP32, worst photo "
        f"{report['worst']['agreement']:.2f} %, {report['layers'] - kept} of {report['layers']} "
        f"convolutions in int8, {report['bytes'] / 1e6:.1f} MB"
    )
