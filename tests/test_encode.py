from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segrt import encode
from segrt.encode import Labels
from segrt.palette import voc_palette

label_maps = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 2**31 - 1)
)


@pytest.mark.parametrize("indent", [None, 1, 2, 4])
@given(labels=label_maps)
def test_nested_json_equals_json_dumps(labels: Labels, indent: int | None) -> None:
    expected = json.dumps({"pred": labels[None].tolist()}, indent=indent)
    prefix, suffix = ('{"pred": ', "}")
    if indent is not None:
        prefix, suffix = "{\n" + " " * indent + '"pred": ', "\n}"
    nested = encode.nested_json(labels, indent).decode()
    if indent is None:  # compact, without the blanks of json.dumps
        expected = expected.replace("], [", "],[").replace(", ", ",")
    assert prefix + nested + suffix == expected


@given(label_maps)
def test_nested_json_of_views(labels: Labels) -> None:
    assert json.loads(encode.nested_json(labels.T, None)) == labels.T[None].tolist()


@given(label_maps)
def test_flat_json_is_row_by_row(labels: Labels) -> None:
    assert json.loads(encode.flat_json(labels)) == labels.ravel().tolist()


@pytest.mark.parametrize(("classes", "mode"), [(3, "P"), (256, "P"), (257, "I;16")])
def test_label_png_contains_the_class_ids(classes: int, mode: str) -> None:
    labels = np.random.default_rng(0).integers(0, classes, (30, 40)).astype(np.int32)
    labels[0, 0] = classes - 1
    palette = voc_palette(classes)
    picture = Image.open(io.BytesIO(encode.label_png(labels, palette, classes)))
    assert (picture.format, picture.mode) == ("PNG", mode)
    np.testing.assert_array_equal(np.asarray(picture), labels)
    if mode == "P":
        rgb = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(rgb, palette[labels])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".ras", ".sr", ".ppm"])
def test_rgb_is_lossless(suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = encode.rgb(Image.fromarray(pixels), suffix)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), pixels)
