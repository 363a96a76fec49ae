from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.colour_distance import CLOSE, VISIONS, smallest_difference
from segrt.errors import ConfigError
from segrt.palette import distinct_palette, parse_palette, voc_palette


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


def test_the_first_20_distinct_colours_differ_with_any_colour_vision() -> None:
    for vision in VISIONS:
        assert smallest_difference(distinct_palette(20), vision) >= CLOSE[vision]


@pytest.mark.parametrize("size", [1, 20, 256, 257, 1500])
def test_distinct_colours_differ_and_palettes_begin_alike(size: int) -> None:
    colours = distinct_palette(size)
    assert colours.shape == (size, 3)
    assert len(np.unique(colours, axis=0)) == size
    np.testing.assert_array_equal(colours, distinct_palette(2000)[:size])


def test_named_palettes_go_by_class_name() -> None:
    names = ["Sky", "TRAFFIC-LIGHT", "Pavement", "zebra", "road", "Pedestrian", "person", "gnu"]
    colours = parse_palette("cityscapes", names)
    assert colours[0].tolist() == [70, 130, 180]
    assert colours[1].tolist() == [250, 170, 30]
    assert colours[2].tolist() == [244, 35, 232]  # sidewalk
    assert colours[4].tolist() == [128, 64, 128]
    assert colours[6].tolist() == [220, 20, 60]  # the exact name, so not Pedestrian's
    assert len(np.unique(colours, axis=0)) == len(names)
    for vision in VISIONS:
        assert smallest_difference(colours, vision) > 0.8 * CLOSE[vision]
    np.testing.assert_array_equal(colours, parse_palette("cityscapes", names))


def test_classes_of_one_name_have_one_colour() -> None:
    colours = parse_palette("camvid", ["sky", "other", "sky", "other"]).tolist()
    assert colours[0] == colours[2] == [128, 128, 128]
    assert colours[1] == colours[3] != colours[0]


def test_named_palettes_without_class_names() -> None:
    numbered = [f"class_{i}" for i in range(11)]
    np.testing.assert_array_equal(parse_palette("camvid", numbered), parse_palette("camvid"))
    with pytest.raises(ConfigError, match="11 classes without names: set class_names, or use voc"):
        parse_palette("cityscapes", numbered)
    with pytest.raises(ConfigError, match=r"has none of the model's classes \(red, green, blue\)"):
        parse_palette("cityscapes", ["red", "green", "blue"])


def test_the_table_of_the_documentation_is_what_its_script_prints() -> None:
    root = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location("table", root / "tools" / "palette_table.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (root / "docs" / "results-and-formats.md").read_text("utf-8")
    assert "\n".join(script.table()) in page
