"""Computes 3 x 3 convolutions of many channels with fewer products (Winograd's algorithm).

F(m, 3) computes m adjacent outputs of a one-dimensional convolution with three taps g from m + 2
products instead of 3 m: y = A^T ((G g) * (B^T d)), where d are the m + 2 inputs in their receptive
field. In two dimensions, both axes of a tile are transformed (Lavin and Gray, arXiv 1509.09308).
For each position in a tile, the products form one matrix product over the channels:

    y = (A_h x A_w)^T  [ (G_h x G_w) g  (B_h x B_w)^T d ]        x: Kronecker

A dilated convolution is an ordinary one on each of the d x d interleaved maps, so the rows and
columns of its tiles are d pixels apart. Tiles are gathered from the pixels, N x HW x C, followed by
zeros for the padding. The outputs are gathered to pixels in the same way, which drops the
part of a tile beyond the border. So any height and width are possible.

A, B and G result from evaluating polynomials at m + 1 points and at infinity. The points below keep
the error in float32 low: about five times that of direct convolution for F(4, 3), half that of the
usual points 0, 1, -1, 2, -2 (see Barabasz et al., arXiv 1803.10986). In bf16, the error would be
10% to 25% of the signal, so this rewrite is for FP32 plans.
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
"""The points at which the polynomials of F(m, 3) are evaluated, besides infinity, by m."""

_LARGE_TILE = 1.15
"""Factor by which F(6, 3), with twice the error of F(4, 3), must reduce products to be chosen."""
_MOVED = 100
"""Number of multiply-adds that take as long as moving one float32 of a tile there and back."""
_WORTH = 0.8
"""Maximum estimated share of a convolution's time for which it is rewritten."""


def winograd(model: ModelProto) -> int:
    """Rewrite each 3 x 3 convolution with stride 1, "same" padding and many channels, in place.

    Returns:
        int: the number of convolutions rewritten.
    """
    shared = _Shared()
    return rewrite_each(model, "winograd", shared.apply)


def transforms(m: int) -> tuple[Doubles, Doubles, Doubles]:
    """A^T (m, m + 2), G (m + 2, 3) and B^T (m + 2, m + 2) of F(m, 3), float64.

    Example:
        >>> outputs, kernel, inputs = transforms(4)
        >>> outputs @ ((kernel @ taps) * (inputs @ line))  # np.correlate(line, taps)
    """

    def powers(count: int) -> Doubles:
        """The powers 0 to count - 1 of each point; infinity only has the highest."""
        finite = np.vander(np.array(POINTS[m], np.float64), count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1:]])

    return powers(m).T, powers(3), np.asarray(np.linalg.inv(powers(m + 2)).T, np.float64)


@dataclass(frozen=True)
class Axis:
    """How an axis is divided into tiles.

    Attributes:
        m: outputs per tile.
        dilation: distance of the taps in pixels.
    """

    m: int
    dilation: int

    def evaluations(self, length: int) -> int:
        """Number of products along an axis of `length` pixels, for one pair of channels."""
        return (self.m + 2) * self.dilation * -(-length // (self.m * self.dilation))

    @classmethod
    def best(cls, length: int, dilation: int) -> Axis:
        """The tiles with the fewest products; the smaller ones if equal."""

        def cost(m: int) -> float:
            return cls(m, dilation).evaluations(length) * (_LARGE_TILE if m > 4 else 1)

        return cls(min(POINTS, key=cost), dilation)


@dataclass(frozen=True)
class TileIndices:
    """Index tensors, shared by all convolutions over maps of the same size with the same tiles.

    Attributes:
        tiles: int64 (n_h n_w, P): the pixel at each position of each of the P tiles; H W for the
            padding.
        pixels: int64 (H, W): the index of each pixel among the m_h m_w x P outputs.
    """

    tiles: str
    pixels: str


@dataclass
class _Shared:
    """The pass, and the index tensors that its convolutions share."""

    indices: dict[tuple[tuple[Shape, ...], Axis, Axis], TileIndices] = field(default_factory=dict)

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
        x, key = node.input[0], (maps, tall, wide)
        if key not in self.indices:
            self.indices[key] = add_tile_indices(build, x, tall, wide)
        indices = self.indices[key]
        pixels = add_pixels(build, x, channels, shared=len(index.consumers[x]) > 1)
        y = add_convolution(build, pixels, node.input[1], (out, channels), tall, wide, indices)
        for bias in node.input[2:]:
            y = build.add("Add", y, bias)
        _rewrite(node, y, index, build)
        return True


def _dilation(node: NodeProto, weight: Shape) -> int:
    """The dilation of a 3 x 3 convolution with stride 1 and "same" padding; 0 for others."""
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
    """Number of taps along an axis that lie inside it; backends can skip the others."""
    return 3 * length - 2 * min(dilation, length)


def _rewrite(node: NodeProto, y: str, index: Index, build: Builder) -> None:
    """Replace the convolution `node`, and its Relu if nothing else reads it, by `y` (NHWC).

    The Relu moves before the transposition, which ONNX Runtime can then merge with the one that it
    inserts for the next convolution.
    """
    result = node.output[0]
    readers = index.consumers[result]
    is_output = any(output.name == result for output in build.graph.output)
    if len(readers) == 1 and readers[0].op_type == "Relu" and not is_output:
        result = readers[0].output[0]
        y = build.add("Relu", y)
        build.graph.node.remove(readers[0])
    build.add("Transpose", y, output=result, perm=[0, 3, 1, 2])
    build.replace(node)


def add_pixels(build: Builder, x: str, channels: int, *, shared: bool) -> str:
    """Add the pixels of a map, followed by at least one of zeros.

    Args:
        build: collects the nodes.
        x: name of the map, float32 N x C x H x W.
        channels: C.
        shared: whether other nodes read it too. OpenVINO then copies it twice more to transpose it,
            unless a node of its own comes between. On other maps, that node would cost ONNX
            Runtime 3% of the time of PP-LiteSeg.

    Returns:
        str: the result's name, N x (H W + 1 or more) x C.
    """
    if shared:
        x = build.add("Pad", x, build.const([0, 0, 0, 0, 0, 0, 1, 0]))
    x = build.add("Transpose", x, perm=[0, 2, 3, 1])
    pixels = build.add("Reshape", x, build.const([0, -1, channels]))
    return pixels if shared else build.add("Pad", pixels, build.const([0, 0, 0, 0, 1, 0]))


def add_convolution(
    build: Builder,
    pixels: str,
    weight: str,
    shape: tuple[int, int],
    tall: Axis,
    wide: Axis,
    indices: TileIndices,
) -> str:
    """Add a 3 x 3 convolution without bias.

    Args:
        build: collects the nodes.
        pixels: name of the input, the result of `add_pixels`.
        weight: name of the weight, float32 (out, C, 3, 3).
        shape: (out, C).
        tall: the tiles' rows.
        wide: the tiles' columns.
        indices: the result of `add_tile_indices`.

    Returns:
        str: the result's name, N x H x W x out.
    """
    out, channels = shape
    outputs, kernel, inputs = map(np.kron, transforms(tall.m), transforms(wide.m))
    positions = len(kernel)
    # The graph transforms the kernel, which a runtime does once, when it loads the model. A single
    # node does so, because ONNX Runtime would keep all intermediate results.
    taps = build.const(kernel.reshape(positions, 3, 3), "float32")
    spectrum = build.add("Einsum", taps, weight, equation="kij,ocij->kco")

    tiles = build.add("Gather", pixels, indices.tiles, axis=1)
    tiles = build.add("Reshape", tiles, build.const([0, positions, -1]))
    tiles = build.add("MatMul", build.const(inputs, "float32"), tiles)
    tiles = build.add("Reshape", tiles, build.const([0, positions, -1, channels]))
    products = build.add("MatMul", tiles, spectrum)
    products = build.add("Reshape", products, build.const([0, positions, -1]))
    results = build.add("MatMul", build.const(outputs, "float32"), products)
    results = build.add("Reshape", results, build.const([0, -1, out]))
    return build.add("Gather", results, indices.pixels, axis=1)


def add_tile_indices(build: Builder, x: str, tall: Axis, wide: Axis) -> TileIndices:
    """Add the index tensors for maps of the size of `x`.

    Args:
        build: collects the nodes.
        x: name of the map, N x C x H x W.
        tall: the tiles' rows.
        wide: the tiles' columns.
    """
    shape = build.add("Shape", x)
    height, width = (build.slice(shape, axis, axis + 1) for axis in (2, 3))
    pixels = build.add("Mul", height, width)
    rows, inside_rows, span_h = _windows(build, height, tall)
    columns, inside_columns, span_w = _windows(build, width, wide)
    # (n_h, 1, span_h, 1) and (1, n_w, 1, span_w)
    rows, inside_rows = (
        build.add("Unsqueeze", name, build.const([1, 3])) for name in (rows, inside_rows)
    )
    columns, inside_columns = (
        build.add("Unsqueeze", name, build.const([0, 2])) for name in (columns, inside_columns)
    )
    index = build.add("Add", build.add("Mul", rows, width), columns)
    index = build.add("Where", build.add("And", inside_rows, inside_columns), index, pixels)
    tiles = build.add("Reshape", index, build.const([(tall.m + 2) * (wide.m + 2), -1]))

    plane = build.add("Mul", span_h, span_w)
    down, row = _outputs(build, height, tall)
    across, column = _outputs(build, width, wide)
    down = build.add("Mul", down, build.add("Mul", plane, build.const([wide.m])))
    down = build.add("Add", down, build.add("Mul", row, span_w))
    across = build.add("Add", build.add("Mul", across, plane), column)
    down = build.add("Unsqueeze", down, build.const([1]))
    return TileIndices(tiles, build.add("Add", down, across))


def _range(build: Builder, count: str) -> str:
    zero, one = build.const(0), build.const(1)
    return build.add("Range", zero, build.add("Squeeze", count), one)


def _windows(build: Builder, length: str, axis: Axis) -> tuple[str, str, str]:
    """The inputs of the tiles along one axis.

    Returns:
        tuple: names of their coordinates, (m + 2, span), ordered by tile and then by interleaved
        map; of a mask of those inside the map; and of span, the number of tiles.
    """
    reach = axis.m * axis.dilation
    count = build.add("Add", length, build.const([reach - 1]))
    count = build.add("Div", count, build.const([reach]))
    span = build.add("Mul", count, build.const([axis.dilation]))
    tile = _range(build, span)
    first = build.add("Div", tile, build.const(axis.dilation))
    first = build.add("Mul", first, build.const(reach - axis.dilation))
    taps = build.const([[(i - 1) * axis.dilation] for i in range(axis.m + 2)])
    seen = build.add("Add", build.add("Add", tile, first), taps)
    not_before = build.add("GreaterOrEqual", seen, build.const(0))
    inside = build.add("And", not_before, build.add("Less", seen, length))
    return seen, inside, span


def _outputs(build: Builder, length: str, axis: Axis) -> tuple[str, str]:
    """For each coordinate of one axis, its output in its tile and the index of the tile.

    Returns:
        tuple: names of both, (length,) each.
    """
    m, dilation = (build.const(value) for value in (axis.m, axis.dilation))
    at = _range(build, length)
    line = build.add("Div", at, dilation)
    tile = build.add("Div", line, m)
    output = build.add("Sub", line, build.add("Mul", tile, m))
    phase = build.add("Sub", at, build.add("Mul", line, dilation))
    return output, build.add("Add", build.add("Mul", tile, dilation), phase)
