"""The dilated 3x3 convolutions of DeepLab, compared with equivalent forms.

At 512x1024: those of the last stage (512 channels on 64x128, dilation 4) and the branches of the
ASPP (2048 to 256 channels, with dilations so large that many taps fall on padding).

    python benchmarks/dilated.py > benchmarks/results/dilated.md
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from common import noise, timed
from onnx import TensorProto, helper

from segrt.backends import catalog
from segrt.backends.plan import Plan, every
from segrt.backends.session import Session
from segrt.bench.pairs import interleave, ratio
from segrt.types import Device
from segrt_export.graph import Builder
from segrt_export.passes.winograd import Axis, add_convolution, add_pixels, add_tile_indices

HEIGHT, WIDTH, REPEAT = 64, 128, 7
CASES = (
    (512, 512, 4),
    (2048, 256, 12),
    (2048, 256, 24),
    (2048, 256, 36),
)  # input channels, output channels, dilation
END = np.iinfo(np.int64).max

HEAD = f"""# Dilated convolutions in other forms

Made by `benchmarks/dilated.py`: one 3x3 convolution on a {HEIGHT}x{WIDTH} map. "taps": nine 1x1
convolutions on cropped maps, whose results are padded and added. "rows": the map is cropped by rows
only, which leaves three 1x3 convolutions. "shifts": one 1x1 convolution to nine times the channels,
then nine shifts are added. "winograd": the form of the pass with that name, even where the pass
would not apply it. Ratios are the time of the dilated convolution over that of the other form, so
above 1 is faster: the median of {REPEAT} interleaved pairs, followed by their range. The largest
differences are those of the three forms by taps, then of winograd; outputs have a standard
deviation of 1."""

Weight = npt.NDArray[Any]


def shift(dilation: int, tap: int) -> tuple[int, int, int, int]:
    """For tap 0, 1 or 2 of one axis: start and end of the crop, padding before and after."""
    return ((0, -dilation, dilation, 0), (0, END, 0, 0), (dilation, END, 0, dilation))[tap]


def shifted(
    build: Builder, x: str, dilation: int, i: int, j: int, weight: Weight | None = None
) -> str:
    """The contribution of tap (i, j): cropped, multiplied by `weight` if given, and padded."""
    starts, ends, before, after = zip(shift(dilation, i), shift(dilation, j), strict=True)
    if (i, j) != (1, 1):
        x = build.add("Slice", x, *(build.const(v, "int64") for v in (starts, ends, (2, 3))))
    if weight is not None:
        x = build.add("Conv", x, build.const(weight, "float32"))
    pads = (0, 0, *before, 0, 0, *after)
    return build.add("Pad", x, build.const(pads, "int64")) if any(pads) else x


def add_dilated(build: Builder, weight: Weight, dilation: int) -> list[str]:
    """The convolution as it is."""
    kernel = build.const(weight, "float32")
    return [build.add("Conv", "x", kernel, dilations=[dilation] * 2, pads=[dilation] * 4)]


def add_taps(build: Builder, weight: Weight, dilation: int) -> list[str]:
    """Nine 1x1 convolutions on cropped maps."""
    return [
        shifted(build, "x", dilation, i, j, weight[:, :, i : i + 1, j : j + 1])
        for i in range(3)
        for j in range(3)
    ]


def add_rows(build: Builder, weight: Weight, dilation: int) -> list[str]:
    """Three 1x3 convolutions on maps cropped by rows."""
    parts = []
    for i in range(3):
        start, end, before, after = shift(dilation, i)
        crop = build.add("Slice", "x", *(build.const([v], "int64") for v in (start, end, 2)))
        kernel = build.const(weight[:, :, i : i + 1], "float32")
        row = build.add(
            "Conv", crop, kernel, dilations=[1, dilation], pads=[0, dilation, 0, dilation]
        )
        pads = build.const((0, 0, before, 0, 0, 0, after, 0), "int64")
        parts.append(build.add("Pad", row, pads))
    return parts


def add_shifts(build: Builder, weight: Weight, dilation: int) -> list[str]:
    """One 1x1 convolution to nine times the channels, then nine shifts."""
    out, channels = weight.shape[:2]
    all_taps = weight.transpose(2, 3, 0, 1).reshape(9 * out, channels, 1, 1)
    mixed = build.add("Conv", "x", build.const(all_taps, "float32"))
    parts = []
    for tap in range(9):
        bounds = (build.const([v], "int64") for v in (tap * out, (tap + 1) * out, 1))
        parts.append(shifted(build, build.add("Slice", mixed, *bounds), dilation, *divmod(tap, 3)))
    return parts


def add_winograd(build: Builder, weight: Weight, dilation: int) -> list[str]:
    """The form of the `winograd` pass."""
    tall, wide = Axis.best(HEIGHT, dilation), Axis.best(WIDTH, dilation)
    indices = add_tile_indices(build, "x", tall, wide)
    kernel = build.const(weight, "float32")
    out, channels = weight.shape[:2]
    pixels = add_pixels(build, "x", channels, shared=False)
    y_last = add_convolution(build, pixels, kernel, (out, channels), tall, wide, indices)
    return [build.add("Transpose", y_last, perm=[0, 3, 1, 2])]


FORMS = {
    "dilated": add_dilated,
    "taps": add_taps,
    "rows": add_rows,
    "shifts": add_shifts,
    "winograd": add_winograd,
}


def models(channels: int, out: int, dilation: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The convolution in each form, with the same weights."""
    weight = np.random.default_rng(1).standard_normal((out, channels, 3, 3)) / np.sqrt(9 * channels)
    for form, add in FORMS.items():
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, HEIGHT, WIDTH])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", out, HEIGHT, WIDTH])
        graph = helper.make_graph([], form, [x], [y])
        build = Builder(graph, form)
        build.add("Sum", *add(build, weight, dilation), output="y")
        graph.node.extend(build.nodes)
        opset = helper.make_opsetid("", 17)
        yield form, helper.make_model(graph, opset_imports=[opset], ir_version=9)


def row(plan: Plan, channels: int, out: int, dilation: int) -> str:
    """One line of the table."""
    x = noise(channels, HEIGHT, WIDTH)
    fixed = replace(plan, backend=replace(plan.backend, shapes="fixed"))
    with tempfile.TemporaryDirectory() as work:
        sessions = {}
        for form, model in models(channels, out, dilation):
            file = Path(work) / f"{form}.onnx"
            onnx.save(model, str(file))
            sessions[form] = Session(file, fixed)
        results = {form: session.run(x) for form, session in sessions.items()}
    differences = {
        form: float(np.abs(result - results["dilated"]).max()) for form, result in results.items()
    }
    winograd = differences.pop("winograd")
    samples = interleave(
        {form: partial(timed, partial(s.run, x)) for form, s in sessions.items()}, repeat=REPEAT
    )
    cells = [f"{channels} to {out}", str(dilation), plan.name]
    cells.append(f"{samples['dilated'].median:.0f}")
    cells += [str(ratio(samples["dilated"], samples[form])) for form in list(FORMS)[1:]]
    return f"| {' | '.join(cells)} | {max(differences.values()):.1e}, {winograd:.1e} |"


def main() -> None:
    """Print the table."""
    machine = catalog.read(gpus=False)
    print(f"{HEAD}\n\n{machine.cpu.name}, {machine.cpu.cores} threads.\n")
    columns = ["channels", "dilation", "plan", "dilated, ms", *list(FORMS)[1:]]
    columns.append("largest differences")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for channels, out, dilation in CASES:
        for plan in every(Device.parse("cpu"), machine):
            print(row(plan, channels, out, dilation), flush=True)


if __name__ == "__main__":
    main()
