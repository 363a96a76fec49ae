"""The dilated 3x3 convolutions of DeepLab, in other forms that give the same numbers.

At 512x1024: those of the last stage, 512 channels on 64x128, dilation 4, and the branches of the ASPP, 2048 channels to
256, dilated so far that many taps fall on padding.

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
from onnx import TensorProto, helper
from rewrites import cell, timed

from segrt.backends import catalog
from segrt.backends.plan import every
from segrt.backends.session import Session
from segrt.bench.pairs import interleave, ratio
from segrt.types import Device
from segrt_export.graph import Builder
from segrt_export.passes.winograd import Axis, add_convolution, add_places

HEIGHT, WIDTH, REPEAT = 64, 128, 7
CASES = (
    (512, 512, 4),
    (2048, 256, 12),
    (2048, 256, 24),
    (2048, 256, 36),
)  # channels in, channels out, dilation
FORMS = ("dilated", "taps", "rows", "shifts", "winograd")
END = np.iinfo(np.int64).max

HEAD = f"""# Dilated convolutions in other forms

Made by `benchmarks/dilated.py`: one 3x3 convolution on a {HEIGHT}x{WIDTH} map. "taps": nine 1x1 convolutions on cropped
maps, their results padded and added. "rows": the map is cropped by rows only, so three 1x3 convolutions are left.
"shifts": one 1x1 convolution to nine times the channels, then nine shifts are added. "winograd": the form that the pass
of that name gives it, whether it would or not. Ratios are the time of the dilated convolution over that of the other
form, above 1 is faster: the median of {REPEAT} pairs run in turns, and in brackets the smallest and the largest. The
largest differences are those of the three forms by taps, and of winograd; results have a standard deviation of 1."""


def shift(dilation: int, tap: int) -> tuple[int, int, int, int]:
    """Of one axis and tap 0, 1 or 2: first and last element that is read, padding before and after."""
    return ((0, -dilation, dilation, 0), (0, END, 0, 0), (dilation, END, 0, dilation))[tap]


def moved(
    build: Builder, x: str, dilation: int, i: int, j: int, weight: npt.NDArray[Any] | None
) -> str:
    """The share of tap (i, j): cropped, multiplied if `weight` is given, and put in its place."""
    starts, ends, before, after = zip(shift(dilation, i), shift(dilation, j), strict=True)
    if (i, j) != (1, 1):
        x = build.add("Slice", x, *(build.const(v, "int64") for v in (starts, ends, (2, 3))))
    if weight is not None:
        x = build.add("Conv", x, build.const(weight, "float32"))
    pads = (0, 0, *before, 0, 0, *after)
    return build.add("Pad", x, build.const(pads, "int64")) if any(pads) else x


def forms(channels: int, out: int, dilation: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The convolution in each form, with the same weights."""
    weight = np.random.default_rng(0).standard_normal((out, channels, 3, 3)) / np.sqrt(9 * channels)
    for form in FORMS:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, HEIGHT, WIDTH])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", out, HEIGHT, WIDTH])
        graph = helper.make_graph([], form, [x], [y])
        build = Builder(graph, form)
        if form == "dilated":
            parts = [
                build.add(
                    "Conv",
                    "x",
                    build.const(weight, "float32"),
                    dilations=[dilation] * 2,
                    pads=[dilation] * 4,
                )
            ]
        elif form == "taps":
            parts = [
                moved(build, "x", dilation, i, j, weight[:, :, i : i + 1, j : j + 1])
                for i in range(3)
                for j in range(3)
            ]
        elif form == "rows":
            options: dict[str, Any] = {
                "dilations": [1, dilation],
                "pads": [0, dilation, 0, dilation],
            }
            parts = []
            for i in range(3):
                start, end, before, after = shift(dilation, i)
                crop = build.add(
                    "Slice", "x", *(build.const([v], "int64") for v in (start, end, 2))
                )
                row = build.add(
                    "Conv", crop, build.const(weight[:, :, i : i + 1], "float32"), **options
                )
                parts.append(
                    build.add("Pad", row, build.const((0, 0, before, 0, 0, 0, after, 0), "int64"))
                )
        elif form == "winograd":
            tall, wide = Axis.best(HEIGHT, dilation), Axis.best(WIDTH, dilation)
            x_last = build.add("Transpose", "x", perm=[0, 2, 3, 1])
            places = add_places(build, x_last, tall, wide)
            y_last = add_convolution(
                build, x_last, build.const(weight, "float32"), (out, channels), tall, wide, places
            )
            parts = [build.add("Transpose", y_last, perm=[0, 3, 1, 2])]
        else:
            every_tap = weight.transpose(2, 3, 0, 1).reshape(9 * out, channels, 1, 1)
            mixed = build.add("Conv", "x", build.const(every_tap, "float32"))
            parts = []
            for tap in range(9):
                one = build.add(
                    "Slice",
                    mixed,
                    *(build.const([v], "int64") for v in (tap * out, (tap + 1) * out, 1)),
                )
                parts.append(moved(build, one, dilation, tap // 3, tap % 3, None))
        build.add("Sum", *parts, output="y")
        graph.node.extend(build.nodes)
        yield (
            form,
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        )


def main() -> None:
    """Print the table."""
    here = catalog.read(gpus=False)
    print(HEAD, f"\n\n{here.cpu.name}, {here.cpu.cores} threads.\n")
    columns = ("channels", "dilation", "plan", "dilated, ms", *FORMS[1:], "largest differences")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for channels, out, dilation in CASES:
        x = (
            np.random.default_rng(1)
            .standard_normal((1, channels, HEIGHT, WIDTH))
            .astype(np.float32)
        )
        for plan in every(Device.parse("cpu"), here):
            with tempfile.TemporaryDirectory() as work:
                sessions = {}
                for form, model in forms(channels, out, dilation):
                    onnx.save(model, f"{work}/{form}.onnx")
                    sessions[form] = Session(
                        Path(work) / f"{form}.onnx", replace(plan, shapes="fixed")
                    )
                results = [session.run(x) for session in sessions.values()]
            *taps, last = (float(np.abs(result - results[0]).max()) for result in results[1:])
            samples = interleave(
                {n: partial(timed, partial(s.run, x)) for n, s in sessions.items()}, repeat=REPEAT
            )
            ratios = [cell(ratio(samples["dilated"], samples[form])) for form in list(sessions)[1:]]
            what = (
                f"{channels} to {out}",
                dilation,
                plan.name,
                f"{np.median(samples['dilated'].ms):.0f}",
            )
            print(
                f"| {' | '.join(map(str, (*what, *ratios)))} | {max(taps):.1e}, {last:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
