from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segrt import preprocess
from segrt.errors import ModelError
from segrt.preprocess import Normalize, Resize, Transforms
from segrt.types import TargetSize

Size = tuple[int, int]

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PLAIN = Transforms(Normalize())


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def expected(image: NDArray[np.uint8], scale: float, mean: Any, std: Any) -> NDArray[np.float32]:
    """The formula in float64, rounded once."""
    rgb = image[..., ::-1].astype(np.float64)
    return np.asarray(
        ((rgb * scale - np.array(mean)) / np.array(std)).transpose(2, 0, 1), np.float32
    )


def written(normalize: Normalize, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    out = np.full((3, *image.shape[:2]), np.nan, np.float32)
    normalize.write(image, out)
    return out


numbers = st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    numbers,
    st.tuples(numbers, numbers, numbers),
    st.tuples(numbers, numbers, numbers),
)
@settings(deadline=None)
def test_normalize_equals_the_formula_exactly(
    height: int, width: int, seed: int, scale: float, mean: Any, std: Any
) -> None:
    image = photo(height, width, seed)
    normalize = Normalize(scale=scale, mean=mean, std=std)
    np.testing.assert_array_equal(written(normalize, image), expected(image, scale, mean, std))


def test_every_pixel_value_with_the_default_settings() -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    out = written(Normalize(), image)
    np.testing.assert_array_equal(out, expected(image, 1 / 255, 0.5, 0.5))
    # PaddleX computes x * (scale / std) - mean / std in float32, equal up to the last two bits.
    paddlex = image.transpose(2, 0, 1).astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    np.testing.assert_allclose(out, paddlex, atol=2e-7)
    assert out.min() == -1
    assert out.max() == 1


@pytest.mark.parametrize("band", [1, 7, 64, 1 << 17])
def test_bands_are_seamless(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    monkeypatch.setattr(preprocess, "_BAND", band)
    image = photo(31, 17)
    np.testing.assert_array_equal(
        written(IMAGENET, image), expected(image, 1 / 255, IMAGENET.mean, IMAGENET.std)
    )


def test_image_larger_than_a_band() -> None:
    image = photo(720, 960)
    np.testing.assert_array_equal(
        written(IMAGENET, image), expected(image, 1 / 255, IMAGENET.mean, IMAGENET.std)
    )


@pytest.mark.parametrize(
    "view", [np.s_[::-1, ::-1], np.s_[:, :, ::-1], np.s_[5:20, 3:11], np.s_[::2, ::3]]
)
def test_views_as_images(view: Any) -> None:
    image = photo(30, 40)[view]
    np.testing.assert_array_equal(written(Normalize(), image), expected(image, 1 / 255, 0.5, 0.5))


def test_write_changes_only_its_slot_of_the_batch() -> None:
    batch = np.full((3, 3, 8, 9), 7, np.float32)
    image = photo(8, 9)
    PLAIN.write(image, out=batch[1])
    np.testing.assert_array_equal(batch[1], expected(image, 1 / 255, 0.5, 0.5))
    assert (batch[[0, 2]] == 7).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 8, 9)),
        np.zeros((8, 9, 3), np.float32),
        np.zeros((3, 9, 9), np.float32),
        np.zeros((3, 8, 18), np.float32)[:, :, ::2],
    ],
)
def test_output_that_opencv_would_not_write_to_is_rejected(out: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="out must be C-contiguous float32"):
        Normalize().write(photo(8, 9), out)


@pytest.mark.parametrize(("interp", "flag"), list(preprocess.INTERPOLATIONS.items()))
def test_resize_equals_opencv(interp: str, flag: int) -> None:
    image = photo(20, 30)
    resized = preprocess.resize(image, (13, 41), interp)
    np.testing.assert_array_equal(resized, cv2.resize(image, (41, 13), interpolation=flag))
    assert preprocess.resize(image, (20, 30), interp) is image


def test_write_resizes_to_the_slot() -> None:
    image = photo(20, 30)
    out = np.empty((3, 32, 64), np.float32)
    Transforms.parse([{"type": "Normalize"}, {"type": "Resize", "interp": "nearest"}]).write(
        image, out
    )
    resized = cv2.resize(image, (64, 32), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(out, expected(resized, 1 / 255, 0.5, 0.5))


# Sizes computed by PaddleX 3.7.2.
@pytest.mark.parametrize(
    ("source_size", "resize", "size"),
    [
        ((1024, 2048), Resize(target_size=512), (256, 512)),
        ((360, 480), Resize(target_size=512), (384, 512)),
        ((1080, 1920), Resize(target_size=1000), (576, 1024)),
        ((33, 1000), Resize(target_size=100), (32, 128)),
        ((333, 500), Resize(target_size=500, size_divisor=None), (333, 500)),
        ((333, 500), Resize(target_size=(200, 300)), (224, 320)),
        ((333, 500), Resize(target_size=(300, 200), size_divisor=0), (200, 300)),
        ((500, 333), Resize(target_size=(480, 640), size_divisor=16), (640, 432)),
        ((7, 7), Resize(target_size=(3, 2), keep_ratio=False, size_divisor=4), (4, 4)),
        ((7, 7), Resize(target_size=(3, 2), keep_ratio=False, size_divisor=None), (3, 2)),
        ((333, 500), Resize(), (333, 500)),
    ],
)
def test_size_after_a_resize(source_size: Size, resize: Resize, size: Size) -> None:
    assert resize.size(source_size) == size
    assert Transforms(Normalize(), (resize,)).size(source_size) == size


@given(st.integers(1, 70_000), st.integers(1, 70_000), st.integers(1, 70_000), st.integers(1, 64))
def test_sides_are_positive_multiples_of_the_divisor(
    height: int, width: int, target_size: int, divisor: int
) -> None:
    size = Resize(target_size=min(target_size, 65_535), size_divisor=divisor).size((height, width))
    assert min(size) >= divisor
    assert all(side % divisor == 0 for side in size)


@pytest.mark.parametrize(
    ("target_size", "size"),
    [
        (None, (360, 480)),
        (-1, (360, 480)),
        (512, (384, 512)),
        (100, (96, 128)),
        ((123, 45), (123, 45)),
    ],
)
def test_target_size_if_the_model_has_no_resize(target_size: TargetSize, size: Size) -> None:
    assert PLAIN.size((360, 480), target_size) == size


@pytest.mark.parametrize(
    ("target_size", "size"),
    [(None, (200, 300)), (-1, (360, 480)), (512, (512, 512)), ((123, 45), (123, 45))],
)
def test_target_size_if_the_model_has_a_resize(target_size: TargetSize, size: Size) -> None:
    resize = {
        "type": "Resize",
        "target_size": [300, 200],
        "keep_ratio": False,
        "size_divisor": None,
    }
    assert Transforms.parse([resize]).size((360, 480), target_size) == size


def test_parse() -> None:
    assert Transforms.parse([{"type": "Normalize"}]) == PLAIN
    assert Transforms.parse(
        [{"type": "Normalize", "mean": 0.4, "std": [1, 2, 4], "scale": 1}]
    ) == Transforms(Normalize(scale=1, mean=(0.4, 0.4, 0.4), std=(1, 2, 4)))
    parsed = Transforms.parse([{"type": "Resize", "target_size": [640, 480], "interp": "area"}])
    assert parsed.steps == (Resize(target_size=(480, 640), interp="AREA"),)
    assert Transforms.parse([{"type": "Resize", "target_size": [-1, -1]}]).steps == (Resize(),)
    image = photo(4, 5)
    np.testing.assert_array_equal(
        written(parsed.normalize, image), image[..., ::-1].transpose(2, 0, 1)
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "Pad"}, "'Pad'.*: segrt has Normalize, Resize, "),
        ({}, "None: segrt has Normalize, Resize, "),
        ({"type": "Normalize", "means": 0.5}, r"Normalize is not valid \(means: "),
        ({"type": "Normalize", "mean": [0.5, 0.5]}, r"Normalize is not valid \(mean"),
        (
            {"type": "Normalize", "std": [1, 0, 1]},
            r"Normalize is not valid \(std: .* standard deviation",
        ),
        ({"type": "Resize", "interp": "PIL"}, r"Resize is not valid \(interp: .* NEAREST, LINEAR"),
        ({"type": "Resize", "target_size": 0}, r"Resize is not valid \(target_size: "),
        ({"type": "Resize", "target_size": [1, 2, 3]}, r"Resize is not valid \(target_size: "),
        ({"type": "Resize", "size_divisor": -1}, r"Resize is not valid \(size_divisor: "),
    ],
)
def test_invalid_transforms_are_rejected(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Transforms.parse([entry])


# Sizes computed by transformers 5.24 (`get_resize_output_image_size`).
@pytest.mark.parametrize(
    ("source_size", "short", "limit", "size"),
    [
        ((241, 317), 256, None, (256, 336)),
        ((360, 200), 256, None, (460, 256)),
        ((100, 100), 64, None, (64, 64)),
        ((100, 400), 64, 128, (32, 128)),
    ],
)
def test_shorter_side_as_in_transformers(
    source_size: Size, short: int, limit: int | None, size: Size
) -> None:
    entry = {"type": "ResizeByShort", "short_size": short, "rounding": "down"}
    transforms = Transforms.parse([entry | ({"max_size": limit} if limit else {})])
    assert transforms.size(source_size) == size


def _banded(data: st.DataObject) -> tuple[NDArray[Any], dict[str, Any], list[str]]:
    """An image with bands, a Normalize for it, and the names of the bands."""
    count = data.draw(st.integers(1, 8))
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    height, width = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    if dtype.kind == "f":
        image = rng.normal(1000, 3000, (height, width, count)).astype(dtype)
    else:
        ends = np.iinfo(dtype.name)
        image = rng.integers(ends.min, ends.max, (height, width, count), dtype, endpoint=True)
    number, spread = st.floats(-1e4, 1e4), st.floats(0.01, 1e4)
    each = data.draw(st.booleans())
    normalize = {
        "type": "Normalize",
        "scale": data.draw(st.sampled_from([1.0, 1 / 255, 1e-4])),
        "mean": data.draw(st.lists(number, min_size=count, max_size=count) if each else number),
        "std": data.draw(st.lists(spread, min_size=count, max_size=count)),
        "to_rgb": data.draw(st.booleans()),  # without meaning for bands
    }
    return image, normalize, [f"b{i}" for i in range(count)]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bands_are_normalised_like_a_float64_reference(data: st.DataObject) -> None:
    image, normalize, names = _banded(data)
    transforms = Transforms.parse([normalize], bands=names)
    batch = transforms.batch([transforms.fit(image, transforms.layout(image.shape[:2]))])
    mean, std = np.asarray(normalize["mean"], np.float64), np.asarray(normalize["std"])
    expected = (image.astype(np.float64) * normalize["scale"] - mean) / std
    if image.dtype == np.float32:  # is computed in float32: relative to the largest operand
        largest = np.maximum(np.abs(image * normalize["scale"]), np.abs(mean)) / std
        error = np.abs(batch[0].transpose(1, 2, 0) - expected)
        assert (error <= 4 * np.finfo(np.float32).eps * largest).all()
    else:
        np.testing.assert_array_equal(batch[0].transpose(1, 2, 0), expected.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bands_are_resized_and_padded_each_alone(data: st.DataObject) -> None:
    image, normalize, names = _banded(data)
    interp = data.draw(st.sampled_from(["NEAREST", "LINEAR", "CUBIC", "AREA", "PILLOW_BILINEAR"]))
    values = data.draw(st.lists(st.integers(0, 255), min_size=len(names), max_size=len(names)))
    steps: list[dict[str, Any]] = [
        {"type": "Resize", "target_size": [9, 7], "keep_ratio": False, "interp": interp}
        | {"size_divisor": None},
        {"type": "Padding", "target_size": [12, 8], "im_padding_value": values},
    ]
    resize_in: Any = data.draw(st.sampled_from(["uint8", "float32"]))
    whole = Transforms.parse([*steps, normalize], resize_in=resize_in, bands=names)
    fitted = whole.fit(image, whole.layout(image.shape[:2]))
    assert fitted.shape == (8, 12, len(names))
    for band, name in enumerate(names):
        padding = steps[1] | {"im_padding_value": values[band]}
        entries = [steps[0], padding, normalize | {"mean": 0.0, "std": 1.0}]
        alone = Transforms.parse(entries, resize_in=resize_in, bands=[name])
        one = alone.fit(image[:, :, band : band + 1], alone.layout(image.shape[:2]))
        np.testing.assert_array_equal(one, fitted[:, :, band : band + 1])
        assert (fitted[7:, :, band] == values[band]).all()
        assert (fitted[:, 9:, band] == values[band]).all()


def test_padding_that_the_type_of_bands_cannot_hold_makes_them_float() -> None:
    for dtype, value in (("uint8", 300), ("uint16", -1), ("int16", 0.5), ("uint8", -9999)):
        entry = {"type": "Padding", "target_size": [3, 2], "im_padding_value": [0, value]}
        transforms = Transforms.parse([entry], bands=["a", "b"])
        fitted = transforms.fit(np.ones((1, 1, 2), dtype), transforms.layout((1, 1)))
        assert fitted.dtype == np.float32
        assert fitted[..., 1].tolist() == [[1, value, value], [value] * 3]


def test_hundreds_of_bands() -> None:  # OpenCV splits at most 128
    image = np.arange(2 * 3 * 200, dtype=np.uint16).reshape(2, 3, 200)
    transforms = Transforms.parse([], bands=[str(band) for band in range(200)])
    np.testing.assert_array_equal(transforms.batch([image])[0], image.transpose(2, 0, 1))
