from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.errors import ConfigError
from segrt.palette import parse_palette, voc_palette


def test_voc_palette_equals_paddlex() -> None:
    colours = voc_palette()
    assert colours[:4].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert len({tuple(c) for c in colours[:255].tolist()}) == 255


@given(st.integers(0, 254))
def test_voc_palette_matches_the_definition(label: int) -> None:
    rest, shift, expected = label + 1, 7, [0, 0, 0]
    while rest:
        for channel in range(3):
            expected[channel] |= ((rest >> channel) & 1) << shift
        rest, shift = rest >> 3, shift - 1
    assert voc_palette()[label].tolist() == expected


def test_palettes_by_name_and_by_colour() -> None:
    assert parse_palette("cityscapes")[0].tolist() == [128, 64, 128]
    assert len(parse_palette("ade20k")) == 150
    assert len(parse_palette("camvid")) == 11
    np.testing.assert_array_equal(parse_palette("voc"), voc_palette())
    for value in (
        [[1, 2, 3], [4, 5, 255]],
        ((1, 2, 3), (4, 5, 255)),
        np.array([[1, 2, 3], [4, 5, 255]]),
    ):
        assert parse_palette(value).tolist() == [[1, 2, 3], [4, 5, 255]]


@pytest.mark.parametrize(
    "value",
    ["nothing", [], [[1, 2]], [[1, 2, 256]], [[1, 2, -1]], [[1, 2, 3], [1]], 5, [[0.5] * 3]],
)
def test_invalid_palettes(value: object) -> None:
    with pytest.raises(ConfigError, match="palette"):
        parse_palette(value)
