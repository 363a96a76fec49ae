"""1 x 1 convolutions and their inputs: shared by the passes that move convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto
from onnx.shape_inference import InferenceError

from segrt_export.count import Shape, shapes
from segrt_export.graph import Builder, Index, attributes, prune

_AFFINE = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}
"""Coordinate conventions in which each output pixel is a weighted mean of input pixels."""
Doubles = npt.NDArray[np.float64]
_PROBES: tuple[tuple[int, tuple[int, int]], ...] = ((1, (512, 1024)), (2, (333, 517)))
"""(batch, (height, width)); all differ, so that shapes that agree at both agree at any size."""


_EVEN_PROBES: tuple[tuple[int, tuple[int, int]], ...] = ((1, (512, 1024)), (2, (352, 544)))
"""For networks that only accept multiples of 32."""


class Probes:
    """The shapes of a graph's tensors for two input sizes.

    Example:
        >>> probes = Probes(model)
        >>> probes("x")
        ((1, 3, 512, 1024), (2, 3, 333, 517))
    """

    def __init__(self, model: ModelProto) -> None:
        self._shapes: list[dict[str, Shape]] = [{}]
        for probes in (_PROBES, _EVEN_PROBES):
            with suppress(InferenceError):
                self._shapes = [shapes(model, size, batch=batch) for batch, size in probes]
                return

    def __call__(self, name: str) -> tuple[Shape, ...]:
        """The shape for each input size; empty if unknown."""
        found = tuple(known[name] for known in self._shapes if name in known)
        return found if len(found) == len(self._shapes) else ()


def rewrite_each(
    model: ModelProto, name: str, rewrite: Callable[[NodeProto, Index, Probes, Builder], bool]
) -> int:
    """Call a pass with every node of a graph, in place.

    Args:
        model: the model to rewrite; nodes that became unused are removed at the end.
        name: name of the pass, the prefix of its new tensors.
        rewrite: replaces the node by those it adds to the builder and returns True, or leaves the
            graph unchanged and returns False.

    Returns:
        int: the number of nodes rewritten.
    """
    graph = model.graph
    index, probes = Index(graph), Probes(model)
    count = 0
    for node in list(graph.node):
        if rewrite(node, index, probes, Builder(graph, f"{name}.{count}")):
            index = Index(graph)
            count += 1
    if count:
        prune(graph)
    return count


@dataclass(frozen=True)
class Branch:
    """One input of the concatenation that a 1 x 1 convolution reads.

    Attributes:
        name: name of the tensor, N x C x h x w.
        weight: the columns of the convolution's weight for this input, float64 (out, C).
    """

    name: str
    weight: Doubles


@dataclass(frozen=True)
class OverConcat:
    """A 1 x 1 convolution over a concatenation of channels: sum_i W_i x_i + b.

    Attributes:
        node: the convolution.
        branches: x_i and W_i.
        bias: b, float64 (out,).
    """

    node: NodeProto
    branches: tuple[Branch, ...]
    bias: Doubles


def over_concat(node: NodeProto, index: Index, probes: Probes) -> OverConcat | None:
    """Match a 1 x 1 convolution over a concatenation of channels; None if `node` is another."""
    if not is_pointwise(node, index):
        return None
    concat = index.made_by(node.input[0], "Concat")
    if concat is None or attributes(concat)["axis"] not in (1, -3):
        return None
    weight, bias = parameters(node, index)
    parts = split_channels(weight, concat, probes)
    return OverConcat(node, tuple(map(Branch, concat.input, parts)), bias) if parts else None


def split_channels(weight: Doubles, concat: NodeProto, probes: Probes) -> list[Doubles]:
    """Split a convolution's weight into those of the inputs of the concatenation that it reads.

    Args:
        weight: float64 (out, C, ...).
        concat: concatenates channels.
        probes: shapes of the graph.

    Returns:
        list: a weight for each input, (out, C_i, ...); empty if the shape of an input is unknown.
    """
    channels = [probes(name)[0][1] if probes(name) else 0 for name in concat.input]
    if sum(channels) != weight.shape[1] or not all(channels):
        return []
    return list(np.split(weight, np.cumsum(channels)[:-1], axis=1))


def is_pointwise(node: NodeProto, index: Index) -> bool:
    """Whether `node` is an unpadded 1 x 1 convolution of stride 1, one group, constant weights."""
    if node.op_type != "Conv" or any(index.constant(name) is None for name in node.input[1:]):
        return False
    options = attributes(node)
    weight = index.constant(node.input[1])
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and options.get("group", 1) == 1
        and not any(options.get("pads", ()))
        and set(options.get("strides", (1,))) == {1}
    )


def parameters(node: NodeProto, index: Index) -> tuple[Doubles, Doubles]:
    """Weight, float64 (out, in), and bias, float64 (out,), of a 1 x 1 convolution."""
    weight, *bias = (np.asarray(index.constant(name), np.float64) for name in node.input[1:])
    return weight[:, :, 0, 0], bias[0] if bias else np.zeros(len(weight))


def add_pointwise(build: Builder, x: str, weight: Doubles, bias: Doubles | None = None) -> str:
    """Add a 1 x 1 convolution; returns its output's name."""
    inputs = [x, build.const(weight[:, :, None, None], "float32")]
    if bias is not None:
        inputs.append(build.const(bias, "float32"))
    return build.add("Conv", *inputs, kernel_shape=[1, 1])


def add_over_concat(build: Builder, branches: Sequence[Branch], bias: Doubles | None = None) -> str:
    """Add a 1 x 1 convolution over the concatenation of `branches`; returns its output's name."""
    x = build.concat([branch.name for branch in branches], axis=1)
    return add_pointwise(build, x, np.hstack([branch.weight for branch in branches]), bias)


def upsampling(name: str, index: Index, probes: Probes) -> NodeProto | None:
    """The bilinear Resize to more pixels that computes `name`; None if another node does."""
    node = index.made_by(name, "Resize")
    if node is None:
        return None
    options = attributes(node)
    before, after = probes(node.input[0]), probes(name)
    grows = [
        b[:2] == a[:2] and b[2] <= a[2] and b[3] <= a[3] and b != a
        for b, a in zip(before, after, strict=True)
    ]
    affine = options.get("coordinate_transformation_mode", "half_pixel") in _AFFINE
    affine = affine and options.get("mode") == "linear" and not {"antialias", "axes"} & set(options)
    return node if affine and grows and all(grows) else None
