from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops

from segrt import lettering
from segrt.lettering import Row
from segrt.palette import voc_palette


def _rows(count: int, name: str = "class") -> list[Row]:
    return [Row(i, f"{name} {i}", 1 / count, (10 + i % 200, 200, 30)) for i in range(count)]


def test_every_class_is_listed_in_its_colour() -> None:
    picture = np.asarray(lettering.legend(_rows(30))).reshape(-1, 3)
    for row in _rows(30):
        assert (picture == row.colour).all(axis=1).sum() > 200


def test_columns() -> None:
    one = lettering.legend(_rows(30), 12)
    high = lettering.legend(_rows(30), 12, height=320)
    assert high.height <= 320 < one.height
    assert high.width > one.width
    low = lettering.legend(_rows(30), 12, width=900)
    assert low.width <= 900
    assert low.height < one.height / 3
    assert lettering.legend([], 12).width > 0


@pytest.mark.parametrize(
    "name", ["天空", "небо", "सड़क", "🚗", "\udcb5", "", "a\nb", "\u202eabc", "x" * 300]
)
def test_any_name_can_be_drawn(name: str) -> None:
    text, font = lettering.lettered(name, 7, 18)
    assert "\n" not in text
    font.getmask(text)
    picture = lettering.legend([Row(7, name, 0.5, (1, 2, 3))])
    assert picture.height < 100


def test_a_name_that_no_font_draws_becomes_the_class_id() -> None:
    assert lettering.lettered("\U0010fff0", 7, 18)[0] == "class 7"
    assert lettering.lettered("sky", 7, 18)[0] == "sky"


def test_names_are_written_into_large_regions() -> None:
    labels = np.zeros((300, 400), np.int32)
    labels[100:250, 50:300] = 1
    labels[10:14, 300:380] = 2
    plain = Image.new("RGB", (400, 300), (90, 90, 90))
    written = plain.copy()
    lettering.write_names(written, labels, ("sky", "road", "car"), (0, 1, 2), voc_palette())
    changed = np.asarray(ImageChops.difference(plain, written)).max(axis=2) > 0
    assert changed[labels == 1].sum() > 100
    assert changed[labels == 0].sum() > 100
    assert not changed[labels == 2].any()  # too thin
    left, top, right, bottom = 50, 100, 300, 250
    inside = changed[top:bottom, left:right]
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()


def test_names_are_not_written_into_a_tiny_picture() -> None:
    picture = Image.new("RGB", (8, 8))
    lettering.write_names(picture, np.zeros((8, 8), np.int32), ("sky",), (0,), voc_palette())
    assert picture.getcolors() == [(64, (0, 0, 0))]
