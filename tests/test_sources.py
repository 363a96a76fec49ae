from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segrt.errors import InputError
from segrt.result import SegFailure
from segrt.sources import Frame, frames, from_array

Save = Callable[[str, npt.NDArray[np.uint8]], Path]


def _images(source: object) -> list[Frame]:
    items = list(frames(source))
    assert all(isinstance(item, Frame) for item in items), items
    return [item for item in items if isinstance(item, Frame)]


def _error(source: object) -> str:
    (item,) = frames(source)
    assert isinstance(item, SegFailure)
    return str(item.error)


def test_a_file_as_text_or_path_is_bgr(save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    path = save_image("a.png", tiles)
    for source in (str(path), path):
        (frame,) = _images(source)
        np.testing.assert_array_equal(frame.image, tiles)
        assert frame.input_path == str(path)
        assert frame.page_index is None


def test_a_folder_is_recursive_sorted_and_knows_upper_case(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    for name in ("d/b.PNG", "d/a/z.bmp", "d/c.jpg", "d/b/a.webp"):
        save_image(name, tiles)
    (tmp_path / "d" / "notes.txt").write_text("not an image")
    found = [str(Path(f.input_path or "").relative_to(tmp_path)) for f in _images(tmp_path / "d")]
    assert found == ["d/a/z.bmp", "d/b.PNG", "d/b/a.webp", "d/c.jpg"]


def test_nested_lists_keep_their_order(save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    first, second = save_image("z.png", tiles), save_image("d/a.png", tiles)
    found = [f.input_path for f in _images([first, (tmp_path / "d", [tiles]), iter([str(first)])])]
    assert found == [str(first), str(second), None, str(first)]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_of_every_layout(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = from_array(array)
    assert image.shape == (5, 7, 3)
    expected = array[:, :, :3] if shape[-1] in (3, 4) else array.reshape(5, 7, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_that_are_no_image(array: npt.NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match="is not an image: it must be uint8"):
        from_array(array)


def test_a_pil_image_is_rgb_and_arrays_are_bgr() -> None:
    (frame,) = _images(Image.new("RGB", (4, 3), (255, 0, 0)))
    assert frame.image[0, 0].tolist() == [0, 0, 255]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = _images(tmp_path / "a.jpg")
    assert frame.image.shape == (40, 20, 3)


def test_bad_files_each_say_what_is_wrong(tmp_path: Path, save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = save_image("whole.jpg", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "a.docx").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    assert "does not exist" in _error(tmp_path / "gone.png")
    assert "truncated" in _error(tmp_path / "cut.jpg")
    assert "is not an image of a known format" in _error(tmp_path / "text.png")
    assert "is empty" in _error(tmp_path / "zero.png")
    assert "segrt reads bmp dib" in _error(tmp_path / "a.docx")
    assert "holds no image" in _error(tmp_path / "empty")


@pytest.mark.parametrize("source", [None, 5, {"a": 1}, b"bytes"])
def test_other_types_are_named(source: object) -> None:
    assert f"type {type(source).__name__}" in _error(source)


def test_too_many_pixels_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr("segrt.sources.MAX_PIXELS", 9_999)
    assert "100 x 100 has more than 9,999 pixels" in _error(tmp_path / "a.png")
