"""Turns a linear layer on tokens whose result becomes a map into a 1 x 1 convolution of the map.

With tokens X, N x hw x C, a layer W with more outputs than inputs, and `map` for the Transpose and
Reshape to N x C x h x w:

    map(X W + b) = conv1x1(map(X), W^T) + b

On the right, the narrow tokens are transposed instead of the wide result. The convolution that
reads the map (a depthwise one in SegFormer's Mix-FFN, arXiv 2105.15203 equation 3) gets it in the
memory layout that runtimes use for convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Doubles, Probes, add_pointwise, rewrite_each


@dataclass(frozen=True)
class _Layer:
    """A linear layer whose result becomes a map.

    Attributes:
        tokens: name of its input, N x hw x C.
        weight: float64 (C, K), with C < K.
        bias: float64 (K,).
        shapes: the nodes that only read the shape of its result, N x hw x K.
        reshape: computes the map, N x K x h x w.
    """

    tokens: str
    weight: Doubles
    bias: Doubles
    shapes: list[NodeProto]
    reshape: NodeProto


def linear_as_conv(model: ModelProto) -> int:
    """Rewrite each linear layer that widens tokens before they become a map, in place.

    Returns:
        int: the number of layers rewritten.
    """
    return rewrite_each(model, "linear_as_conv", _apply)


def _apply(node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
    layer = _match(node, index)
    if layer is None or not _becomes_map(layer.tokens, layer.reshape.output[0], probes):
        return False
    _rewrite(layer, build)
    return True


def _match(node: NodeProto, index: Index) -> _Layer | None:
    """The layer whose map the convolution `node` reads, if nothing else needs its result."""
    reshape = index.made_by(node.input[0], "Reshape") if node.op_type == "Conv" else None
    if reshape is None:
        return None
    transposed = reshape.input[0]
    wide = index.behind(transposed, "Transpose", perm=[0, 2, 1])
    linear = index.linear(wide)
    if linear is None or linear.bias is None:
        return None
    weight, bias = linear.weight, linear.bias
    shapes = [reader for reader in index.consumers[wide] if reader.op_type == "Shape"]
    has_other_readers = (
        len(index.consumers[linear.product]) > 1
        or len(index.consumers[transposed]) > 1
        or len(index.consumers[wide]) > len(shapes) + 1
        or any(attributes(shape) for shape in shapes)
    )
    if weight.shape[0] >= weight.shape[1] or has_other_readers:
        return None
    return _Layer(
        linear.tokens, weight.astype(np.float64), bias.astype(np.float64), shapes, reshape
    )


def _rewrite(layer: _Layer, build: Builder) -> None:
    channels, out = layer.weight.shape
    for count, shape in enumerate(layer.shapes):  # compute the shape without the layer
        above = Builder(build.graph, f"{build.prefix}.shape{count}")
        outer = above.slice(above.add("Shape", layer.tokens), 0, 2)
        above.add("Concat", outer, above.const([out]), output=shape.output[0], axis=0)
        above.replace(shape)
    size = build.slice(layer.reshape.input[1], 2, 4)
    target = build.add("Concat", build.const([0, channels]), size, axis=0)
    narrow = build.add("Reshape", build.add("Transpose", layer.tokens, perm=[0, 2, 1]), target)
    add_pointwise(build, narrow, layer.weight.T, layer.bias)
    build.nodes[-1].output[0] = layer.reshape.output[0]
    build.replace(layer.reshape)


def _becomes_map(tokens: str, result: str, probes: Probes) -> bool:
    """Whether N x hw x C tokens become an N x K x h x w map."""
    kept = [
        len(flat) == 3 and len(full) == 4 and flat[:2] == (full[0], full[2] * full[3])
        for flat, full in zip(probes(tokens), probes(result), strict=False)
    ]
    return bool(kept) and all(kept)
