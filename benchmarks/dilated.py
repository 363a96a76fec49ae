"""A 3x3 convolution dilated so far that many of its taps fall on padding, in other forms that give the same numbers.

The branches of an ASPP at 512x1024: 2048 channels, 64x128, to 256 channels.

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

CHANNELS, OUT, HEIGHT, WIDTH, REPEAT = 2048, 256, 64, 128, 7
END = np.iinfo(np.int64).max

HEAD = f"""# Dilated convolutions without the products with padding

Made by `benchmarks/dilated.py`: one 3x3 convolution, {CHANNELS} to {OUT} channels, on a {HEIGHT}x{WIDTH} map. "taps":
nine 1x1 convolutions on cropped maps, their results padded and added. "rows": the map is cropped by rows only, so
three 1x3 convolutions are left. "shifts": one 1x1 convolution to 9 x {OUT} channels, then nine shifts are added. Ratios
are the time of the dilated convolution over that of the other form, above 1 is faster: the median of {REPEAT} pairs run
in turns, and in brackets the smallest and the largest."""


def shift(dilation: int, tap: int) -> tuple[int, int, int, int]:
    """Of one axis and tap 0, 1 or 2: first and last element that is read, padding before and after."""
    return ((0, -dilation, dilation, 0), (0, END, 0, 0), (dilation, END, 0, dilation))[tap]


def moved(build: Builder, x: str, dilation: int, i: int, j: int, weight: npt.NDArray[Any] | None) -> str:
    """The share of tap (i, j): cropped, multiplied if `weight` is given, and put in its place."""
    starts, ends, before, after = zip(shift(dilation, i), shift(dilation, j), strict=True)
    if (i, j) != (1, 1):
        x = build.add("Slice", x, *(build.const(v, "int64") for v in (starts, ends, (2, 3))))
    if weight is not None:
        x = build.add("Conv", x, build.const(weight, "float32"))
    pads = (0, 0, *before, 0, 0, *after)
    return build.add("Pad", x, build.const(pads, "int64")) if any(pads) else x


def forms(dilation: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The convolution in each form, with the same weights."""
    weight = np.random.default_rng(0).standard_normal((OUT, CHANNELS, 3, 3)).astype(np.float32) / 136
    for form in ("dilated", "taps", "rows", "shifts"):
        shape = ["N", CHANNELS, HEIGHT, WIDTH]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", OUT, HEIGHT, WIDTH])
        graph = helper.make_graph([], form, [x], [y])
        build = Builder(graph, form)
        if form == "dilated":
            parts = [
                build.add("Conv", "x", build.const(weight, "float32"), dilations=[dilation] * 2, pads=[dilation] * 4)
            ]
        elif form == "taps":
            parts = [
                moved(build, "x", dilation, i, j, weight[:, :, i : i + 1, j : j + 1])
                for i in range(3)
                for j in range(3)
            ]
        elif form == "rows":
            options: dict[str, Any] = {"dilations": [1, dilation], "pads": [0, dilation, 0, dilation]}
            parts = []
            for i in range(3):
                start, end, before, after = shift(dilation, i)
                crop = build.add("Slice", "x", *(build.const([v], "int64") for v in (start, end, 2)))
                row = build.add("Conv", crop, build.const(weight[:, :, i : i + 1], "float32"), **options)
                parts.append(build.add("Pad", row, build.const((0, 0, before, 0, 0, 0, after, 0), "int64")))
        else:
            every_tap = weight.transpose(2, 3, 0, 1).reshape(9 * OUT, CHANNELS, 1, 1)
            mixed = build.add("Conv", "x", build.const(every_tap, "float32"))
            parts = []
            for tap in range(9):
                one = build.add("Slice", mixed, *(build.const([v], "int64") for v in (tap * OUT, (tap + 1) * OUT, 1)))
                parts.append(moved(build, one, dilation, tap // 3, tap % 3, None))
        build.add("Sum", *parts, output="y")
        graph.node.extend(build.nodes)
        yield form, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def main() -> None:
    """Print the table."""
    here = catalog.read(gpus=False)
    print(HEAD, f"\n\n{here.cpu.name}, {here.cpu.cores} threads.\n")
    print(
        "| dilation | plan | dilated, ms | taps | rows | shifts | largest difference |\n|---|---|---|---|---|---|---|"
    )
    x = np.random.default_rng(1).standard_normal((1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    for dilation in (12, 24, 36):
        for plan in every(Device.parse("cpu"), here):
            with tempfile.TemporaryDirectory() as work:
                sessions = {}
                for form, model in forms(dilation):
                    onnx.save(model, f"{work}/{form}.onnx")
                    sessions[form] = Session(Path(work) / f"{form}.onnx", replace(plan, shapes="fixed"))
                results = [session.run(x) for session in sessions.values()]
            apart = max(float(np.abs(result - results[0]).max()) for result in results[1:])
            samples = interleave({n: partial(timed, partial(s.run, x)) for n, s in sessions.items()}, repeat=REPEAT)
            ratios = [cell(ratio(samples["dilated"], samples[form])) for form in list(sessions)[1:]]
            milliseconds = np.median(samples["dilated"].ms)
            print(f"| {dilation} | {plan.name} | {milliseconds:.0f} | {' | '.join(ratios)} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
