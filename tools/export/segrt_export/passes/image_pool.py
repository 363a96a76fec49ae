"""Computes the image-pooling branch of an ASPP once per image instead of once per pixel.

This branch (arXiv 1706.05587, section 3.3) is a vector p, computed from the mean of each channel
and copied to every pixel. Its contribution to the 1 x 1 convolution of the concatenation that
follows is the same for every pixel, a bias that depends on the image:

    W concat(x, copies(p)) + b = W_x x + (W_p p + b)

The sum in parentheses is computed at 1 x 1 and broadcast. This does not work for a larger kernel:
with zero padding, its border pixels see fewer copies of p.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Branch, Probes, add_over_concat, over_concat, rewrite_each


def image_pool(model: ModelProto) -> int:
    """Rewrite each 1 x 1 convolution over a concatenation with inputs copied from 1 x 1, in place.

    Returns:
        int: the number of convolutions rewritten.
    """
    return rewrite_each(model, "image_pool", _apply)


def _apply(node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
    conv = over_concat(node, index, probes)
    if conv is None:
        return False
    sources = [_source(branch.name, index, probes) for branch in conv.branches]
    pairs = list(zip(sources, conv.branches, strict=True))
    pools = [Branch(source, branch.weight) for source, branch in pairs if source]
    rest = [branch for source, branch in pairs if not source]
    if not pools or not rest:
        return False
    bias = add_over_concat(build, pools, conv.bias)
    build.add("Add", add_over_concat(build, rest), bias, output=node.output[0])
    build.replace(node)
    return True


def _source(name: str, index: Index, probes: Probes) -> str:
    """The N x C x 1 x 1 map that a Resize or Expand copies to compute `name`; empty if none."""
    node = index.made_by(name, "Resize") or index.made_by(name, "Expand")
    convention = attributes(node).get("coordinate_transformation_mode") if node else None
    if node is None or convention == "tf_crop_and_resize":
        return ""
    kept = [
        before == (*after[:2], 1, 1)
        for before, after in zip(probes(node.input[0]), probes(name), strict=False)
    ]
    return str(node.input[0]) if kept and all(kept) else ""
