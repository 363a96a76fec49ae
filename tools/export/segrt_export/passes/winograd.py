"""Computes 3 x 3 convolutions of many channels with fewer products, after Winograd.

F(m, 3) gives m neighbouring outputs of a one-dimensional convolution with three taps g from m + 2 products instead of
3 m, y = A^T ((G g) * (B^T d)), d the m + 2 inputs that they see; in two dimensions, on tiles, both axes are transformed
(Lavin and Gray, arXiv 1509.09308). The products of a tile's position form one matrix product over the channels:

    y = (A_h x A_w)^T  [ (G_h x G_w) g  (B_h x B_w)^T d ]        x: Kronecker

A dilated convolution is a plain one on each of the d x d interleaved maps, so only the tiles' rows and columns are d
apart. Tiles are gathered from the pixels, N x HW x C, and a row of zeros stands for the padding; the same way, outputs
are gathered to pixels, which drops what a tile has beyond the border. So any height and width will do.

A, B and G come from evaluating polynomials at m + 1 points and at infinity. The points below keep float32's error low:
about five times that of the convolution itself for F(4, 3), half that of the usual 0, 1, -1, 2, -2 (the way of Barabasz
et al., arXiv 1803.10986). In bf16 a tenth to a quarter of the signal would be lost, so this is for plans in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from segrt_export.count import Shape
from segrt_export.graph import Builder, Index, attributes
from segrt_export.pointwise import Doubles, Probes, rewrite_each

POINTS: dict[int, tuple[float, ...]] = {
    2: (0, 1, -1),
    3: (0, 1 / 2, -1, 3 / 2),
    4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    6: (0, 1, -1, 2, -2, 1 / 2, -1 / 2),
}
"""Where the polynomials of F(m, 3) are evaluated, besides infinity, by m."""

_LARGE_TILE = 1.15
"""F(6, 3), whose error is twice that of F(4, 3), must save this much to be taken."""
_MOVED = 100
"""Multiply-adds that take as long as one float32 of one tile does to be gathered, transformed and brought back."""
_WORTH = 0.8
"""Share of the convolution's time, as estimated, under which it is rewritten."""


def winograd(model: ModelProto) -> int:
    """Rewrite each 3 x 3 convolution of stride 1 and many channels that keeps the size of its input, in place.

    Returns:
        int: the number of convolutions rewritten.
    """
    shared = _Shared()
    return rewrite_each(model, "winograd", shared.apply)


def transforms(m: int) -> tuple[Doubles, Doubles, Doubles]:
    """A^T (m, m + 2), G (m + 2, 3) and B^T (m + 2, m + 2) of F(m, 3), float64."""

    def powers(count: int) -> Doubles:
        """Each point to the powers 0 to count - 1; infinity has the highest alone."""
        finite = np.vander(np.array(POINTS[m], np.float64), count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1:]])

    return powers(m).T, powers(3), np.asarray(np.linalg.inv(powers(m + 2)).T, np.float64)


@dataclass(frozen=True)
class Axis:
    """How one axis is cut into tiles.

    Attributes:
        m: outputs of a tile.
        dilation: pixels from one tap to the next.
    """

    m: int
    dilation: int

    def evaluations(self, length: int) -> int:
        """Products along an axis of `length` pixels, for one pair of channels."""
        return (self.m + 2) * self.dilation * -(-length // (self.m * self.dilation))

    @classmethod
    def best(cls, length: int, dilation: int) -> Axis:
        """The tiles with the fewest products, the small ones where there is no difference."""

        def cost(m: int) -> float:
            return cls(m, dilation).evaluations(length) * (_LARGE_TILE if m > 4 else 1)

        return cls(min(POINTS, key=cost), dilation)


@dataclass(frozen=True)
class Places:
    """Tensors that say where tiles lie: the same for all convolutions over maps of one size, cut alike.

    Attributes:
        tiles: int64 (n_h n_w, P): the pixel at each position of each of the P tiles; H W where there is none.
        pixels: int64 (H, W): where among m_h m_w x P outputs each pixel lies.
    """

    tiles: str
    pixels: str


@dataclass
class _Shared:
    """What one convolution leaves for the next."""

    places: dict[tuple[tuple[Shape, ...], Axis, Axis], Places] = field(default_factory=dict)

    def apply(self, node: NodeProto, index: Index, probes: Probes, build: Builder) -> bool:
        weight = index.constant(node.input[1]) if node.op_type == "Conv" else None
        dilation = _dilation(node, weight.shape) if weight is not None else 0
        known = probes(node.input[0]) if dilation else ()
        if weight is None or not known:
            return False
        maps = tuple(shape[2:] for shape in known)
        out, channels = weight.shape[:2]
        (height, width), pairs = maps[0], channels * out
        tall, wide = Axis.best(height, dilation), Axis.best(width, dilation)
        evaluations = tall.evaluations(height) * wide.evaluations(width)
        cost = evaluations * (pairs + _MOVED * (channels + out))
        if cost > _WORTH * pairs * _taps(height, dilation) * _taps(width, dilation):
            return False
        x = build.add("Transpose", node.input[0], perm=[0, 2, 3, 1])
        key = (maps, tall, wide)
        if key not in self.places:
            self.places[key] = add_places(build, x, tall, wide)
        y = add_convolution(build, x, node.input[1], (out, channels), tall, wide, self.places[key])
        for bias in node.input[2:]:
            y = build.add("Add", y, bias)
        _rewrite(node, y, index, build)
        return True


def _dilation(node: NodeProto, weight: Shape) -> int:
    """Of a 3 x 3 convolution that keeps the size of its input; 0 for other convolutions."""
    options = attributes(node)
    if weight[2:] != (3, 3) or options.get("group", 1) != 1:
        return 0
    dilations = set(options.get("dilations", (1,)))
    same = (
        options.get("auto_pad") in ("SAME_UPPER", "SAME_LOWER")
        or set(options.get("pads", (0,))) == dilations
    )
    plain = same and set(options.get("strides", (1,))) == {1} and len(dilations) == 1
    return int(dilations.pop()) if plain else 0


def _taps(length: int, dilation: int) -> int:
    """Taps along an axis that fall inside it: backends know how to skip the rest."""
    return 3 * length - 2 * min(dilation, length)


def _rewrite(node: NodeProto, y: str, index: Index, build: Builder) -> None:
    """Put `y`, N x H x W x C, in the place of the convolution `node`, and of its Relu if nothing else reads that."""
    readers = index.consumers[node.output[0]]
    is_output = any(output.name == node.output[0] for output in build.graph.output)
    relu = (
        readers[0] if len(readers) == 1 and readers[0].op_type == "Relu" and not is_output else None
    )
    # The Relu comes before the transposition, which ONNX Runtime then joins to its own of the convolution that follows.
    result = node.output[0] if relu is None else relu.output[0]
    build.add(
        "Transpose", y if relu is None else build.add("Relu", y), output=result, perm=[0, 3, 1, 2]
    )
    build.replace(node)
    if relu is not None:
        build.graph.node.remove(relu)


def add_convolution(
    build: Builder,
    x: str,
    weight: str,
    shape: tuple[int, int],
    tall: Axis,
    wide: Axis,
    places: Places,
) -> str:
    """Add a 3 x 3 convolution without bias.

    Args:
        build: takes the nodes.
        x: tensor, float32 N x H x W x C.
        weight: tensor, float32 (out, C, 3, 3).
        shape: (out, C).
        tall: how the rows are cut into tiles.
        wide: how the columns are.
        places: where the tiles lie, of `add_places`.

    Returns:
        str: the result's name, N x H x W x out.
    """

    def whole(*values: int) -> str:
        return build.const(values, "int64")

    out, channels = shape
    outputs, kernel, inputs = map(np.kron, transforms(tall.m), transforms(wide.m))
    positions = len(kernel)
    # The kernel is transformed in the graph, from the weights as they are: a runtime does that once, when it loads. One
    # node does it, since ONNX Runtime would keep the results of all.
    taps = build.const(kernel.reshape(positions, 3, 3), "float32")
    spectrum = build.add("Einsum", taps, weight, equation="kij,ocij->kco")

    pixels = build.add(
        "Pad", build.add("Reshape", x, whole(0, -1, channels)), whole(0, 0, 0, 0, 1, 0)
    )
    tiles = build.add("Gather", pixels, places.tiles, axis=1)
    tiles = build.add("Reshape", tiles, whole(0, positions, -1))
    tiles = build.add("MatMul", build.const(inputs, "float32"), tiles)
    products = build.add(
        "MatMul", build.add("Reshape", tiles, whole(0, positions, -1, channels)), spectrum
    )
    products = build.add("Reshape", products, whole(0, positions, -1))
    results = build.add("MatMul", build.const(outputs, "float32"), products)
    return build.add(
        "Gather", build.add("Reshape", results, whole(0, -1, out)), places.pixels, axis=1
    )


def add_places(build: Builder, x: str, tall: Axis, wide: Axis) -> Places:
    """Add the places for maps of the size of `x`, N x H x W x C: asked for in that form, which is made anyway."""

    def whole(*values: int) -> str:
        return build.const(values, "int64")

    shape = build.add("Shape", x)
    height, width = (build.add("Slice", shape, whole(axis), whole(axis + 1)) for axis in (1, 2))
    pixels = build.add("Mul", height, width)
    (rows, inside_rows, span_h), (columns, inside_columns, span_w) = (
        _windows(build, length, axis) for length, axis in ((height, tall), (width, wide))
    )
    # (n_h, 1, span_h, 1) and (1, n_w, 1, span_w)
    rows, inside_rows = (build.add("Unsqueeze", name, whole(1, 3)) for name in (rows, inside_rows))
    columns, inside_columns = (
        build.add("Unsqueeze", name, whole(0, 2)) for name in (columns, inside_columns)
    )
    place = build.add("Add", build.add("Mul", rows, width), columns)
    place = build.add("Where", build.add("And", inside_rows, inside_columns), place, pixels)
    tiles = build.add("Reshape", place, whole((tall.m + 2) * (wide.m + 2), -1))

    plane = build.add("Mul", span_h, span_w)
    down, row = _outputs(build, height, tall)
    across, column = _outputs(build, width, wide)
    down = build.add(
        "Add",
        build.add("Mul", down, build.add("Mul", plane, whole(wide.m))),
        build.add("Mul", row, span_w),
    )
    across = build.add("Add", build.add("Mul", across, plane), column)
    return Places(tiles, build.add("Add", build.add("Unsqueeze", down, whole(1)), across))


def _range(build: Builder, count: str) -> str:
    zero, one = build.const(0, "int64"), build.const(1, "int64")
    return build.add("Range", zero, build.add("Squeeze", count), one)


def _windows(build: Builder, length: str, axis: Axis) -> tuple[str, str, str]:
    """Of one axis: the coordinates that tiles see, (m + 2, span), tile by tile and in a tile by interleaved map;
    whether they lie inside; and span, the number of tiles."""
    reach = axis.m * axis.dilation
    count = build.add(
        "Div",
        build.add("Add", length, build.const([reach - 1], "int64")),
        build.const([reach], "int64"),
    )
    span = build.add("Mul", count, build.const([axis.dilation], "int64"))
    tile = _range(build, span)
    first = build.add(
        "Mul",
        build.add("Div", tile, build.const(axis.dilation, "int64")),
        build.const(reach - axis.dilation, "int64"),
    )
    taps = build.const([[(i - 1) * axis.dilation] for i in range(axis.m + 2)], "int64")
    seen = build.add("Add", build.add("Add", tile, first), taps)
    inside = build.add(
        "And",
        build.add("GreaterOrEqual", seen, build.const(0, "int64")),
        build.add("Less", seen, length),
    )
    return seen, inside, span


def _outputs(build: Builder, length: str, axis: Axis) -> tuple[str, str]:
    """Of each coordinate of one axis: which output of its tile it is, and which tile that is; (length,) each."""
    m, dilation = (build.const(value, "int64") for value in (axis.m, axis.dilation))
    at = _range(build, length)
    line = build.add("Div", at, dilation)
    tile = build.add("Div", line, m)
    output = build.add("Sub", line, build.add("Mul", tile, m))
    beside = build.add("Sub", at, build.add("Mul", line, dilation))
    return output, build.add("Add", build.add("Mul", tile, dilation), beside)
