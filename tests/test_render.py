from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt import palette, render
from segrt.errors import ConfigError


def test_voc_palette_is_that_of_paddlex() -> None:
    palette = palette.voc_palette()
    assert palette[:4].tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert len({tuple(c) for c in palette[:255].tolist()}) == 255


@given(st.integers(0, 254))
def test_voc_palette_matches_the_definition(label: int) -> None:
    rest, shift, expected = label + 1, 7, [0, 0, 0]
    while rest:
        for channel in range(3):
            expected[channel] |= ((rest >> channel) & 1) << shift
        rest, shift = rest >> 3, shift - 1
    assert palette.voc_palette()[label].tolist() == expected


def test_overlay_blends_in_rgb() -> None:
    image = np.full((2, 2, 3), (200, 0, 0), np.uint8)  # blue, as BGR
    labels = np.zeros((2, 2), np.int32)
    palette = np.array([[0, 100, 0]], np.uint8)
    assert render.overlay(image, labels, palette, 0.5)[0, 0].tolist() == [0, 50, 100]
    assert render.overlay(image, labels, palette, 0.0)[0, 0].tolist() == [0, 0, 200]
    assert render.overlay(image, labels, palette, 1.0)[0, 0].tolist() == [0, 100, 0]


def test_legend_shows_each_class_in_its_colour() -> None:
    palette = np.array([[10, 200, 30], [220, 40, 50]], np.uint8)
    picture = np.zeros((120, 160, 3), np.uint8)
    canvas = np.asarray(render.with_legend(picture, [1, 0], ["road", "sky"], palette, [0.75, 0.25]))
    assert canvas.shape[0] == 120
    assert canvas.shape[1] > 160
    legend = canvas[:, 160:].reshape(-1, 3)
    for colour in palette:
        assert (legend == colour).all(axis=1).sum() > 50
    assert (legend == 255).all(axis=1).mean() > 0.5
    np.testing.assert_array_equal(canvas[:, :160], picture)


def test_legend_longer_than_the_picture_makes_the_canvas_higher() -> None:
    names = [f"class {i}" for i in range(30)]
    canvas = render.with_legend(
        np.zeros((50, 50, 3), np.uint8), range(30), names, palette.voc_palette(), [1 / 30] * 30
    )
    assert canvas.height > 30 * 11


def test_palettes_by_name_and_by_colour() -> None:
    assert palette.parse_palette("cityscapes")[0].tolist() == [128, 64, 128]
    assert len(palette.parse_palette("ade20k")) == 150
    assert len(palette.parse_palette("camvid")) == 11
    np.testing.assert_array_equal(palette.parse_palette("voc"), palette.voc_palette())
    for own in (
        [[1, 2, 3], [4, 5, 255]],
        ((1, 2, 3), (4, 5, 255)),
        np.array([[1, 2, 3], [4, 5, 255]]),
    ):
        assert palette.parse_palette(own).tolist() == [[1, 2, 3], [4, 5, 255]]


@pytest.mark.parametrize(
    "value",
    ["nothing", [], [[1, 2]], [[1, 2, 256]], [[1, 2, -1]], [[1, 2, 3], [1]], 5, [[0.5] * 3]],
)
def test_palettes_that_are_none(value: object) -> None:
    with pytest.raises(ConfigError, match="palette"):
        palette.parse_palette(value)
