from __future__ import annotations

import numpy as np

from segrt import render
from segrt.palette import voc_palette


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


def test_long_legend_extends_the_canvas() -> None:
    names = [f"class {i}" for i in range(30)]
    canvas = render.with_legend(
        np.zeros((50, 50, 3), np.uint8), range(30), names, voc_palette(), [1 / 30] * 30
    )
    assert canvas.height > 30 * 11
