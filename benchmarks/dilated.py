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

HEIGHT, WIDTH, REPEAT = 64, 128, 7
CASES = ((512, 512, 4), (2048, 256, 12), (2048, 256, 24), (2048, 256, 36))  # channels in, channels out, dilation
FORMS = ("dilated", "taps", "rows", "shifts", "winograd")
INPUT = np.zeros((6, 6))  # of F(4, 3), with the points 0, 1, -1, 2, -2 and infinity
INPUT[0, :5] = INPUT[5, 1:] = 4, 0, -5, 0, 1
INPUT[1:5, 1:5] = [[-4, -4, 1, 1], [4, -4, -1, 1], [-2, -1, 2, 1], [2, -1, -2, 1]]
KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
END = np.iinfo(np.int64).max

HEAD = f"""# Dilated convolutions in other forms

Made by `benchmarks/dilated.py`: one 3x3 convolution on a {HEIGHT}x{WIDTH} map. "taps": nine 1x1 convolutions on cropped
maps, their results padded and added. "rows": the map is cropped by rows only, so three 1x3 convolutions are left.
"shifts": one 1x1 convolution to nine times the channels, then nine shifts are added. "winograd": F(4x4, 3x3) of arXiv
1509.09308 on each of the interleaved maps, a quarter of the products, its transforms as matrix products. Ratios are the
time of the dilated convolution over that of the other form, above 1 is faster: the median of {REPEAT} pairs run in
turns, and in brackets the smallest and the largest."""


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


def transforms(length: int, dilation: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Of one axis: input -> six values of each tile, (6, tiles, length), and back: (length, 6, tiles)."""
    lines = [range(first, length, dilation) for first in range(dilation)]
    tiles = [(line, start) for line in lines for start in range(0, len(line), 4)]
    there, back = np.zeros((6, len(tiles), length)), np.zeros((length, 6, len(tiles)))
    for tile, (line, start) in enumerate(tiles):
        for i in range(6):
            if 0 <= start + i - 1 < len(line):
                there[:, tile, line[start + i - 1]] = INPUT[:, i]
        for i in range(min(4, len(line) - start)):
            back[line[start + i], :, tile] = OUTPUT[i]
    return there, back


def winograd(build: Builder, weight: npt.NDArray[Any], dilation: int) -> str:
    """The convolution of "x"."""
    out, channels = weight.shape[:2]
    (down, up), (right, left) = transforms(HEIGHT, dilation), transforms(WIDTH, dilation)
    rows, columns = down.shape[1], right.shape[1]
    spectrum = np.einsum("ai,bj,ocij->aboc", KERNEL, KERNEL, weight).reshape(36, out, channels)

    def shaped(x: str, *shape: int) -> str:
        return build.add("Reshape", x, build.const(shape, "int64"))

    x = build.add("MatMul", "x", build.const(right.reshape(-1, WIDTH).T, "float32"))
    x = shaped(build.add("MatMul", build.const(down.reshape(-1, HEIGHT), "float32"), x), channels, 6, rows, 6, columns)
    x = shaped(build.add("Transpose", x, perm=[1, 3, 0, 2, 4]), 36, channels, rows * columns)
    x = shaped(build.add("MatMul", build.const(spectrum, "float32"), x), 6, 6, out, rows, columns)
    x = shaped(build.add("Transpose", x, perm=[2, 0, 3, 1, 4]), 1, out, 6 * rows, 6 * columns)
    x = build.add("MatMul", build.const(up.reshape(HEIGHT, -1), "float32"), x)
    return build.add("MatMul", x, build.const(left.reshape(WIDTH, -1).T, "float32"))


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
        elif form == "winograd":
            parts = [winograd(build, weight, dilation)]
        else:
            every_tap = weight.transpose(2, 3, 0, 1).reshape(9 * out, channels, 1, 1)
            mixed = build.add("Conv", "x", build.const(every_tap, "float32"))
            parts = []
            for tap in range(9):
                one = build.add("Slice", mixed, *(build.const([v], "int64") for v in (tap * out, (tap + 1) * out, 1)))
                parts.append(moved(build, one, dilation, tap // 3, tap % 3, None))
        build.add("Sum", *parts, output="y")
        graph.node.extend(build.nodes)
        yield form, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def main() -> None:
    """Print the table."""
    here = catalog.read(gpus=False)
    print(HEAD, f"\n\n{here.cpu.name}, {here.cpu.cores} threads.\n")
    columns = ("channels", "dilation", "plan", "dilated, ms", *FORMS[1:], "largest difference")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for channels, out, dilation in CASES:
        x = np.random.default_rng(1).standard_normal((1, channels, HEIGHT, WIDTH)).astype(np.float32)
        for plan in every(Device.parse("cpu"), here):
            with tempfile.TemporaryDirectory() as work:
                sessions = {}
                for form, model in forms(channels, out, dilation):
                    onnx.save(model, f"{work}/{form}.onnx")
                    sessions[form] = Session(Path(work) / f"{form}.onnx", replace(plan, shapes="fixed"))
                results = [session.run(x) for session in sessions.values()]
            apart = max(float(np.abs(result - results[0]).max()) for result in results[1:])
            samples = interleave({n: partial(timed, partial(s.run, x)) for n, s in sessions.items()}, repeat=REPEAT)
            ratios = [cell(ratio(samples["dilated"], samples[form])) for form in list(sessions)[1:]]
            what = (f"{channels} to {out}", dilation, plan.name, f"{np.median(samples['dilated'].ms):.0f}")
            print(f"| {' | '.join(map(str, (*what, *ratios)))} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
