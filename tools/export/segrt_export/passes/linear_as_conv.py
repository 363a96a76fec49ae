"""Turns a linear layer on tokens whose result becomes a picture into a 1 x 1 convolution of the picture.

With tokens X, N x hw x C, a layer W of more outputs than inputs, and `picture` for Transpose and Reshape to
N x C x h x w:

    picture(X W + b) = conv1x1(picture(X), W^T) + b

On the right the narrow tokens are transposed, not the wide result, and the convolution that reads it (in SegFormer's
Mix-FFN, arXiv 2105.15203 equation 3, a depthwise one) gets it in the layout in which runtimes hold convolutions.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto

from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Probes, add_pointwise, rewrite_each


def linear_as_conv(model: ModelProto) -> int:
    """Rewrite each such layer, in place.

    Returns:
        int: the number of layers rewritten.
    """
    return rewrite_each(model, "linear_as_conv", _apply)


def _apply(node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
    if node.op_type != "Conv" or (picture := index.made_by(node.input[0], "Reshape")) is None:
        return False
    transposed = picture.input[0]
    wide = index.behind(transposed, "Transpose", perm=[0, 2, 1])
    add = index.made_by(wide, "Add")
    product = index.made_by(add.input[0], "MatMul") if add is not None else None
    if add is None or product is None:
        return False
    tokens, (weight, bias) = (
        product.input[0],
        (index.constant(product.input[1]), index.constant(add.input[1])),
    )
    if (
        weight is None
        or bias is None
        or weight.ndim != 2
        or bias.ndim != 1
        or weight.shape[0] >= weight.shape[1]
    ):
        return False
    shapes = [reader for reader in index.consumers[wide] if reader.op_type == "Shape"]
    alone = len(index.consumers[product.output[0]]) == len(index.consumers[transposed]) == 1
    if (
        not alone
        or len(index.consumers[wide]) != len(shapes) + 1
        or any(attributes(shape) for shape in shapes)
    ):
        return False
    if not _is_picture(tokens, picture.output[0], probes):
        return False
    for count, shape in enumerate(
        shapes
    ):  # what only asked for the layer's shape must not keep the layer
        ask = Builder(build.graph, f"{build.prefix}.shape{count}")
        outer = ask.add(
            "Slice", ask.add("Shape", tokens), ask.const([0], "int64"), ask.const([2], "int64")
        )
        ask.add(
            "Concat", outer, ask.const([weight.shape[1]], "int64"), output=shape.output[0], axis=0
        )
        ask.replace(shape)
    size = build.add(
        "Slice", picture.input[1], build.const([2], "int64"), build.const([4], "int64")
    )
    target = build.add("Concat", build.const([0, weight.shape[0]], "int64"), size, axis=0)
    narrow = build.add("Reshape", build.add("Transpose", tokens, perm=[0, 2, 1]), target)
    add_pointwise(build, narrow, weight.T.astype(np.float64), bias.astype(np.float64))
    build.nodes[-1].output[0] = picture.output[0]
    build.replace(picture)
    return True


def _is_picture(tokens: str, picture: str, probes: Probes) -> bool:
    """Whether N x hw x C tokens become an N x K x h x w map."""
    kept = [
        len(flat) == 3 and len(full) == 4 and flat[:2] == (full[0], full[2] * full[3])
        for flat, full in zip(probes(tokens), probes(picture), strict=False)
    ]
    return bool(kept) and all(kept)
