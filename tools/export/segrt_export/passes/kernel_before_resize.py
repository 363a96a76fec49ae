"""Applies the taps of a k x k convolution before the bilinear upsampling of its inputs.

Tap (i, j) of a convolution is a 1 x 1 convolution W_ij of the map shifted by
(i - k // 2, j - k // 2), with zeros beyond the border. Interpolation is a matrix product on either
side, up(x) = R x C^T, and so is a shift. W_ij mixes channels and commutes with both (see
conv_before_resize):

    conv(up(x)) = sum_ij S_i R (W_ij x) C^T S_j^T = sum_j (sum_i (S_i R) (W_ij x)) (S_j C)^T

So the channels are mixed at the size of x, with all taps in one 1 x 1 convolution. The sum over i
is one product with the concatenated S_i R; the sum over j is another, which also adds the upsampled
inputs of a concatenation. R is computed by upsampling the identity, and S_i R by shifting its rows.

The head of OCRNet with HRNet (arXiv 1909.11065) has a 3 x 3 convolution over four maps, three of
which are upsampled, by 2 to 8. It is a third of the network's multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from segrt_export.count import Shape
from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Doubles, Probes, rewrite_each, split_channels, upsampling

WORTH = 0.5
"""Maximum share of multiply-adds that may remain for an input to be rewritten. The products move
more memory than a convolution."""


@dataclass(frozen=True)
class _Part:
    """An input of the concatenation.

    Attributes:
        name: name of the tensor, N x C x H x W.
        resize: the Resize that computes it, if it is to be removed.
        weight: the convolution's weights for this input, float64 (out, C, k, k).
    """

    name: str
    resize: NodeProto | None
    weight: Doubles


def kernel_before_resize(model: ModelProto) -> int:
    """Rewrite each k x k convolution over a concatenation with inputs upsampled by much, in place.

    At least one input must not be upsampled: the output size is read from it.

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
    """The inputs of a k x k convolution over a concatenation; empty if `node` is another node."""
    weight = index.constant(node.input[1]) if node.op_type == "Conv" else None
    concat = index.made_by(node.input[0], "Concat") if weight is not None else None
    if weight is None or concat is None or attributes(concat)["axis"] not in (1, -3):
        return []
    if not _keeps_size(weight.shape, attributes(node)):
        return []
    pieces = split_channels(weight.astype(np.float64), concat, probes)
    return [
        _part(name, piece, index, probes) for name, piece in zip(concat.input, pieces, strict=False)
    ]


def _keeps_size(weight: Shape, options: Mapping[str, Any]) -> bool:
    """Whether a convolution has one group, a square kernel larger than 1 and "same" padding."""
    size = weight[-1]
    if len(weight) != 4 or weight[2] != size or size == 1 or size % 2 == 0:
        return False
    return (
        options.get("group", 1) == 1
        and set(options.get("strides", (1,))) == {1}
        and set(options.get("dilations", (1,))) == {1}
        and set(options.get("pads", (0,))) == {size // 2}
    )


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
    rest = [part for part in parts if part.resize is None]
    shape = build.add("Shape", rest[0].name)
    left, right = [], []
    for part in parts:
        if part.resize is not None:
            rows, columns = _upsample(build, part, part.resize, shape)
            left.append(rows)
            right.append(columns)
    rows, columns = build.concat(left, axis=3), build.concat(right, axis=1)
    upsampled = build.add("MatMul", rows, build.add("Transpose", columns, perm=[1, 0]))
    x = build.concat([part.name for part in rest], axis=1)
    weight = build.const(np.concatenate([part.weight for part in rest], axis=1), "float32")
    direct = build.add("Conv", x, weight, *node.input[2:], **attributes(node))
    build.add("Add", direct, upsampled, output=node.output[0])
    build.replace(node)


def _upsample(build: Builder, part: _Part, resize: NodeProto, shape: str) -> tuple[str, str]:
    """Add sum_i (S_i R) (W_ij x) and the matrices S_j C; their product is the part's result.

    Returns:
        tuple: names of both, N x out x H x (w, k) and W x (w, k).
    """
    low = resize.input[0]
    out, _, size, _ = part.weight.shape
    # (out, C, i, j) -> (out, j, i, C): for each j, the rows of all i follow one another
    taps = part.weight.transpose(0, 3, 2, 1).reshape(out * size * size, -1, 1, 1)
    mixed = build.add("Conv", low, build.const(taps, "float32"), kernel_shape=[1, 1])
    low_shape = build.add("Shape", low)
    width = build.slice(low_shape, 3, 4)
    target = build.add("Concat", build.const([0, out * size, -1]), width, axis=0)
    rows = build.add("Reshape", mixed, target)
    down = build.add("MatMul", _shifted(build, resize, low_shape, shape, 2, size), rows)
    target = build.add("Concat", build.const([0, out, size, -1]), width, axis=0)
    by_tap = build.add("Reshape", down, target)
    columns = build.add("Transpose", by_tap, perm=[0, 1, 3, 2, 4])
    height = build.slice(shape, 2, 3)
    target = build.add("Concat", build.const([0, out]), height, build.const([-1]), axis=0)
    flat = build.add("Reshape", columns, target)
    return flat, _shifted(build, resize, low_shape, shape, 3, size)


def _shifted(build: Builder, resize: NodeProto, low: str, high: str, axis: int, size: int) -> str:
    """The concatenated matrices S_i R, float32 (H, size * h), along `axis` of both shapes."""
    h = build.slice(low, axis, axis + 1)
    index = build.add("Range", build.const(0), build.add("Squeeze", h), build.const(1))
    same = build.add("Equal", build.add("Unsqueeze", index, build.const([1])), index)
    cast = build.add("Cast", same, to=TensorProto.FLOAT)
    identity = build.add("Unsqueeze", cast, build.const([0, 1]))
    target = build.add("Concat", build.const([1, 1]), build.slice(high, axis, axis + 1), h, axis=0)
    resized = build.add("Resize", identity, "", "", target, **attributes(resize))
    matrix = build.add("Squeeze", resized, build.const([0, 1]))
    margin = size // 2
    padded = build.add("Pad", matrix, build.const([margin, 0, margin, 0]))
    last = np.iinfo(np.int64).max
    shifted = [
        build.add(
            "Slice",
            padded,
            build.const([i]),
            build.const([i - 2 * margin or last]),
            build.const([0]),
        )
        for i in range(size)
    ]
    return build.add("Concat", *shifted, axis=1)
