from __future__ import annotations

import re
from io import BytesIO

import pytest
from PIL import Image

from segrt import notebook


@pytest.mark.parametrize(("size", "shown"), [((30, 20), (30, 20)), ((4000, 1000), (800, 200))])
def test_pictures_are_no_larger_than_shown(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = Image.new("RGB", size)
    assert Image.open(BytesIO(notebook.encoded(picture, "PNG"))).size == shown
    assert picture.size == size


def test_small_classes_are_added_up() -> None:
    areas = {f"class {number}": 0.05 for number in range(20)}
    html = notebook.html(
        Image.new("RGB", (8, 8)), "a", areas, {name: [1, 2, 3] for name in areas}, "8 x 8"
    )
    assert re.findall(r"(\d+) more</td><td>(.*?)</td>", html) == [("8", "40.0%")]
    assert html.count("background:rgb(1,2,3)") == 12
