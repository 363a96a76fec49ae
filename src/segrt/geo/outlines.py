"""Traces the regions of a label map that is read in strips.

In memory are a strip and the regions that are open at its lower edge. GDALPolygonize, as rasterio
offers it, collects all polygons in memory, with half a kilobyte for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segrt.label_loop import compiled
from segrt.shapes import components

_Ints = NDArray[np.int64]
_CLOSED = -1

NOTHING = -1
"""The label of pixels that belong to no region."""


class Strip(NamedTuple):
    """Rows of a label map.

    Attributes:
        labels: int32 (H, W); `NOTHING` for pixels without a label.
        areas: float64 (H, 1) or (H, W): the area of each pixel.
        scores: float32 (H, W), or None; what is not finite has no score.
    """

    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    scores: NDArray[np.float32] | None = None


class Regions(NamedTuple):
    """Connected regions, complete.

    Attributes:
        labels: int64 (N,): their labels.
        areas: float64 (N,): the sum of the areas of their pixels.
        scores: float64 (N,): the mean score of their pixels; NaN where none has one.
        points: int32 (P, 2): x and y of the corners of all rings, from the upper left corner of the
            map. The last corner of a ring is not the first.
        rings: int64 (R + 1,): where each ring starts in `points`, and the end. By the shoelace
            formula, with y down, exteriors have a positive area, and holes a negative one.
        owners: int64 (R + 1,): where the rings of each region start in `rings`, its exterior
            first, and the end.
    """

    labels: _Ints
    areas: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.int32]
    rings: _Ints
    owners: _Ints


def regions(
    strips: Iterable[Strip], *, min_area: float = 0.0, spacing: int = 0
) -> Iterator[Regions]:
    """Trace the connected regions of a label map; a region over several strips is one.

    Pixels are connected if they share an edge. Rings turn and touch as in `segrt.shapes.regions`.
    They also have a corner wherever three regions meet, so that neighbours have the same corners
    along their border: it stays shared when the corners are transformed.

    Example:
        >>> strip = Strip(np.zeros((2, 3), np.int32), np.ones((2, 1)))
        >>> [found] = regions([strip])
        >>> found.areas, found.points.tolist()
        (array([6.]), [[3, 0], [3, 2], [0, 2], [0, 0]])

    Args:
        strips: from top to bottom, each of one or more rows.
        min_area: regions of a smaller area are left out.
        spacing: there is a corner after at most so many pixels of a straight line, at multiples of
            it; 0 for no such corners.

    Yields:
        Regions: those that end in a strip. Each strip gives one of these, which may be empty.
    """
    tracer: _Tracer | None = None
    before: Strip | None = None
    for strip in strips:
        if before is not None:
            tracer = tracer or _Tracer(before.labels.shape[1], min_area, spacing)
            yield tracer.add(before, strip.labels[0])
        before = strip
    if before is not None:
        width = before.labels.shape[1]
        tracer = tracer or _Tracer(width, min_area, spacing)
        yield tracer.add(before, np.full(width, NOTHING, np.int32))


@dataclass(eq=False)
class _Open:
    """A region that goes on below the strips so far."""

    label: int
    area: float = 0.0
    scored: int = 0
    score: float = 0.0
    chains: list[_Chain] = field(default_factory=list)

    def take(self, other: _Open) -> None:
        self.area += other.area
        self.scored += other.scored
        self.score += other.score
        self.chains += other.chains


class _Chain(NamedTuple):
    """A ring, or a part of one, within a strip.

    Attributes:
        start: the number of its first edge; `_CLOSED` for a ring.
        end: that of the edge after it, which is in another strip.
        points: int32 (N, 2).
        contact: bool (N,): corners at which pixels of one label touch only there.
    """

    start: int
    end: int
    points: NDArray[np.int32]
    contact: NDArray[np.bool_]


class _Tracer:
    """The state between two strips."""

    def __init__(self, width: int, min_area: float, spacing: int) -> None:
        self._min_area, self._spacing = min_area, spacing
        self._top = 0
        self._above = np.full(width, NOTHING, np.int32)
        self._open: dict[int, _Open] = {}  # by number
        self._owner = np.full(width, NOTHING, np.int64)  # the open region of each pixel above
        self._next = 0

    def add(self, strip: Strip, below: NDArray[np.int32]) -> Regions:
        """The regions that end in a strip, given the labels of the row below it."""
        labels = strip.labels
        padded = np.pad(labels, 1, constant_values=NOTHING)
        padded[0, 1:-1], padded[-1, 1:-1] = self._above, below
        parts = components(labels)
        chains = _Chains(_trace(padded, self._top, self._spacing), parts, self._top)
        table = _measure(strip, parts)
        up = (labels[0] == self._above) & (labels[0] != NOTHING)
        down = (labels[-1] == below) & (labels[-1] != NOTHING)
        crossing = np.unique(np.concatenate([parts[0, up], parts[-1, down]]))
        is_crossing = np.zeros(len(table.label), np.bool_)
        is_crossing[crossing] = True

        numbers = self._join(crossing, chains, table, self._owner[up], parts[0, up])
        self._owner = np.full(labels.shape[1], NOTHING, np.int64)
        self._owner[down] = [numbers[part] for part in parts[-1, down].tolist()]
        going_on = set(self._owner[down].tolist())
        ended = [self._open.pop(n) for n in sorted(self._open.keys() - going_on)]
        self._top += len(labels)
        self._above = labels[-1]
        return self._finish(chains, table, ~is_crossing, ended)

    def _join(
        self, crossing: _Ints, chains: _Chains, table: _Table, owner: _Ints, part: _Ints
    ) -> dict[int, int]:
        """Merge the parts that cross the edges of this strip with the regions open so far.

        Returns:
            dict: the number of the region of each of these parts.
        """
        first = self._next
        self._next += len(crossing)
        number = {int(one): first + index for index, one in enumerate(crossing.tolist())}
        parent = {n: n for n in (*self._open, *number.values())}
        for one, new in number.items():
            self._open[new] = _Open(
                int(table.label[one]),
                float(table.area[one]),
                int(table.scored[one]),
                float(table.score[one]),
            )
        for one, chain in chains.of(crossing):
            self._open[number[one]].chains.append(chain)

        def find(n: int) -> int:
            while parent[n] != n:
                parent[n] = n = parent[parent[n]]
            return n

        pairs = np.unique(np.stack([owner, part.astype(np.int64)], axis=1), axis=0)
        for above, one in pairs.tolist():
            a, b = find(above), find(number[one])
            if a == b:
                continue
            if len(self._open[a].chains) < len(self._open[b].chains):
                a, b = b, a
            self._open[a].take(self._open.pop(b))
            parent[b] = a
        return {one: find(n) for one, n in number.items()}

    def _finish(
        self, chains: _Chains, table: _Table, is_inner: NDArray[np.bool_], ended: list[_Open]
    ) -> Regions:
        """Put the regions within this strip and those that ended in it together."""
        inner = np.flatnonzero(is_inner & (table.label != NOTHING) & (table.area >= self._min_area))
        ended = [region for region in ended if region.area >= self._min_area]
        index = np.full(len(table.label), NOTHING, np.int64)
        index[inner] = np.arange(len(inner))
        points, contact, lengths, owners = chains.rings(index)
        found = [_rings(region.chains) for region in ended]
        joined = [ring for rings in found for ring in rings]
        of_ended = np.repeat(np.arange(len(found)), [len(rings) for rings in found])
        points = np.concatenate([points, *(ring.points for ring in joined)])
        contact = np.concatenate([contact, *(ring.contact for ring in joined)])
        lengths = np.append(lengths, [len(ring.points) for ring in joined]).astype(np.int64)
        owners = np.append(owners, len(inner) + of_ended).astype(np.int64)

        scored = np.append(table.scored[inner], [region.scored for region in ended])
        score = np.append(table.score[inner], [region.score for region in ended])
        with np.errstate(invalid="ignore"):
            mean = score / scored
        return Regions(
            np.append(table.label[inner], [region.label for region in ended]).astype(np.int64),
            np.append(table.area[inner], [region.area for region in ended]),
            mean,
            *_nested(points, contact, lengths, owners),
        )


class _Table(NamedTuple):
    """Per part of a strip: its label, its area, the pixels with a score, and the sum of these."""

    label: _Ints
    area: NDArray[np.float64]
    scored: _Ints
    score: NDArray[np.float64]


def _measure(strip: Strip, parts: NDArray[np.int32]) -> _Table:
    flat = parts.ravel()
    count = int(flat.max()) + 1
    label = np.empty(count, np.int64)
    label[flat] = strip.labels.ravel()
    weights = np.broadcast_to(strip.areas, parts.shape).ravel()
    area = np.bincount(flat, weights, count).astype(np.float64)
    if strip.scores is None:
        return _Table(label, area, np.zeros(count, np.int64), np.zeros(count))
    scores = strip.scores.ravel()
    known = np.isfinite(scores)
    scored = np.bincount(flat[known], minlength=count)
    score = np.bincount(flat[known], scores[known], count).astype(np.float64)
    return _Table(label, area, scored, score)


class _Chains:
    """The rings and parts of rings of one strip."""

    def __init__(self, traced: _Traced, parts: NDArray[np.int32], top: int) -> None:
        self._points, self._contact, self._links = traced.points, traced.contact, traced.links
        self._points[:, 1] += top
        self._starts = np.append(0, traced.ends)
        self._part = parts.ravel()[traced.pixels].astype(np.int64)

    def of(self, parts: _Ints) -> Iterator[tuple[int, _Chain]]:
        """All chains of some parts, with the part; they are copied."""
        for n in np.flatnonzero(np.isin(self._part, parts)).tolist():
            span = slice(self._starts[n], self._starts[n + 1])
            start, end = self._links[n].tolist()
            chain = _Chain(start, end, self._points[span].copy(), self._contact[span].copy())
            yield int(self._part[n]), chain

    def rings(self, index: _Ints) -> tuple[Any, Any, _Ints, _Ints]:
        """The rings of the parts with an index: points, contacts, lengths and that index."""
        owner = index[self._part]
        lengths = np.diff(self._starts)
        keep = np.repeat(owner != NOTHING, lengths)
        chosen = owner != NOTHING
        return self._points[keep], self._contact[keep], lengths[chosen], owner[chosen]


def _rings(chains: list[_Chain]) -> list[_Chain]:
    """Join the chains of one region to rings."""
    rings = [chain for chain in chains if chain.start == _CLOSED]
    rest = {chain.start: chain for chain in chains if chain.start != _CLOSED}
    while rest:
        _, chain = rest.popitem()
        pieces = [chain]
        while (following := rest.pop(pieces[-1].end, None)) is not None:
            pieces.append(following)
        points = np.concatenate([piece.points for piece in pieces])
        contact = np.concatenate([piece.contact for piece in pieces])
        rings.append(_Chain(_CLOSED, _CLOSED, points, contact))
    return rings


def _nested(
    points: NDArray[np.int32], contact: NDArray[np.bool_], lengths: _Ints, owners: _Ints
) -> tuple[NDArray[np.int32], _Ints, _Ints]:
    """Split rings where they touch themselves, and sort them by region, exteriors first.

    Returns:
        tuple: `points`, `rings` and `owners` of `Regions`.
    """
    if not len(points):
        return points, np.zeros(1, np.int64), np.zeros(1, np.int64)
    ring = np.repeat(np.arange(len(lengths)), lengths)
    order, ends, parents = _split(_partners(points, contact, ring), np.cumsum(lengths))
    points, owners = points[order], owners[parents]
    starts = np.append(0, ends[:-1])
    x, y = points.astype(np.int64).T
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    is_hole = np.add.reduceat(x * y[following] - x[following] * y, starts) < 0

    by_region = np.lexsort((is_hole, owners))
    lengths = (ends - starts)[by_region]
    rings = np.append(0, np.cumsum(lengths))
    moved = np.arange(len(points)) + np.repeat(starts[by_region] - rings[:-1], lengths)
    counts = np.bincount(owners)
    return points[moved], rings, np.append(0, np.cumsum(counts))


def _partners(points: NDArray[np.int32], contact: NDArray[np.bool_], ring: _Ints) -> _Ints:
    """For each corner at which its ring touches itself, the other one there; -1 for the rest."""
    partner = np.full(len(points), -1)
    at = np.flatnonzero(contact)
    if len(at) < 2:
        return partner
    x, y = points[at].astype(np.int64).T
    place = y * (x.max() + 1) + x
    order = np.lexsort((place, ring[at]))
    at, place = at[order], place[order]
    same = np.flatnonzero((place[1:] == place[:-1]) & (ring[at[1:]] == ring[at[:-1]]))
    partner[at[same]], partner[at[same + 1]] = at[same + 1], at[same]
    return partner


@compiled
def _split(partner: _Ints, ends: _Ints) -> tuple[_Ints, _Ints, _Ints]:
    """Split rings at contacts, which are nested like parentheses.

    Returns:
        tuple: the order of the corners, the end of each ring in it, and the ring each one is from.
    """
    order, stack = np.empty_like(partner), np.empty_like(partner)
    height = np.full(len(partner), -1)  # in the stack
    new_ends, parents = np.empty_like(partner), np.empty_like(partner)
    done = rings = start = 0
    for ring in range(len(ends)):
        top = 0
        for corner in range(start, ends[ring]):
            stack[top] = corner
            height[corner] = top
            top += 1
            other = partner[corner]
            if 0 <= other < corner and height[other] >= 0:
                for position in range(height[other] + 1, top):
                    order[done] = stack[position]
                    height[stack[position]] = -1
                    done += 1
                new_ends[rings], parents[rings] = done, ring
                rings += 1
                top = height[other] + 1
        for position in range(top):
            order[done] = stack[position]
            done += 1
        new_ends[rings], parents[rings] = done, ring
        rings += 1
        start = ends[ring]
    return order, new_ends[:rings], parents[:rings]


# Edges are directed such that their pixel is on the right. The sides of a pixel are numbered
# clockwise from the top: the top edge runs to the right, the right edge down.
_DOWN = np.array([0, 1, 0, -1])
_RIGHT = np.array([1, 0, -1, 0])


class _Traced(NamedTuple):
    """Chains of edges in a strip.

    Attributes:
        points: int32 (N, 2): x and y of their corners, from the upper left corner of the strip.
        contact: bool (N,): as in `_Chain`.
        ends: int64 (M,): the end of each chain in these.
        links: int64 (M, 2): start and end of each chain, as in `_Chain`.
        pixels: int64 (M,): the number of the pixel that it starts at, in the strip.
    """

    points: NDArray[np.int32]
    contact: NDArray[np.bool_]
    ends: _Ints
    links: _Ints
    pixels: _Ints


def _trace(padded: NDArray[np.int32], top: int, spacing: int) -> _Traced:
    """Follow the edges between different labels, within a strip.

    Args:
        padded: the labels of the strip, with the row above and below it, and `NOTHING` on the left
            and right.
        top: the number of the strip's first row.
        spacing: as in `regions`.
    """
    todo = np.zeros(padded.shape, np.uint8)
    edges = _mark_edges(padded, todo)
    chains = edges // 4 + 8 * padded.shape[1]  # rings have four edges or more
    traced = _Traced(
        np.empty((edges, 2), np.int32),
        np.zeros(edges, np.bool_),
        np.empty(chains, np.int64),
        np.full((chains, 2), _CLOSED),
        np.empty(chains, np.int64),
    )
    count = 0
    for row in sorted({1, len(padded) - 2}):  # chains from other strips start here
        count = _follow_all(padded, todo, row, row + 1, True, top, spacing, traced, count)
    count = _follow_all(padded, todo, 1, len(padded) - 1, False, top, spacing, traced, count)
    end = int(traced.ends[count - 1]) if count else 0
    points, contact, *chains_of = traced
    return _Traced(points[:end], contact[:end], *(of[:count] for of in chains_of))


@compiled
def _mark_edges(padded: NDArray[np.int32], todo: NDArray[np.uint8]) -> int:
    """Set bit n of a pixel if it has an edge at side n; returns the number of edges."""
    edges = 0
    for row in range(1, padded.shape[0] - 1):
        for column in range(1, padded.shape[1] - 1):
            own = padded[row, column]
            for side in range(4):
                outer = (side + 3) % 4
                if own >= 0 and padded[row + _DOWN[outer], column + _RIGHT[outer]] != own:
                    todo[row, column] |= 1 << side
                    edges += 1
    return edges


@compiled
def _starts_here(padded: NDArray[np.int32], row: int, column: int, side: int) -> bool:
    """Whether the edge before this one is in another strip."""
    outer, own = (side + 3) % 4, padded[row, column]
    row, column = row - _DOWN[side], column - _RIGHT[side]
    if padded[row, column] != own:
        return False
    if padded[row + _DOWN[outer], column + _RIGHT[outer]] == own:
        row += _DOWN[outer]
    return row < 1 or row > padded.shape[0] - 2


@compiled
def _follow_all(
    padded: NDArray[np.int32],
    todo: NDArray[np.uint8],
    first: int,
    last: int,
    is_open: bool,
    top: int,
    spacing: int,
    traced: _Traced,
    count: int,
) -> int:
    """Follow the chains that start in some rows: open ones, or rings; returns their number."""
    width = padded.shape[1] - 2
    done = traced.ends[count - 1] if count else 0
    for y in range(first, last):
        for x in range(1, width + 1):
            for s in range(4):
                if not todo[y, x] & (1 << s) or (is_open and not _starts_here(padded, y, x, s)):
                    continue
                done, end = _follow(padded, todo, (y, x, s), top, spacing, traced, done)
                traced.ends[count] = done
                traced.pixels[count] = (y - 1) * width + x - 1
                if is_open:
                    traced.links[count, 0] = ((top + y) * width + x - 1) * 4 + s
                    traced.links[count, 1] = end
                count += 1
    return count


@compiled
def _follow(
    padded: NDArray[np.int32],
    todo: NDArray[np.uint8],
    start: tuple[int, int, int],
    top: int,
    spacing: int,
    traced: _Traced,
    count: int,
) -> tuple[int, int]:
    """Follow a chain; returns the number of corners so far, and the number of the edge after it."""
    row, column, side = start
    while 0 < row < padded.shape[0] - 1 and todo[row, column] & (1 << side):
        todo[row, column] ^= 1 << side
        own, outer = padded[row, column], (side + 3) % 4
        x = column - (side > 1)
        y = row - (side % 3 == 0)
        across = padded[row + _DOWN[outer], column + _RIGHT[outer]]
        ahead = padded[row + _DOWN[side], column + _RIGHT[side]]
        over_row, over_column = (
            row + _DOWN[side] + _DOWN[outer],
            column + _RIGHT[side] + _RIGHT[outer],
        )
        over = padded[over_row, over_column]
        is_corner = True
        if ahead != own:
            traced.contact[count] = over == own
            side = (side + 1) % 4
        elif over == own:
            row, column, side = over_row, over_column, outer
        else:
            along = x if side % 2 == 0 else y + top
            is_corner = across != over or (spacing > 0 and along % spacing == 0)
            row, column = row + _DOWN[side], column + _RIGHT[side]
        if is_corner:
            traced.points[count, 0], traced.points[count, 1] = x, y
            count += 1
    return count, ((top + row) * (padded.shape[1] - 2) + column - 1) * 4 + side
