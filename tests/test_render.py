from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segrt import render
from segrt.look import Look
from segrt.palette import distinct_palette, voc_palette

NAMES = ("sky", "road", "car")
COLOURS = np.array([[10, 200, 30], [220, 40, 50], [30, 60, 240]], np.uint8)


def _draw(labels: npt.NDArray[np.int32], look: Look, level: int = 90) -> Image.Image:
    image = np.full((*labels.shape, 3), level, np.uint8)
    return render.overlay(image, labels, COLOURS, NAMES, look)


def _halves(height: int, width: int) -> npt.NDArray[np.int32]:
    labels = np.zeros((height, width), np.int32)
    labels[height // 2 :] = 1
    return labels


def test_overlay_blends_in_rgb() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :, 2] = 200  # red, in BGR order
    labels = np.zeros((4, 6), np.int32)
    palette = np.array([[0, 100, 0]], np.uint8)
    for alpha, expected in ((0.5, [0, 50, 100]), (0.0, [0, 0, 200]), (1.0, [0, 100, 0])):
        painted = render.paint(image, labels, palette, ["tree"], Look(alpha=alpha))
        assert painted[0, 0].tolist() == expected


def test_more_than_256_classes_keep_their_colours() -> None:
    labels = np.arange(600, dtype=np.int32).reshape(20, 30)
    palette = voc_palette(600)
    image = np.zeros((20, 30, 3), np.uint8)
    names = [str(i) for i in range(600)]
    painted = render.paint(image, labels, palette, names, Look(alpha=1, outlines=False))
    np.testing.assert_array_equal(painted[:, :, ::-1], palette[labels])


def test_outlines_are_drawn_where_colours_are_close() -> None:
    labels, image = _halves(20, 20), np.full((20, 20, 3), 90, np.uint8)
    close = np.array([[100, 100, 100], [100, 104, 100]], np.uint8)

    def rows(palette: npt.NDArray[np.uint8], look: Look) -> list[int]:
        painted = render.paint(image, labels, palette, NAMES, look)
        plain = image // 2 + palette[labels][:, :, ::-1] // 2
        return np.flatnonzero((painted > plain + 40).any(axis=(1, 2))).tolist()

    assert rows(close, Look()) == [10]
    assert rows(distinct_palette(2), Look()) == []
    assert rows(close, Look(outlines=False)) == []
    assert rows(distinct_palette(2), Look(outlines=True)) == [10]
    assert rows(close, Look(alpha=0)) == []


def test_other_classes_remain_a_photo() -> None:
    labels = _halves(40, 40)
    labels[:, 30:] = 2
    painted = np.asarray(_draw(labels, Look(only="road", legend=False)))
    assert (painted[:18] == 90).all()
    assert (painted[:, 33:] == 90).all()
    assert (painted[25:, :28] == [155, 65, 70]).all()


@pytest.mark.parametrize("outlines", [True, False])
@pytest.mark.parametrize("background", [None, "blur", "white"])
def test_classes_that_are_not_shown_have_no_colour(outlines: bool, background: Any) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (12, 16)).astype(np.int32)
    labels = labels.repeat(25, 0).repeat(25, 1)
    look = Look(only="car", alpha=1, outlines=outlines, background=background, legend="none")
    painted = np.asarray(_draw(labels, look))
    # The photo and its backgrounds are grey, as are outlines; between colours, all are mixtures.
    grey = (painted.max(2) == painted.min(2))[labels != 2]
    assert grey.mean() > (0.9 if background else 0.9999)
    reddish = (painted[:, :, 0] > painted[:, :, 2]) | (painted[:, :, 1] > painted[:, :, 2])
    assert not reddish.any()


def test_cut_outs() -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 30:50] = 2
    inside, outside = np.s_[24:36, 34:46], np.s_[:12]
    clear = np.asarray(_draw(labels, Look(only="car", background="transparent")))
    assert clear.shape == (60, 80, 4)
    assert (clear[inside] == [90, 90, 90, 255]).all()
    assert (clear[outside][..., 3] == 0).all()
    white = np.asarray(_draw(labels, Look(only="car", background="white")))
    assert (white[inside] == 90).all()
    assert (white[outside] == 255).all()
    painted = np.asarray(_draw(labels, Look(only="car", background="white", alpha=1)))
    assert (painted[inside] == COLOURS[2]).all()


def test_what_is_cut_out_leaves_no_halo_in_a_blurred_background() -> None:
    labels = np.zeros((90, 120), np.int32)
    labels[30:60, 40:80] = 2
    image = np.full((90, 120, 3), 40, np.uint8)
    image[labels == 2] = 250
    noise = np.random.default_rng(0).integers(0, 40, image.shape).astype(np.uint8)
    look = Look(only="car", background="blur")
    picture = np.asarray(render.overlay(image - noise, labels, COLOURS, NAMES, look))
    outside = cv2.dilate((labels == 2).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert picture[outside].max() < 40
    assert picture[outside].std() < noise.std() / 2
    assert picture[36:54, 46:74].min() > 200


def test_side_by_side() -> None:
    picture = np.asarray(_draw(_halves(40, 60), Look(side_by_side=True, legend=False, alpha=1)))
    assert (picture[:, :60] == 90).all()
    np.testing.assert_array_equal(picture[:, -60:][0, 0], COLOURS[0])


@pytest.mark.parametrize(
    ("shape", "place", "beside"),
    [
        ((120, 160), "auto", True),
        ((400, 100), "auto", False),
        ((400, 100), "right", True),
        ((120, 160), "below", False),
    ],
)
def test_place_of_the_legend(shape: tuple[int, int], place: str, beside: bool) -> None:
    labels = _halves(*shape)
    picture = np.asarray(_draw(labels, Look(legend=place)))  # type: ignore[arg-type]
    height, width = shape
    assert (picture.shape[1] > width) == beside or not beside
    assert (picture.shape[0] > height) == (not beside)
    legend = picture[:, width:] if beside else picture[height:]
    for colour in COLOURS[:2]:
        assert (legend == colour).all(axis=2).sum() > 50
    assert (legend == 255).all(axis=2).mean() > 0.5


def test_a_legend_inside_keeps_the_size_and_hides_few_outlines() -> None:
    labels = np.zeros((300, 400), np.int32)
    labels[:150:2, ::2] = 1  # the upper half is busy
    picture = np.asarray(_draw(labels, Look(legend="inside", alpha=1, outlines=False)))
    assert picture.shape == (300, 400, 3)
    bright = picture.min(axis=2) > 225
    assert bright[150:].mean() > 0.02
    assert not bright[:140].any()
    tiny = _draw(_halves(20, 20), Look(legend="inside"))
    assert tiny.width > 20  # too small for it: to the right


@pytest.mark.parametrize(("width", "height"), [(300, 1200), (960, 720), (6000, 4500)])
def test_the_legend_scales_with_the_picture(width: int, height: int) -> None:
    labels = _halves(height, width)
    picture = _draw(labels, Look())
    added = (picture.width - width) * picture.height + (picture.height - height) * width
    assert 0.01 < added / (width * height) < 0.35
    assert picture.width <= max(width, 1.35 * width)


def test_no_legend_without_a_class_to_list() -> None:
    labels = np.zeros((60, 80), np.int32)
    for place in ("auto", "inside"):
        look = Look(only="car", legend=place)
        assert _draw(labels, look).size == (80, 60)


def test_bands_are_shown_by_their_names() -> None:
    image = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    for names, chosen in (
        (["nir", "Red", "green", "blue"], [3, 2, 1]),
        (["b1", "b2", "b3", "b4"], [2, 1, 0]),
    ):
        np.testing.assert_array_equal(render.shown_bands(image, names), image[:, :, chosen])
    for count in (1, 2):
        names = [str(band) for band in range(count)]
        shown = render.shown_bands(image[:, :, :count], names)
        np.testing.assert_array_equal(shown, image[:, :, [0, 0, 0]])


def test_other_types_than_uint8_are_stretched_band_by_band() -> None:
    ramp = np.linspace(0, 1, 101)[:, None, None]
    image = np.concatenate([ramp * 10_000, ramp * 3000 - 1500, ramp * 0 + 7], axis=2)
    for dtype in (np.float32, np.int16):
        shown = render.shown_bands(image.astype(dtype), ["red", "green", "blue"])[:, 0]
        assert shown[:, 0].tolist() == [0] * 101  # all values are the same
        for band in (1, 2):
            assert shown[[0, 2, 98, 100], band].tolist() == [0, 0, 255, 255]
            assert abs(int(shown[50, band]) - 128) <= 1
    large = np.zeros((2100, 1000, 3), np.uint16)
    large[1050:] = 500
    assert set(np.unique(render.shown_bands(large, ["a", "b", "c"]))) == {0, 255}
