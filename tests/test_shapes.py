from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segrt import shapes
from segrt.shapes import Labels

shapely = pytest.importorskip("shapely")

sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))
label_maps = st.integers(1, 4).flatmap(
    lambda classes: hnp.arrays(
        np.int32, sizes, elements=st.integers(0, classes - 1), fill=st.nothing()
    )
)


def _fill(rings: list[shapes.Ring], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres are inside by the even-odd rule."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.bool_)
    for ring in rings:
        for (x0, y0), (x1, y1) in itertools.pairwise([*ring.tolist(), ring[0].tolist()]):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:  # only vertical edges can be to the left of a centre
                crossed[min(y0, y1) : max(y0, y1), x0] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :-1]


def _flood(labels: Labels) -> Labels:
    """The regions of a label map, numbered naively."""
    numbers = np.full(labels.shape, -1, np.int32)
    for number, start in enumerate(np.ndindex(labels.shape)):
        waiting = [start] if numbers[start] < 0 else []
        while waiting:
            y, x = waiting.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and numbers[y, x] < 0 and labels[y, x] == labels[start]:
                numbers[y, x] = number
                waiting += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return np.unique(numbers, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def _check(labels: Labels) -> None:
    """Polygons are valid, don't overlap, and contain exactly their pixels."""
    regions = shapes.regions(labels)
    polygons = np.array([shapely.Polygon(one.exterior, one.holes) for one in regions])
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == labels.size == shapely.area(shapely.union_all(polygons))
    assert len(regions) == shapes.components(labels).max() + 1
    painted = np.full(labels.shape, -1, np.int32)
    for label, exterior, holes in regions:
        assert exterior.dtype == np.int32
        assert shapely.LinearRing(exterior).is_ccw  # in the y direction of mathematics
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)
        inside = _fill([exterior, *holes], (labels.shape[0], labels.shape[1]))
        assert (painted[inside] == -1).all()
        painted[inside] = label
        for ring in (exterior, *holes):  # every point is a corner, and occurs once
            steps = np.diff(ring, axis=0, append=ring[:1]) != 0
            assert (steps != np.roll(steps, 1, axis=0)).all()
            assert len(np.unique(ring, axis=0)) == len(ring)
    np.testing.assert_array_equal(painted, labels)


@given(label_maps)
def test_polygons_of_any_label_map_are_valid_and_exact(labels: Labels) -> None:
    _check(labels)


@pytest.mark.parametrize("classes", [2, 3, 5, 300])
def test_polygons_of_noise(classes: int) -> None:
    _check(np.random.default_rng(classes).integers(0, classes, (64, 64), np.int32))


def _spiral(size: int) -> Labels:
    labels = np.zeros((size, size), np.int32)
    y, x, dy, dx = 0, 0, 0, 1
    for length in itertools.chain([size - 1], *((n, n) for n in range(size - 1, 0, -2))):
        for _ in range(length):
            labels[y, x] = 1
            y, x = y + dy, x + dx
        dy, dx = dx, -dy
    return labels


_Y, _X = np.mgrid[:15, :17].astype(np.int32)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param((_Y + _X) % 2, id="checkerboard"),
        pytest.param((_Y + _X) % 5, id="diagonals"),
        pytest.param((_Y == _X).astype(np.int32), id="diagonal"),
        pytest.param(np.maximum(abs(_Y - 7), abs(_X - 8)) % 3, id="nested rings"),
        pytest.param((abs(_Y - 7) + abs(_X - 8)) % 2, id="nested diamonds"),
        pytest.param((abs(_Y - 7) + abs(_X - 8) == 5).astype(np.int32), id="diamond"),
        pytest.param(_spiral(15), id="spiral"),
        pytest.param(_Y % 2 * _X % 2, id="grid"),
        pytest.param(np.full((1, 1), 7, np.int32), id="pixel"),
        pytest.param(np.zeros((5, 6), np.int32), id="one class"),
        pytest.param(_X[:1] % 3, id="row"),
        pytest.param(_Y[:, :1] % 3, id="column"),
    ],
)
def test_polygons_of_patterns(labels: Labels) -> None:
    _check(labels)
    _check(labels.T)


def test_a_ring_that_touches_itself_becomes_an_exterior_and_a_hole() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.int32)
    (_, exterior, holes) = shapes.regions(labels)[-1]
    assert sorted(exterior.tolist()) == [[0, 0], [0, 3], [2, 2], [2, 3], [3, 0], [3, 2]]
    assert [sorted(hole.tolist()) for hole in holes] == [[[1, 1], [1, 2], [2, 1], [2, 2]]]


def test_pixels_that_touch_at_a_corner_are_regions_of_their_own() -> None:
    found = [region for region in shapes.regions(np.eye(3, dtype=np.int32)) if region.label]
    assert [len(region.exterior) for region in found] == [4] * 3


def test_outline_of_a_ring_is_two_rectangles() -> None:
    labels = np.zeros((6, 7), np.int32)
    labels[1:5, 1:6] = 1
    labels[2:4, 3:4] = 0
    (_, exterior, holes) = shapes.regions(labels)[-1]
    assert sorted(exterior.tolist()) == [[1, 1], [1, 5], [6, 1], [6, 5]]
    assert [sorted(hole.tolist()) for hole in holes] == [[[3, 2], [3, 4], [4, 2], [4, 4]]]


@given(label_maps)
def test_regions_are_ordered_by_label(labels: Labels) -> None:
    order = [region.label for region in shapes.regions(labels)]
    assert order == sorted(order)


@given(label_maps)
def test_components_are_those_of_a_flood_fill(labels: Labels) -> None:
    ours, naive = shapes.components(labels), _flood(labels)
    assert ours.dtype == np.int32
    pairs = set(zip(ours.ravel().tolist(), naive.ravel().tolist(), strict=True))
    assert len(pairs) == ours.max() + 1 == naive.max() + 1


@given(label_maps)
def test_run_lengths_and_boxes(labels: Labels) -> None:
    found = shapes.rle_counts(labels)
    assert list(found) == np.unique(labels).tolist()
    boxes = shapes.rle_boxes(found.values(), len(labels))
    for (label, counts), box in zip(found.items(), boxes, strict=True):
        assert all(counts[1:])
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        mask = flat.reshape(labels.T.shape).T == 1
        np.testing.assert_array_equal(mask, labels == label)
        left, top, right, bottom = shapes.bounds(mask)
        assert box == (left, top, right - left, bottom - top)


@given(
    hnp.arrays(
        np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 9)
    )
)
def test_shares_are_counted_largest_first(labels: Labels) -> None:
    found = shapes.shares(labels)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert {c: round(share * labels.size) for c, share in found.items()} == {
        c: int((labels == c).sum()) for c in np.unique(labels).tolist()
    }
