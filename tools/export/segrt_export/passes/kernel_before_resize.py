"""Applies the taps of a k x k convolution in front of the bilinear upsampling of what it reads.

Tap (i, j) of a convolution is a 1 x 1 convolution W_ij of the map shifted by (i - k // 2, j - k // 2), with zeros
moving in at the border. Interpolation is a matrix product on either side, up(x) = R x C^T, a shift is one too, and
W_ij, which mixes channels, commutes with both (see conv_before_resize):

    conv(up(x)) = sum_ij S_i R (W_ij x) C^T S_j^T = sum_j (sum_i (S_i R) (W_ij x)) (S_j C)^T

So the channels are mixed at the size of x, all taps in one 1 x 1 convolution. The sum over i is one product with the
rows of all S_i R side by side, the sum over j another, which adds up the upsampled inputs of a concatenation as well.
R is had by upsampling the identity, and S_i R by moving its rows.

The head of OCRNet on HRNet (arXiv 1909.11065) has a 3 x 3 convolution over four maps, three of them upsampled, 2 to 8
times. It is a third of the network's work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Doubles, Probes, rewrite_each, upsampling

WORTH = 0.5
"""Share of an input's multiply-adds under which it is rewritten. The products move more memory than a convolution."""


@dataclass(frozen=True)
class _Part:
    """An input of the concatenation.

    Attributes:
        name: tensor, N x C x H x W.
        resize: what makes it, if that is to go.
        weight: the convolution's weights for it, float64 (out, C, k, k).
    """

    name: str
    resize: NodeProto | None
    weight: Doubles


def kernel_before_resize(model: ModelProto) -> int:
    """Rewrite each k x k convolution over a concatenation that has far upsampled inputs, in place.

    One of the inputs must have the output's size already: from it the others learn how far to go.

    Returns:
        int: the number of convolutions rewritten.
    """
    return rewrite_each(model, "kernel_before_resize", _apply)


def _apply(node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
    parts = _parts(node, index, probes)
    if not any(part.resize for part in parts) or all(part.resize for part in parts):
        return False
    _rewrite(node, parts, build)
    return True


def _parts(node: NodeProto, index: Index, probes: Probes) -> list[_Part]:
    """The inputs of a k x k convolution that keeps the size of a concatenation; none if `node` is something else."""
    weight = index.constant(node.input[1]) if node.op_type == "Conv" else None
    concat = index.made_by(node.input[0], "Concat") if weight is not None else None
    if (
        weight is None
        or concat is None
        or attributes(concat)["axis"] not in (1, -3)
        or weight.ndim != 4
    ):
        return []
    size = weight.shape[2]
    options = attributes(node)
    plain = {"strides": 1, "dilations": 1, "pads": size // 2}
    if size == 1 or size % 2 == 0 or weight.shape[3] != size or options.get("group", 1) != 1:
        return []
    if any(
        set(options.get(key, (0 if key == "pads" else 1,))) != {value}
        for key, value in plain.items()
    ):
        return []
    channels = [probes(name)[0][1] if probes(name) else 0 for name in concat.input]
    if sum(channels) != weight.shape[1] or not all(channels):
        return []
    pieces = np.split(weight.astype(np.float64), np.cumsum(channels)[:-1], axis=1)
    return [
        _part(name, piece, index, probes) for name, piece in zip(concat.input, pieces, strict=True)
    ]


def _part(name: str, weight: Doubles, index: Index, probes: Probes) -> _Part:
    resize = upsampling(name, index, probes)
    if resize is not None:
        out, size = weight.shape[0], weight.shape[2]
        (_, _, low_h, low_w), (_, _, high_h, high_w) = probes(resize.input[0])[0], probes(name)[0]
        taps = weight.size * low_h * low_w
        products = out * size * high_h * low_w * (size * low_h + high_w)
        if taps + products > WORTH * weight.size * high_h * high_w:
            resize = None
    return _Part(name, resize, weight)


def _rewrite(node: NodeProto, parts: list[_Part], build: Builder) -> None:
    def whole(*values: int) -> str:
        return build.const(values, "int64")

    rest = [part for part in parts if part.resize is None]
    out, _, size, _ = rest[0].weight.shape
    shape = build.add("Shape", rest[0].name)
    across, below = [], []
    for part in parts:
        if part.resize is None:
            continue
        low = part.resize.input[0]
        # (out, C, i, j) -> (out, j, i, C): the rows of all i of one j come to lie below one another
        taps = part.weight.transpose(0, 3, 2, 1).reshape(out * size * size, -1, 1, 1)
        mixed = build.add("Conv", low, build.const(taps, "float32"), kernel_shape=[1, 1])
        low_shape = build.add("Shape", low)
        width = build.add("Slice", low_shape, whole(3), whole(4))
        rows = build.add(
            "Reshape", mixed, build.add("Concat", whole(0, out * size, -1), width, axis=0)
        )
        down = build.add("MatMul", _shifted(build, part.resize, low_shape, shape, 2, size), rows)
        by_tap = build.add(
            "Reshape", down, build.add("Concat", whole(0, out, size, -1), width, axis=0)
        )
        columns = build.add("Transpose", by_tap, perm=[0, 1, 3, 2, 4])
        height = build.add("Slice", shape, whole(2), whole(3))
        across.append(
            build.add(
                "Reshape", columns, build.add("Concat", whole(0, out), height, whole(-1), axis=0)
            )
        )
        below.append(_shifted(build, part.resize, low_shape, shape, 3, size))
    left = build.add("Concat", *across, axis=3) if len(across) > 1 else across[0]
    right = build.add("Concat", *below, axis=1) if len(below) > 1 else below[0]
    upsampled = build.add("MatMul", left, build.add("Transpose", right, perm=[1, 0]))
    names = [part.name for part in rest]
    x = build.add("Concat", *names, axis=1) if len(names) > 1 else names[0]
    weight = build.const(np.concatenate([part.weight for part in rest], axis=1), "float32")
    direct = build.add("Conv", x, weight, *node.input[2:], **attributes(node))
    build.add("Add", direct, upsampled, output=node.output[0])
    build.replace(node)


def _shifted(build: Builder, resize: NodeProto, low: str, high: str, axis: int, size: int) -> str:
    """The matrices S_i R side by side, float32 (H, size * h), for one axis of the shapes `low` and `high`."""

    def whole(*values: int) -> str:
        return build.const(values, "int64")

    h = build.add("Slice", low, whole(axis), whole(axis + 1))
    index = build.add(
        "Range", build.const(0, "int64"), build.add("Squeeze", h), build.const(1, "int64")
    )
    same = build.add("Equal", build.add("Unsqueeze", index, whole(1)), index)
    identity = build.add("Unsqueeze", build.add("Cast", same, to=TensorProto.FLOAT), whole(0, 1))
    to = build.add(
        "Concat", whole(1, 1), build.add("Slice", high, whole(axis), whole(axis + 1)), h, axis=0
    )
    matrix = build.add(
        "Squeeze", build.add("Resize", identity, "", "", to, **attributes(resize)), whole(0, 1)
    )
    margin = size // 2
    padded = build.add("Pad", matrix, whole(margin, 0, margin, 0))
    last = np.iinfo(np.int64).max
    moved = [
        build.add("Slice", padded, whole(i), whole(i - 2 * margin or last), whole(0))
        for i in range(size)
    ]
    return build.add("Concat", *moved, axis=1)
