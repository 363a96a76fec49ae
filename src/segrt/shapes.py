"""Label maps as polygons and as COCO run-length encoding."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.int32]
_Indices = npt.NDArray[np.int64]


def shares(labels: Labels) -> dict[int, float]:
    """The share of a label map that each class present covers, by its id, largest first.

    Example:
        >>> shares(np.array([[3, 3, 1]], np.int32))
        {3: 0.6666666666666666, 1: 0.3333333333333333}
    """
    counts = np.bincount(labels.ravel())
    present = (int(c) for c in np.argsort(-counts, kind="stable") if counts[c])
    return {c: float(counts[c]) / labels.size for c in present}


@dataclass(frozen=True, eq=False)
class Polygon:
    """The outline of one connected region of one class, along the edges of its pixels.

    Coordinates refer to pixel corners: (0, 0) is the upper left corner of the image, (W, H) the
    lower right one. Pixels are connected if they share an edge; pixels that only touch at a corner
    are not. Polygons are valid in the sense of OGC Simple Features, and those of one image cover it
    without overlaps: no ring touches itself, and two rings touch at single points only.

    Example:
        >>> for polygon in result.to_polygons():
        ...     print(polygon.class_name, polygon.area, polygon.exterior.tolist())

    Attributes:
        class_id: the class.
        class_name: its name.
        exterior: int32 (N, 2), x and y of the corners; the first is not repeated at the end.
        holes: the outlines of the holes, in the same form.
    """

    class_id: int
    class_name: str
    exterior: Ring = field(repr=False)
    holes: tuple[Ring, ...] = field(repr=False)

    @property
    def area(self) -> float:
        """Area in pixels, without the holes."""
        return abs(_signed_area(self.exterior)) - sum(
            abs(_signed_area(hole)) for hole in self.holes
        )


class Region(NamedTuple):
    """The outline of one connected region of a label map.

    Attributes:
        label: its label.
        exterior: int32 (N, 2), as in `Polygon`.
        holes: the outlines of the holes, in the same form.
    """

    label: int
    exterior: Ring
    holes: tuple[Ring, ...]


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of a mask that is not empty, in pixels.

    Example:
        >>> bounds(np.array([[False, True], [False, True]]))
        (1, 0, 2, 2)
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def regions(labels: Labels) -> list[Region]:
    """Trace the outlines of all connected regions of a label map exactly.

    Each edge between different labels is directed such that its pixel is on the right. At its end,
    the outline of that pixel's region turns right around the pixel, goes straight on, or turns
    left, whichever comes first: where pixels of one label touch only at a corner, it stays with its
    pixel. A ring that passes through such a corner twice is split there.

    Example:
        >>> [region] = regions(np.ones((2, 3), np.int32))
        >>> region.label, region.exterior.tolist()
        (1, [[3, 0], [3, 2], [0, 2], [0, 0]])

    Args:
        labels: int (H, W), not negative.

    Returns:
        list: the regions, ordered by label, then from top to bottom. By the shoelace formula, the
            area of exteriors is positive and that of holes negative.
    """
    corners = _Corners.find(labels)
    if not len(corners.side):
        return []
    rings = _rings(corners.after.tolist(), corners.partner.tolist())
    order = np.fromiter(chain.from_iterable(rings), np.int64, len(corners.side))
    lengths = np.array([len(ring) for ring in rings])
    starts = np.cumsum(lengths) - lengths
    ring_of = np.empty(len(order), np.int64)
    ring_of[order] = np.repeat(np.arange(len(rings)), lengths)

    points = corners.points[order]
    following = np.arange(1, len(order) + 1)
    following[starts + lengths - 1] = starts
    x, y = points.astype(np.int64).T
    is_hole = np.add.reduceat(x * y[following] - x[following] * y, starts) < 0
    owner = _owners(corners, ring_of, is_hole)

    pieces = np.split(points, starts[1:])
    holes: dict[int, list[Ring]] = {}
    for hole in np.flatnonzero(is_hole).tolist():
        holes.setdefault(int(owner[hole]), []).append(pieces[hole])
    label = corners.label[order[starts]]
    exteriors = np.flatnonzero(~is_hole)
    exteriors = exteriors[np.argsort(label[exteriors], kind="stable")]
    return [
        Region(value, pieces[ring], tuple(holes.get(ring, ())))
        for ring, value in zip(exteriors.tolist(), label[exteriors].tolist(), strict=True)
    ]


class _Edges:
    """The edges between different labels, in an order in which straight lines are contiguous.

    Sides are numbered clockwise from the top: the top edge of a pixel runs to the right, its right
    edge down. The edges of a side are sorted in that direction along rows or columns. Pixels are
    numbered row by row in the label map with a border of -1 around it.
    """

    def __init__(self, labels: Labels) -> None:
        padded = np.pad(np.asarray(labels, np.int32), 1, constant_values=-1)
        self.height: int = padded.shape[0]
        self.width: int = padded.shape[1]
        self.flat = padded.ravel()
        self.step = np.array([1, self.width, -1, -self.width])
        self.vertical = padded[1:-1, 1:] != padded[1:-1, :-1]
        across = padded[1:, 1:-1] != padded[:-1, 1:-1]
        down = np.ascontiguousarray(self.vertical.T)
        pixels = [
            self._number(*np.nonzero(across[:-1])),
            self._number(*np.nonzero(down[1:])[::-1]),
            self._number(*np.nonzero(across[1:]))[::-1],
            self._number(*np.nonzero(down[:-1])[::-1])[::-1],
        ]
        self.pixel = np.concatenate(pixels)
        self.side = np.repeat(np.arange(4, dtype=np.int64), [len(side) for side in pixels])
        self._keys = self._key(self.pixel, self.side)

    def index(self, pixel: _Indices, side: _Indices) -> _Indices:
        """The position of edges."""
        return np.searchsorted(self._keys, self._key(pixel, side))

    def _number(self, row: _Indices, column: _Indices) -> _Indices:
        return (row + 1) * self.width + column + 1

    def _key(self, pixel: _Indices, side: _Indices) -> _Indices:
        """Numbers that grow in the order of the edges."""
        row, column = np.divmod(pixel, self.width)
        along = np.where(side % 2 == 0, pixel, column * self.height + row)
        return side * 2 * self.flat.size + np.where(side < 2, along, -along)


class _Corners(NamedTuple):
    """The edges at whose end an outline turns.

    Attributes:
        edges: all edges.
        number: for each edge, the position of the corner at the end of its straight line.
        side: the side of the edge.
        pixel: its pixel.
        label: the label of that pixel.
        points: int32 (N, 2), x and y of its end.
        after: the position of the next corner of the outline.
        partner: where two pixels of one label touch only at this corner, the position of the other
            pixel's corner; -1 elsewhere.
    """

    edges: _Edges
    number: _Indices
    side: _Indices
    pixel: _Indices
    label: Labels
    points: Ring
    after: _Indices
    partner: _Indices

    @staticmethod
    def find(labels: Labels) -> _Corners:
        edges = _Edges(labels)
        own = edges.flat[edges.pixel]
        ahead = edges.pixel + edges.step[edges.side]
        diagonal = ahead + edges.step[edges.side - 1]
        goes_on, is_left = edges.flat[ahead] == own, edges.flat[diagonal] == own
        turns = ~goes_on | is_left
        number = np.cumsum(turns) - turns

        pixel, side, diagonal = edges.pixel[turns], edges.side[turns], diagonal[turns]
        left = goes_on[turns]
        after = edges.index(np.where(left, diagonal, pixel), (side + np.where(left, 3, 1)) % 4)
        partner = np.full(len(side), -1)
        saddle = np.flatnonzero(is_left[turns] & ~left)
        partner[saddle] = number[edges.index(diagonal[saddle], (side[saddle] + 2) % 4)]
        row, column = np.divmod(pixel, edges.width)
        x, y = column - (side >= 2), row - (side % 3 == 0)
        points = np.stack([x, y], axis=1).astype(np.int32)
        return _Corners(edges, number, side, pixel, own[turns], points, number[after], partner)


def _rings(after: list[int], partner: list[int]) -> list[list[int]]:
    """Follow the outlines, and split them where they touch themselves.

    Returns:
        list: the corners of each ring in order. Each corner occurs in one ring.
    """
    rings = []
    position = [-1] * len(after)  # of visited corners, at least `done` in the current outline
    done = 0
    for first in range(len(after)):
        if position[first] >= 0:
            continue
        outline: list[int] = []
        corner = first
        while position[corner] < 0:
            position[corner] = done + len(outline)
            outline.append(corner)
            other = partner[corner]
            # Contacts lie on one side of the outline, so they are nested like parentheses.
            if other >= 0 and position[other] >= done:
                start = position[other] + 1 - done
                rings.append(outline[start:])
                del outline[start:]
            corner = after[corner]
        rings.append(outline)
        done += len(after)  # more than any position so far
    return rings


def _owners(corners: _Corners, ring_of: _Indices, is_hole: Mask) -> _Indices:
    """The exterior of each ring's region.

    To the left of a hole's leftmost edge, the region extends to an edge of another ring. That ring
    reaches further to the left than the hole, so this leads to the exterior in the end.
    """
    owner = np.arange(len(is_hole))
    right = np.flatnonzero((corners.side == 1) & is_hole[ring_of])
    # The last assignment counts: the leftmost edge.
    right = right[np.argsort(-corners.points[right, 0], kind="stable")]
    leftmost = np.full(len(is_hole), -1)
    leftmost[ring_of[right]] = right
    holes = np.flatnonzero(is_hole)
    pixel = corners.pixel[leftmost[holes]]

    edges = corners.edges
    row, column = np.nonzero(edges.vertical[:, :-1])
    beginning = (row + 1) * edges.width + column + 1
    start = beginning[np.searchsorted(beginning, pixel, "right") - 1]
    owner[holes] = ring_of[corners.number[edges.index(start, np.full(len(start), 3))]]
    while is_hole[owner].any():
        owner = owner[owner]
    return owner


def _signed_area(ring: Ring) -> float:
    x, y = ring.astype(np.int64).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]) / 2


def components(labels: Labels) -> Labels:
    """Number the connected regions of a label map.

    Example:
        >>> components(np.array([[5, 5, 0], [0, 0, 5]], np.int32))
        array([[0, 0, 1],
               [2, 2, 3]], dtype=int32)

    Args:
        labels: int (H, W).

    Returns:
        np.ndarray: int32 (H, W), equal for pixels of one label that are connected through edges;
            from 0, without gaps.
    """
    import cv2

    # Pixels, and between them links to the next pixel of the same label: one call for all labels.
    height, width = labels.shape
    linked = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    linked[::2, ::2] = 1
    linked[::2, 1::2] = labels[:, 1:] == labels[:, :-1]
    linked[1::2, ::2] = labels[1:] == labels[:-1]
    numbers = cv2.connectedComponents(linked, connectivity=4, ltype=cv2.CV_32S)[1]
    return np.asarray(numbers[::2, ::2] - 1, np.int32)


def rle_counts(labels: Labels) -> dict[int, list[int]]:
    """COCO run lengths of each class: column by column, alternating, starting with background.

    Example:
        >>> rle_counts(np.array([[0, 1], [0, 1]], np.int32))
        {0: [0, 2, 2], 1: [2, 2]}

    Args:
        labels: int (H, W).

    Returns:
        dict: class id to run lengths, for each class that occurs; only the first length may be 0.
    """
    flat = labels.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends, values = np.append(starts[1:], flat.size), flat[starts]
    order = np.argsort(values, kind="stable")
    starts, ends, values = starts[order], ends[order], values[order]
    first = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    last = np.append(first[1:], len(values)) - 1

    lengths = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0)
    lengths[2 * first] = starts[first]
    runs, rest = lengths.tolist(), (flat.size - ends[last]).tolist()
    groups = zip(values[first].tolist(), first.tolist(), last.tolist(), rest, strict=True)
    return {
        value: runs[2 * one : 2 * other + 2] + ([after] if after else [])
        for value, one, other, after in groups
    }


def rle_boxes(runs: Collection[list[int]], height: int) -> list[tuple[int, int, int, int]]:
    """The bounding boxes of COCO run lengths: left, top, width and height.

    Example:
        >>> rle_boxes([[2, 2]], 2)
        [(1, 0, 1, 2)]
    """
    counts, lengths, starts = _joined(runs)
    ends = np.cumsum(counts)
    ends -= np.repeat(ends[starts] - counts[starts], lengths)
    inside = _positions(lengths) % 2 == 1
    first, last = (ends - counts)[inside], ends[inside] - 1
    starts = np.cumsum(lengths // 2) - lengths // 2
    left, right = (np.minimum.reduceat(first, starts), np.maximum.reduceat(last, starts))
    left, right = left // height, right // height
    spans = first // height != last // height  # into the next column
    top = np.minimum.reduceat(np.where(spans, 0, first % height), starts)
    bottom = np.maximum.reduceat(np.where(spans, height - 1, last % height), starts)
    boxes = np.stack([left, top, right - left + 1, bottom - top + 1], axis=1)
    return [(x, y, w, h) for x, y, w, h in boxes.tolist()]


def rle_strings(runs: Collection[list[int]]) -> list[str]:
    """Compress run lengths to strings like pycocotools does (`rleToString` in its maskApi.c).

    From the fourth count on, the difference from the count two positions earlier is encoded. A
    number is split into digits of five bits, lowest first, and each digit becomes a character
    counted from "0"; 32 is added to all but the last digit.

    Example:
        >>> rle_strings([[0, 2, 2]])
        ['022']
    """
    counts, lengths, starts = _joined(runs)
    rest = counts.copy()
    late = np.flatnonzero(_positions(lengths) > 2)
    rest[late] -= counts[late - 2]
    digits, written = [], []
    alive = np.ones(len(rest), np.bool_)
    while alive.any():
        digit, rest = rest & 31, rest >> 5
        more = np.where(digit & 16, rest != -1, rest != 0)
        digits.append(digit + 48 + 32 * more)
        written.append(alive)
        alive = alive & more
    characters = np.stack(written, axis=1)
    text = np.stack(digits, axis=1)[characters].astype(np.uint8).tobytes().decode("ascii")
    ends = np.cumsum(np.add.reduceat(characters.sum(axis=1), starts)).tolist()
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _joined(runs: Collection[list[int]]) -> tuple[_Indices, _Indices, _Indices]:
    """All counts, the number of counts of each list, and the position of its first one."""
    lengths = np.array([len(counts) for counts in runs])
    counts = np.fromiter(chain.from_iterable(runs), np.int64, lengths.sum())
    return counts, lengths, np.cumsum(lengths) - lengths


def _positions(lengths: _Indices) -> _Indices:
    """0, 1, 2, ... for each of several lists, one after the other."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)
