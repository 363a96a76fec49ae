"""Grids of other pixels, compared with the definition, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt.geo.resampling import Axis, Grid


def _share(axis: Axis, at: int) -> Any:
    """How much each pixel of the raster counts for a pixel of the grid."""
    pixels = np.arange(axis.length)
    if axis.average:
        low, high = at * axis.factor, (at + 1) * axis.factor
        return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None)
    place = np.clip((at + 0.5) * axis.factor - 0.5, 0, axis.length - 1)
    return np.clip(1 - np.abs(pixels - place), 0, None)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    factors=st.one_of(
        st.tuples(st.floats(1, 5), st.floats(0.5, 5)).map(lambda pair: (*pair, True)),
        st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)).map(lambda pair: (*pair, False)),
    ),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint32, np.float32]),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
def test_pixels_with_data_are_averaged_or_interpolated(
    shape: tuple[int, int],
    factors: tuple[float, float, bool],
    dtype: Any,
    share: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 200, (2, *shape)).astype(dtype)
    known = random.random(shape) < share
    if dtype == np.float32:
        values[:, ~known] = np.nan
    down, across, average = factors
    grid = Grid(Axis(shape[0], down, average), Axis(shape[1], across, average))
    size = grid.down.size, grid.across.size

    bands, valid = grid.read(slice(0, size[0]), lambda rows: (values[:, rows], known[rows]))

    assert (bands.shape, bands.dtype) == ((2, *size), dtype)
    for y, x in np.ndindex(size):
        weight = np.outer(_share(grid.down, y), _share(grid.across, x)) * known
        if average:
            assert valid[y, x] == (weight.sum() > 1e-6) or weight.sum() < 1e-5
        if valid[y, x] and weight.sum() > 1e-5:
            mean = (weight * np.where(known, values, 0)).sum((1, 2)) / weight.sum()
            tolerance = 0.01 if dtype == np.float32 else 0.51
            np.testing.assert_allclose(bands[:, y, x].astype(float), mean, atol=tolerance)


def test_an_interpolated_pixel_has_data_if_the_one_at_its_centre_has() -> None:
    known = np.array([[True, False, True]])
    grid = Grid(Axis(1, 0.5, False), Axis(3, 0.5, False))
    values = np.array([[[10, 99, 30]]], np.uint8)
    bands, valid = grid.read(slice(0, 2), lambda rows: (values[:, rows], known[rows]))
    assert valid.tolist() == [[True, True, False, False, True, True]] * 2
    assert bands[0][valid].tolist() == [10, 10, 30, 30] * 2


@pytest.mark.parametrize("factor", [0.7, 1.0, 3.3])
def test_rows_do_not_depend_on_what_is_read_with_them(factor: float) -> None:
    random = np.random.default_rng(0)
    values, known = random.random((3, 40, 9)), random.random((40, 9)) < 0.7
    grid = Grid(Axis(40, factor, factor > 1), Axis(9, factor, factor > 1))

    def read(rows: slice) -> Any:
        return grid.read(rows, lambda rows: (values[:, rows], known[rows]))

    bands, valid = read(slice(0, grid.down.size))
    for top in range(grid.down.size - 2):
        some, known_there = read(slice(top, top + 2))
        np.testing.assert_array_equal(some, bands[:, top : top + 2])
        np.testing.assert_array_equal(known_there, valid[top : top + 2])
