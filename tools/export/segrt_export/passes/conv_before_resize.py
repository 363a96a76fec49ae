"""Moves 1 x 1 convolutions before the bilinear upsampling of their inputs.

A 1 x 1 convolution mixes the channels of each pixel; bilinear interpolation `up` mixes the pixels
of each channel, with weights that sum to 1. So the two commute, and the convolution of a
concatenation is a sum over its inputs:

    W concat(up_1(x_1), ..., up_n(x_n)) + b = up_1(W_1 x_1) + ... + up_n(W_n x_n) + b

On the left, W is applied at the upsampled size; on the right, at the size of each x_i. If
x_i = L_i z_i + l_i is the result of a linear layer, W_i and L_i are composed in float64:
W_i x_i = (W_i L_i) z_i + W_i l_i.

The heads of SegFormer (arXiv 2105.15203, section 3.2: linear layers, upsampling, concatenation,
fusion) and of OCRNet with HRNet (arXiv 1909.11065) have this form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from segrt_export.count import Shape
from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import (
    Branch,
    Doubles,
    OverConcat,
    Probes,
    add_over_concat,
    add_pointwise,
    over_concat,
    rewrite_each,
    upsampling,
)


def conv_before_resize(model: ModelProto) -> int:
    """Rewrite each 1 x 1 convolution over a concatenation with upsampled inputs, in place.

    Returns:
        int: the number of convolutions rewritten.
    """
    return rewrite_each(model, "conv_before_resize", _apply)


def _apply(node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
    conv = over_concat(node, index, probes)
    if conv is None or all(
        upsampling(branch.name, index, probes) is None for branch in conv.branches
    ):
        return False
    _rewrite(conv, build, index, probes)
    return True


def _rewrite(conv: OverConcat, build: Builder, index: Index, probes: Probes) -> None:
    bias = conv.bias.copy()
    same: list[Branch] = []
    upsampled: list[tuple[NodeProto, Branch]] = []
    for branch in conv.branches:
        resize = upsampling(branch.name, index, probes)
        source = branch.name if resize is None else resize.input[0]
        simple, shift = _compose(Branch(source, branch.weight), index, probes)
        bias += shift
        if resize is None:
            same.append(simple)
        else:
            upsampled.append((resize, simple))
    out = conv.node.output[0]
    target = total = ""
    if same:
        # The size that the Resize reads may depend on a layer that is removed, so it is read from
        # another input. (Reading the size of the convolution's output instead would keep ONNX
        # Runtime from fusing Conv, Add and Relu.)
        target = build.slice(build.add("Shape", same[0].name), 2, 4)
    for resize, branch in upsampled:
        needs_bias = not same and not total
        low = add_pointwise(build, branch.name, branch.weight, bias if needs_bias else None)
        up = _resize(build, resize, low, target, index, probes)
        total = build.add("Add", total, up) if total else up
    if same:
        build.add("Add", add_over_concat(build, same, bias), total, output=out)
    else:
        build.nodes[-1].output[0] = out
    build.replace(conv.node)


def _resize(
    build: Builder, resize: NodeProto, low: str, target: str, index: Index, probes: Probes
) -> str:
    """Upsample `low` as `resize` does, to the (height, width) in `target` unless that is empty."""
    options = attributes(resize)
    if not target:
        if len(resize.input) < 4:
            return build.add("Resize", low, *resize.input[1:], **options)
        # Skip the number of channels, which depends on a layer that is removed.
        target = sizes = resize.input[3]
        concat = index.made_by(sizes, "Concat")
        if concat is not None and probes(concat.input[-1]) and probes(concat.input[-1])[0] == (2,):
            target = concat.input[-1]
        else:
            target = build.slice(sizes, 2, 4)
    batch_and_channels = build.slice(build.add("Shape", low), 0, 2)
    size = build.add("Concat", batch_and_channels, target, axis=0)
    return build.add("Resize", low, "", "", size, **options)


def _compose(branch: Branch, index: Index, probes: Probes) -> tuple[Branch, Doubles]:
    """Compose a branch's weight with the linear layer that computes its input.

    The converter writes a layer on tokens as Reshape (to N x C x hw), Transpose, MatMul, Add,
    Transpose, Reshape (to N x M x h x w). A layer with more inputs than outputs is left alone,
    because the composition would cost more.

    Returns:
        tuple: the branch that reads the layer's input, and W_i l_i, float64 (out,), where l_i is
        the layer's bias.
    """
    made = index.behind(index.behind(branch.name, "Reshape"), "Transpose", perm=[0, 2, 1])
    linear = index.linear(made)
    flat = index.behind(linear.tokens, "Transpose", perm=[0, 2, 1]) if linear else ""
    source = index.behind(flat, "Reshape")
    if (
        linear is None
        or linear.weight.shape[0] > linear.weight.shape[1]
        or not _flattens(probes(source), probes(flat), probes(branch.name))
    ):
        return branch, np.zeros(len(branch.weight))
    weight = branch.weight @ linear.weight.astype(np.float64).T
    shift = np.zeros(branch.weight.shape[1]) if linear.bias is None else linear.bias
    return Branch(source, weight), branch.weight @ shift.astype(np.float64)


def _flattens(before: Sequence[Shape], flat: Sequence[Shape], after: Sequence[Shape]) -> bool:
    """Whether maps are flattened to N x C x hw and reshaped to their height and width later."""
    kept = [
        len(b) == 4 and f == (*b[:2], b[2] * b[3]) and (b[0], *b[2:]) == (a[0], *a[2:])
        for b, f, a in zip(before, flat, after, strict=False)
    ]
    return bool(kept) and all(kept)
