from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segrt import pdf
from segrt.arrays import from_array, from_bands
from segrt.errors import ConfigError, InputError, MissingExtraError, TooLargeError
from segrt.frame import Frame, SegFailure
from segrt.reading import Reading
from segrt.sources import frames, one_page

Save = Callable[[str, npt.NDArray[np.uint8]], Path]
Answer = tuple[int, dict[str, str], Iterable[bytes]]


def _images(source: object) -> list[Frame]:
    items = list(frames(source))
    assert all(isinstance(item, Frame) for item in items), items
    return [item for item in items if isinstance(item, Frame)]


def _error(source: object) -> str:
    (item,) = frames(source)
    assert isinstance(item, SegFailure)
    return str(item.error)


def test_file_as_text_or_path_is_bgr(save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    path = save_image("a.png", tiles)
    for source in (str(path), path):
        (frame,) = _images(source)
        np.testing.assert_array_equal(frame.image, tiles)
        assert frame.input_path == str(path)
        assert frame.page_index is None


def test_folder_is_recursive_sorted_and_ignores_case(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    for name in ("d/b.PNG", "d/a/z.bmp", "d/c.jpg", "d/b/a.webp"):
        save_image(name, tiles)
    (tmp_path / "d" / "notes.txt").write_text("not an image")
    found = [str(Path(f.input_path or "").relative_to(tmp_path)) for f in _images(tmp_path / "d")]
    assert found == ["d/a/z.bmp", "d/b.PNG", "d/b/a.webp", "d/c.jpg"]


def test_nested_lists_keep_their_order(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    first, second = save_image("z.png", tiles), save_image("d/a.png", tiles)
    found = [f.input_path for f in _images([first, (tmp_path / "d", [tiles]), iter([str(first)])])]
    assert found == [str(first), str(second), None, str(first)]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_array_layouts(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = from_array(array)
    assert image.shape == (5, 7, 3)
    expected = array[:, :, :3] if shape[-1] in (3, 4) else array.reshape(5, 7, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) is not an image"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4), np.int64), "array of int64 is not an image: it must be uint8"),
        (np.full((4, 4), 255.0), "float64 must be from 0 to 1, but it is from 255 to 255"),
        (np.full((4, 4), np.nan, np.float32), "float32 must be from 0 to 1"),
        (np.array([[-0.5, 1]]), "from -0.5 to 1"),
    ],
)
def test_invalid_arrays(array: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_array(array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_dtypes_are_scaled_to_8_bits(dtype: type[np.generic]) -> None:
    grey = np.arange(256).reshape(16, 16)
    scale = {"u": 257 if dtype is np.uint16 else 1, "f": 1 / 255}[np.dtype(dtype).kind]
    np.testing.assert_array_equal(from_array((grey * scale).astype(dtype))[:, :, 1], grey)


def test_bool_array_is_black_and_white() -> None:
    assert from_array(np.array([[True, False]]))[0].tolist() == [[255] * 3, [0] * 3]


def test_bands_are_taken_as_they_are() -> None:
    names = ["red", "green", "blue", "nir"]
    for dtype in ("u1", "<u2", ">u2", "<i2", "<f4", ">f4"):
        array = np.random.default_rng(0).integers(0, 99, (5, 7, 4)).astype(dtype)
        image = from_bands(array, names)
        np.testing.assert_array_equal(image, array)
        assert image.dtype.isnative
        assert np.shares_memory(image, array) == array.dtype.isnative
    assert from_bands(np.zeros((5, 7), np.uint16), ["thermal"]).shape == (5, 7, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((5, 7, 3), np.uint8),
            r"shape \(5, 7, 3\) is not an image for this model: it must",
        ),
        (np.zeros((5, 7), np.uint8), r"must be \(H, W, 4\) with the bands red, green, blue, nir"),
        (np.zeros((4, 5, 7), np.uint8), r"bands come first: pass np\.moveaxis\(np\.asarray"),
        (np.zeros((0, 5, 4), np.uint8), r"shape \(0, 5, 4\)"),
        (np.zeros((5, 7, 4)), "float64.* must be uint8, uint16, int16 or float32"),
        (np.zeros((5, 7, 4), np.bool_), "bool.* must be uint8"),
        (np.full((5, 7, 4), np.nan, np.float32), "NaN or infinity: replace them"),
        (np.full((5, 7, 4), -np.inf, np.float32), "NaN or infinity: replace them"),
    ],
)
def test_invalid_bands(array: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_bands(array, ["red", "green", "blue", "nir"])


def test_memory_mapped_array_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 3), np.uint8))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.shares_memory(from_array(mapped), mapped)


@pytest.mark.parametrize(
    ("mode", "colour", "bgr"),
    [
        ("RGBA", (10, 20, 30, 0), [30, 20, 10]),  # alpha is dropped, not blended
        ("LA", (7, 0), [7, 7, 7]),
        ("1", 1, [255] * 3),
        ("L", 9, [9] * 3),
        ("CMYK", (0, 255, 255, 0), [0, 0, 255]),
        ("I;16", 0x12FF, [0x12] * 3),
        ("I", 65_535, [255] * 3),
        ("F", 0.5, [128] * 3),
    ],
)
def test_pil_modes_are_converted_to_bgr(mode: str, colour: Any, bgr: list[int]) -> None:
    (frame,) = _images(Image.new(mode, (3, 2), colour))
    assert frame.image.shape == (2, 3, 3)
    assert frame.image[1, 2].tolist() == bgr


def test_out_of_range_values_are_rejected() -> None:
    assert "must be from 0 to 65535, but it is from -1 to -1" in _error(Image.new("I", (3, 2), -1))
    assert "must be from 0 to 1" in _error(Image.new("F", (3, 2), 200.0))


def test_palette_with_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "p.png", transparency=1)
    (frame,) = _images(tmp_path / "p.png")
    assert frame.image[0, 0].tolist() == [50, 100, 200]


def test_16_bit_files_keep_their_high_bits(tmp_path: Path) -> None:
    grey = (np.arange(256, dtype=np.uint16) * 256 + 200).reshape(16, 16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        (frame,) = _images(tmp_path / name)
        np.testing.assert_array_equal(frame.image[:, :, 0], grey >> 8)


def test_pil_image_is_rgb_and_array_is_bgr() -> None:
    (frame,) = _images(Image.new("RGB", (4, 3), (255, 0, 0)))
    assert frame.image[0, 0].tolist() == [0, 0, 255]


def test_exif_orientation_is_applied_by_default(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees for display
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = _images(tmp_path / "a.jpg")
    assert frame.image.shape == (40, 20, 3)
    (item,) = frames(tmp_path / "a.jpg", Reading(exif=False))
    assert isinstance(item, Frame)
    assert item.image.shape == (20, 40, 3)


def test_bytes_are_the_contents_of_a_file(save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    content = save_image("a.png", tiles).read_bytes()
    for source in (content, bytearray(content), memoryview(content)):
        (frame,) = _images(source)
        np.testing.assert_array_equal(frame.image, tiles)
        assert frame.input_path is None
    assert "not an image of a known format" in _error(b"no image")
    assert "this is empty" in _error(b"")


def test_format_is_detected_by_content(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    save_image("a.png", tiles).rename(tmp_path / "a.pdf")
    (frame,) = _images(tmp_path / "a.pdf")
    np.testing.assert_array_equal(frame.image, tiles)


def test_tiff_frames_are_separate_images(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (10 + i, 5), (i, 0, 0)) for i in range(3)]
    pages[0].save(tmp_path / "three.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.tiff")
    found = _images(tmp_path / "three.tif")
    assert [(f.page_index, f.image.shape[1], int(f.image[0, 0, 2])) for f in found] == [
        (0, 10, 0),
        (1, 11, 1),
        (2, 12, 2),
    ]
    assert [f.page_index for f in _images((tmp_path / "one.tiff").read_bytes())] == [0]


def test_too_many_frames_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tiff", "pdf"):
        monkeypatch.setattr(f"segrt.{module}.MAX_PAGES", 2)
    pages = [Image.new("L", (5, 5)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.pdf", save_all=True, append_images=pages[1:])
    for name in ("a.tif", "a.pdf"):
        first, second, third = frames(tmp_path / name)
        assert isinstance(first, Frame)
        assert isinstance(second, Frame)
        assert isinstance(third, SegFailure)
        assert third.page_index == 2
        assert "are skipped" in str(third.error)


def test_pdf_pages_are_separate_images(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (60, 30 + 10 * i), (250, 0, 0)) for i in range(2)]
    pages[0].save(tmp_path / "doc.PDF", save_all=True, append_images=pages[1:], resolution=72)
    found = _images(tmp_path)
    assert [(f.page_index, f.image.shape) for f in found] == [(0, (60, 120, 3)), (1, (80, 120, 3))]
    blue, green, red = found[0].image[30, 60].tolist()
    assert red > 240
    assert max(blue, green) < 10
    small = [f.image.shape for f in frames(tmp_path, Reading(pdf_scale=1)) if isinstance(f, Frame)]
    assert small == [(30, 60, 3), (40, 60, 3)]


def test_oversized_page_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segrt.reading.MAX_PIXELS", 10_000)
    Image.new("L", (100, 100)).save(
        tmp_path / "a.pdf", save_all=True, append_images=[Image.new("L", (9, 9))]
    )
    first, second = frames(tmp_path / "a.pdf")
    assert isinstance(first, SegFailure)
    assert (
        str(first.error)
        == f"{tmp_path}/a.pdf, page 0: an image of 200 x 200 has more than 10,000 pixels; "
        "max_pixels raises that"
    )
    assert isinstance(second, Frame)


@pytest.mark.parametrize("scale", [0, -1, 101, float("nan"), "2"])
def test_invalid_scales_are_rejected(scale: Any) -> None:
    with pytest.raises(ConfigError, match="pdf_scale"):
        Reading(pdf_scale=scale)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Answer], str]]:
    """Serve responses by path on 127.0.0.1; returns their URLs."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers[self.path.split("?")[0]]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client may have disconnected
                for part in body:
                    self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

        def publish(path: str, answer: Answer) -> str:
            answers[path.split("?", maxsplit=1)[0]] = answer
            return f"http://127.0.0.1:{server.server_port}{path}"

        yield publish
        server.shutdown()


def test_urls_with_queries_redirects_and_no_suffix(
    site: Callable[[str, Answer], str], save_image: Save, tiles: npt.NDArray[np.uint8]
) -> None:
    content = save_image("a.png", tiles).read_bytes()
    target = site("/photo?size=large&x=1.jpg", (200, {}, [content]))
    for url in (target, site("/old", (302, {"Location": target}, []))):
        (frame,) = _images(url)
        np.testing.assert_array_equal(frame.image, tiles)
        assert frame.input_path == url


def test_failing_urls_report_the_reason(
    site: Callable[[str, Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the server answers 404" in _error(site("/gone.png", (404, {}, [])))
    assert "known format" in _error(site("/text.png", (200, {}, [b"text"])))
    assert "is empty" in _error(site("/empty.png", (200, {}, [])))
    assert "redirects" in _error(site("/loop", (302, {"Location": "/loop"}, [])))
    assert "can't be downloaded" in _error("http://127.0.0.1:9/a.png")
    monkeypatch.setattr("segrt.http.URL_BYTES", 1000)
    assert "is larger than" in _error(
        site("/big.png", (200, {}, (b"x" * 100 for _ in range(10**9))))
    )
    monkeypatch.setattr("segrt.http.URL_SECONDS", 0.3)

    def body(pause: float) -> Iterator[bytes]:
        while True:
            time.sleep(pause)
            yield b"x"

    for pause in (0.05, 1):
        assert "took more than 0.3 s" in _error(site(f"/slow{pause}.png", (200, {}, body(pause))))


def test_bad_files_report_the_reason(
    tmp_path: Path, save_image: Save, tiles: npt.NDArray[np.uint8]
) -> None:
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
    assert "segrt reads 3gp apng asf avi avif avifs blp bmp" in _error(tmp_path / "a.docx")
    assert "holds no image" in _error(tmp_path / "empty")


class _ByMethod:
    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self._array


class _ByInterface:
    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array  # keeps the memory
        self.__array_interface__ = array.__array_interface__


class _ByDLPack:
    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class _OnGpu(_ByMethod):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")


class _Shape:
    shape = (5, 7, 3)


class _Scalar:
    def __iter__(self) -> Iterator[Any]:
        raise TypeError("iteration over a 0-d tensor")


@pytest.mark.parametrize("kind", [_ByMethod, _ByInterface, _ByDLPack, np.ma.masked_array])
def test_arrays_of_other_libraries_are_one_image(
    kind: Callable[[Any], object], tiles: npt.NDArray[np.uint8]
) -> None:
    for source in (kind(tiles), [kind(tiles)]):
        (frame,) = _images(source)
        np.testing.assert_array_equal(frame.image, tiles)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_OnGpu(np.zeros(())), "_OnGpu can't be converted to a NumPy array: can't convert cuda:0"),
        (_Shape(), "_Shape can't be converted to a NumPy array"),
        (_Scalar(), "this _Scalar can't be iterated: iteration over a 0-d tensor"),
        (np.zeros((3, 8, 9), np.uint8), "its channels come first: pass np.moveaxis"),
        (np.zeros((2, 8, 9, 3), np.uint8), "it is a batch: pass its images one by one"),
        (np.float32(3), r"shape () is not an image"),
        ([0, 255, 3], "a list of numbers can't be read: pass an array"),
        ([[0.5, 1.0], [0.2, 0.1]], "a list of numbers can't be read: pass an array"),
        (io.StringIO("text"), "open the file in binary mode"),
    ],
)
def test_an_item_that_can_not_be_read_is_an_error_of_its_own(
    source: object, message: str, tiles: npt.NDArray[np.uint8]
) -> None:
    first, *errors, last = frames([tiles, source, tiles])
    assert isinstance(first, Frame)
    assert isinstance(last, Frame)
    for item in errors:
        assert isinstance(item, SegFailure)
        assert message in str(item.error)


def test_array_of_paths(save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    paths = [str(save_image("a.png", tiles)), str(save_image("b.png", tiles))]
    for source in (np.array(paths), np.array(paths, object)):
        assert [f.input_path for f in _images(source)] == paths


def test_opened_files(save_image: Save, tiles: npt.NDArray[np.uint8]) -> None:
    path = save_image("a.png", tiles)
    with path.open("rb") as file:
        (frame,) = _images(file)
    np.testing.assert_array_equal(frame.image, tiles)
    assert frame.input_path == str(path)
    (frame,) = _images(io.BytesIO(path.read_bytes()))
    assert frame.input_path is None


def test_folder_tells_what_it_leaves_out(
    save_image: Save,
    tiles: npt.NDArray[np.uint8],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ("a.jpg", "b.jfif", "c.jpe", "d.GIF", "e.avif", "f.jp2", "plain", "g.bin", "h.tga")
    forms = ("JPEG", "JPEG", "JPEG", "GIF", "AVIF", "JPEG2000", "JPEG", "PNG", "TGA")
    for name, form in zip(names, forms, strict=True):
        Image.fromarray(tiles).save(tmp_path / name, form)
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(80))
    (tmp_path / ".thumbnails").mkdir()
    Image.fromarray(tiles).save(tmp_path / ".thumbnails" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "loop.md").symlink_to("loop.md")
    for name in ("notes.txt", "more.txt", "clip.mp4", "readme"):
        (tmp_path / name).write_text("text")
    found = [Path(f.input_path or "").name for f in _images(tmp_path)]
    assert found == sorted(names)
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}: left out: 1 .md, 1 .mp4, 2 .txt, 2 hidden, 1 link to a folder, "
        "1 without a suffix (videos are read when they are given by name)"
    )
    for name in names:
        assert len(_images(tmp_path / name)) == 1


def test_folder_that_can_not_be_read_is_an_error(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("d/a.png", "d/b/secret.png", "d/c.png"):
        save_image(name, tiles)
    scan = os.scandir

    def refuse(folder: str) -> Any:
        if Path(folder).name in refused:
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = ["b"]
    first, second, third = frames(tmp_path / "d")
    assert isinstance(first, Frame)
    assert isinstance(second, SegFailure)
    assert second.input_path == str(tmp_path / "d" / "b")
    assert "Permission denied" in str(second.error)
    assert isinstance(third, Frame)
    refused.append("d")
    assert "Permission denied" in _error(tmp_path / "d")


def test_frames_of_animations_have_a_time(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (12, 8), (40 * k, 0, 0)) for k in range(4)]
    for form in ("GIF", "PNG", "WEBP", "AVIF"):
        path = tmp_path / f"a.{form.lower()}"
        pictures[0].save(path, form, save_all=True, append_images=pictures[1:], duration=250)
        found = _images(path)
        assert [(f.page_index, f.time) for f in found] == [(k, k / 4) for k in range(4)]
    pictures[0].save(tmp_path / "still.gif")
    assert [(f.page_index, f.time) for f in _images(tmp_path / "still.gif")] == [(None, None)]


def test_heic_needs_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (item,) = frames([tmp_path])
    assert isinstance(item, SegFailure)
    assert isinstance(item.error, MissingExtraError)
    assert "pip install 'segrt[heif]'" in str(item.error)


def test_heic_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    picture = np.full((64, 48, 3), (200, 90, 30), np.uint8)
    plugin.from_pillow(Image.fromarray(picture)).save(tmp_path / "a.heic", quality=100)
    (tmp_path / "a.heic").rename(tmp_path / "b.jpg")  # as phones and mail programs do
    (frame,) = _images(tmp_path)
    assert np.abs(frame.image[..., ::-1].astype(int) - picture).max() <= 4
    assert not caplog.messages


def test_a_damaged_page_of_a_pdf_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Image.new("L", (30, 20), 9 * k) for k in range(3)]
    pages[0].save(tmp_path / "a.pdf", save_all=True, append_images=pages[1:])
    draw = pdf._page

    def damaged(document: Any, index: int, reading: Reading) -> npt.NDArray[np.uint8]:
        if index == 1:
            raise RuntimeError("no such page")
        return draw(document, index, reading)

    monkeypatch.setattr(pdf, "_page", damaged)
    first, second, third = frames(tmp_path / "a.pdf")
    assert isinstance(first, Frame)
    assert isinstance(second, SegFailure)
    assert second.page_index == 1
    assert isinstance(third, Frame)


@pytest.mark.parametrize("source", [None, 5.0, {"a": 1}])
def test_unsupported_types_are_reported(source: object) -> None:
    assert f"type {type(source).__name__}" in _error(source)


def test_too_many_pixels_are_rejected_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr("segrt.reading.MAX_PIXELS", 9_999)
    assert "100 x 100 has more than 9,999 pixels" in _error(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_pixel_limit_is_configurable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Image.new("RGB", (100, 100), (9, 8, 7)).save(tmp_path / name)
    (small,) = frames(tmp_path / name, Reading(max_pixels=9_999))
    assert isinstance(small, SegFailure)
    assert "max_pixels raises that" in str(small.error)
    monkeypatch.setattr("segrt.reading.MAX_PIXELS", 5_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_500)  # Pillow raises from twice as many on
    assert "max_pixels" in _error(tmp_path / name)
    (frame,) = frames(tmp_path / name, Reading(max_pixels=10_000))
    assert isinstance(frame, Frame)
    assert frame.image[5, 5].tolist() == [7, 8, 9]
    assert Image.MAX_IMAGE_PIXELS == 2_500
    with pytest.raises(ConfigError, match="max_pixels 0 is not valid"):
        Reading(max_pixels=0)


def _stack(form: str, count: int = 3) -> bytes:
    """A file of several pages, each of another grey and, where the format allows it, size."""
    grows = form in ("PDF", "TIFF")
    sizes = [(20, 12 + (5 * n if grows else 0)) for n in range(count)]
    greys = [Image.new("RGB", size, (60 * n,) * 3) for n, size in enumerate(sizes)]
    buffer = io.BytesIO()
    greys[0].save(buffer, form, save_all=True, append_images=greys[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PDF", "TIFF", "GIF", "WEBP", "PNG"])
def test_one_page_is_that_of_all_pages(form: str) -> None:
    data = _stack(form)
    found = list(frames(data))
    assert len(found) == 3
    for index, frame in enumerate(found):
        assert isinstance(frame, Frame)
        image, count = one_page(data, index)
        assert count == 3
        assert (image == frame.image).all()
    for index in (3, 10_000, 1 << 30):
        with pytest.raises(ConfigError, match=f"no page {index}: this file has 3 pages, from 0 to"):
            one_page(data, index)


def test_an_image_has_one_page() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, "JPEG")
    image, count = one_page(buffer.getvalue(), 0)
    assert (image.shape, count) == ((7, 9, 3), 1)
    with pytest.raises(ConfigError, match="there is no page 1: this file has 1 page, page 0"):
        one_page(buffer.getvalue(), 1)


def test_a_page_that_cannot_be_read_does_not_affect_the_others() -> None:
    """Where `frames` has an error, the file has a page with that error."""
    tiff = bytearray(_stack("TIFF"))
    for data in (bytes(tiff[:-40]), _stack("GIF")[:-5]):
        found = list(frames(data))
        failed = [n for n, one in enumerate(found) if isinstance(one, SegFailure)]
        assert failed
        for index, one in enumerate(found):
            if isinstance(one, SegFailure):
                with pytest.raises(InputError):
                    one_page(data, index)
            else:
                image, count = one_page(data, index)
                assert (image == one.image).all()
                assert count >= len(found)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"hello", "not an image"), (b"%PDF-1.4", "PDF is damaged")],
)
def test_no_page_of_what_is_no_file_of_pages(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        one_page(data, 0)


def test_pages_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "tiff"):
        monkeypatch.setattr(f"segrt.{module}.MAX_PAGES", 2)
    _, count = one_page(_stack("PDF"), 1)
    assert count == 3
    with pytest.raises(ConfigError, match="3 pages, from 0 to 2, and those from 2 on are not read"):
        one_page(_stack("PDF"), 2)
    with pytest.raises(InputError, match="more than 2 frames"):
        one_page(_stack("TIFF"), 2)
    with pytest.raises(TooLargeError, match="max_pixels"):
        one_page(_stack("PDF"), 0, Reading(max_pixels=100))
