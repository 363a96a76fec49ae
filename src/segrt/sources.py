"""Turns inputs of any kind into a lazy sequence of frames, in order."""

from __future__ import annotations

import io
import logging
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segrt import forks, http, structure, video
from segrt.errors import ConfigError, InputError, TooLargeError
from segrt.frame import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frame, SegFailure
from segrt.names import is_url
from segrt.types import shown

log = logging.getLogger("segrt")

MAX_PIXELS = 178_956_970
"""Default limit on the pixels of one image or PDF page; Pillow's own limit."""

MAX_PAGES = 10_000
"""Limit on the pages of a PDF and the frames of a TIFF."""

SUFFIXES = IMAGE_SUFFIXES | {".pdf"}
"""Suffixes of the files that are read from folders."""

# The Pillow decoders for IMAGE_SUFFIXES. No others: the EPS decoder, say, starts Ghostscript.
_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "WEBP", "PPM", "SUN", "TIFF")
# Pixels copied out of Pillow at once: the copy takes twice their bytes and should stay in cache.
_BAND = 1 << 18
_PILLOW = Lock()  # guards Pillow's pixel limit, which is a global
_PDFIUM = Lock()  # PDFium is not thread-safe
forks.hold(_PILLOW)
forks.hold(_PDFIUM)

_Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        exif: Apply the EXIF orientation of photos and the rotation of videos. (The orientation tag
            of a TIFF always applies.)
        pdf_scale: Pixels per point (1/72 inch) of a PDF page; 2 is 144 dpi.
        max_pixels: Limit on the pixels of an image, page or frame; default: 178,956,970.
    """

    exif: bool = True
    pdf_scale: float = 2.0
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.pdf_scale, (int, float)) and 0 < self.pdf_scale <= 100):
            raise ConfigError(
                f"pdf_scale {shown(self.pdf_scale)} is not valid: it must be above 0 and at "
                "most 100"
            )
        if self.max_pixels is not None and not (
            type(self.max_pixels) is int and self.max_pixels > 0
        ):
            raise ConfigError(
                f"max_pixels {shown(self.max_pixels)} is not valid: it must be a whole "
                "number from 1"
            )

    @property
    def limit(self) -> int:
        """Maximum number of pixels of one image."""
        return MAX_PIXELS if self.max_pixels is None else self.max_pixels

    def check(self, width: int, height: int) -> None:
        """Refuse an image before its pixels are read.

        Raises:
            InputError: it has no pixels.
            TooLargeError: it has too many pixels.
        """
        if width * height > self.limit:
            raise TooLargeError(
                f"an image of {width} x {height} has more than {self.limit:,} pixels; "
                "max_pixels raises that"
            )
        if width < 1 or height < 1:
            raise InputError("the image has no pixels")


def frames(source: object, reading: Reading = Reading()) -> Iterator[Frame | SegFailure]:
    """Read images one by one, in order. An unreadable one becomes a SegFailure in its position.

    The format is detected from the content, not from the name. Every page of a PDF and every frame
    of a TIFF or a video is an image; of other multi-image formats the first image is read. Videos
    in folders are skipped.

    Example:
        >>> for frame in frames(["photos/", "scan.pdf", array]):
        ...     print(frame.input_path, frame.page_index)

    Args:
        source: a file or folder (str or Path), an http(s) URL, a camera (0, or "camera:0"), the
            bytes of a file, an array (see `from_array`), a PIL image (used as is, without regard
            to EXIF), or an iterable of these, nested to any depth.
        reading: how files are read.
    """
    if is_url(source):
        yield from _from_url(str(source), reading)
    elif (index := video.camera_index(source)) is not None:
        yield from _from_video(index, f"camera:{index}", reading)
    elif isinstance(source, (str, Path)):
        yield from _from_path(str(source), reading)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield from _decode(bytes(source), None, reading)
    elif isinstance(source, (np.ndarray, Image.Image)):
        image = _attempt(
            lambda: (
                from_array(source) if isinstance(source, np.ndarray) else _from_pil(source, reading)
            )
        )
        yield (_failure(None, None, image) if isinstance(image, Exception) else Frame(image, None))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        for item in source:
            yield from frames(item, reading)
    else:
        error = InputError(
            f"an input of type {type(source).__name__} can't be read: give a path, a folder, a "
            "URL, the number of a camera, bytes, an array, a PIL image or a list of these"
        )
        yield SegFailure(None, None, error)


def from_array(array: npt.NDArray[Any]) -> _Pixels:
    """Convert an array to 8-bit BGR.

    Example:
        >>> from_array(np.zeros((480, 640), np.uint16)).shape
        (480, 640, 3)

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) BGR, or (H, W, 4) BGR with alpha, which is
            dropped, as OpenCV does. uint8 is used as is, and not copied if possible (memory-mapped
            arrays included). uint16: the upper 8 bits. Float: from 0 to 1, multiplied by 255 and
            rounded. bool: 0 and 255.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: another dtype or shape, no pixels, or floats outside [0, 1].
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image: it must be (H, W) or "
            "(H, W, 1 | 3 | 4), with colours in BGR order"
        )
    array = _to_uint8(array[:, :, :3] if array.ndim == 3 else array)
    if channels == 1:
        array = np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return np.ascontiguousarray(array)


def _to_uint8(array: npt.NDArray[Any]) -> _Pixels:
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    if array.dtype == np.uint16:
        return np.asarray(array >> 8, np.uint8)
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # true for NaN as well
            raise InputError(
                f"an array of {array.dtype} must be from 0 to 1, but it is from {low:g} to "
                f"{high:g}: scale it, or convert it to uint8"
            )
        return np.asarray(np.rint(array * array.dtype.type(255)), np.uint8)
    raise InputError(
        f"an array of {array.dtype} is not an image: it must be uint8, uint16, bool, or float "
        "from 0 to 1"
    )


def _from_path(path: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    if os.path.isdir(path):
        files = files_in(path)
        if not files:
            error = InputError(f"the folder {path} holds no image ({_listed(SUFFIXES)})")
            yield SegFailure(path, None, error)
        for file in files:
            yield from _from_path(file, reading)
    elif not os.path.exists(path):
        yield SegFailure(path, None, InputError(f"{path or repr(path)} does not exist"))
    elif Path(path).suffix.lower() not in SUFFIXES | VIDEO_SUFFIXES:
        error = InputError(
            f"{path} does not have the suffix of an image; segrt reads "
            f"{_listed(SUFFIXES | VIDEO_SUFFIXES)}"
        )
        yield SegFailure(path, None, error)
    elif not os.path.isfile(path):  # opening a pipe could block forever
        yield SegFailure(path, None, InputError(f"{path} is not a file"))
    else:
        yield from _decode(path, path, reading)


def files_in(folder: str, skip: Path | None = None) -> list[str]:
    """The images and PDFs in a folder and its subfolders, sorted by path.

    Args:
        folder: the folder.
        skip: a subfolder that is left out.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        if skip is not None and skip.exists():
            folders[:] = [f for f in folders if not skip.samefile(os.path.join(parent, f))]
        found += [os.path.join(parent, n) for n in names if Path(n).suffix.lower() in SUFFIXES]
    return sorted(found)


def _listed(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(s[1:] for s in suffixes))


def _from_url(url: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    try:
        content = http.download(url)
    except Exception as error:
        yield _failure(url, None, error)
    else:
        yield from _decode(content, url, reading)


def _decode(
    content: str | bytes, name: str | None, reading: Reading
) -> Iterator[Frame | SegFailure]:
    """Decode every image of a file, given its path or its bytes."""
    page = None
    try:
        head = _head(content)
        if video.is_video(head):
            yield from _from_video(content, name, reading)
            return
        decoder = _pdf_pages if _is_pdf(head) else _image_frames
        for page, image in decoder(content, reading):
            yield (
                _failure(name, page, image)
                if isinstance(image, Exception)
                else Frame(image, name, page)
            )
    except Exception as error:  # decoders raise almost anything on damaged files
        if isinstance(error, UnidentifiedImageError):
            size = len(content) if isinstance(content, bytes) else os.path.getsize(content)
            what = "not an image of a known format" if size else "empty"
            error = InputError(f"{name or 'this'} is {what}")
        elif isinstance(error, Image.DecompressionBombError):
            error = TooLargeError(
                f"this image has more than {reading.limit:,} pixels; max_pixels raises that"
            )
        yield _failure(name, None if page is None else page + 1, error)


def _head(content: str | bytes) -> bytes:
    if isinstance(content, str):
        with open(content, "rb") as file:
            return file.read(1024)
    return content[:1024]


def _is_pdf(head: bytes) -> bool:
    return b"%PDF-" in head  # PDF readers look for it in the first 1,024 bytes


def _from_video(
    source: str | bytes | int, name: str | None, reading: Reading
) -> Iterator[Frame | SegFailure]:
    index = 0
    try:
        with (
            tempfile.TemporaryDirectory() if isinstance(source, bytes) else nullcontext() as folder
        ):
            if isinstance(source, bytes):
                file = os.path.join(folder or "", "video")  # FFmpeg needs a file
                Path(file).write_bytes(source)
                source = file
            for image in video.read(source, upright=reading.exif, max_pixels=reading.limit):
                yield Frame(image, name, index)
                index += 1
    except Exception as error:
        yield _failure(name, None, error)


def _failure(name: str | None, page: int | None, error: Exception) -> SegFailure:
    """The failure of one image, with an error that includes the file name, if there is one."""
    if isinstance(error, MemoryError):
        error = TooLargeError("it takes too much memory to decode")
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"it can't be read: {reason}"
    if name is not None and name not in reason:
        reason = f"{name}: {reason}" if page is None else f"{name}, page {page}: {reason}"
    kind = type(error) if isinstance(error, InputError) else InputError
    return SegFailure(name, page, kind(reason))


def _pdf_pages(content: str | bytes, reading: Reading) -> Iterator[tuple[int, _Pixels | Exception]]:
    import pypdfium2

    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError(
                    "this PDF is encrypted: save it without a password first"
                ) from None
            raise InputError("this PDF is damaged") from None
        document.init_forms()  # so that filled-in form fields are drawn
        count = len(document)
    try:
        if not count:
            raise InputError("this PDF has no pages")
        for page in range(min(count, MAX_PAGES)):
            with _PDFIUM:
                image = _attempt(partial(_pdf_page, document, page, reading))
            yield page, image
        if count > MAX_PAGES:
            raise InputError(f"this PDF has {count} pages: those from {MAX_PAGES} on are skipped")
    finally:
        with _PDFIUM:
            document.close()


def _pdf_page(document: Any, index: int, reading: Reading) -> _Pixels:
    page = document[index]
    try:
        width, height = page.get_size()
        reading.check(int(width * reading.pdf_scale), int(height * reading.pdf_scale))
        bitmap = page.render(scale=reading.pdf_scale)
        image = from_array(bitmap.to_numpy()).copy()  # the bitmap's memory belongs to PDFium
        bitmap.close()
        return image
    finally:
        page.close()


def _image_frames(
    content: str | bytes, reading: Reading
) -> Iterator[tuple[int | None, _Pixels | Exception]]:
    with _contents(content) as data:
        structure.check(data, reading.limit)
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with _opened(file, reading) as image:
        if image.format != "TIFF":
            yield None, _from_file(image, reading)
            return
        for page in range(MAX_PAGES):
            try:
                with _raised_limit(reading):
                    image.seek(page)  # counting the frames would read all of their headers
            except EOFError:
                return
            yield page, _attempt(partial(_tiff_frame, image, page, file, reading))
    raise InputError(f"this TIFF has more than {MAX_PAGES} frames: the others are skipped")


@contextmanager
def _contents(content: str | bytes) -> Iterator[structure.Data]:
    """The bytes of a file, mapped rather than read."""
    if isinstance(content, bytes) or not os.path.getsize(content):
        yield content if isinstance(content, bytes) else b""
        return
    with open(content, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _tiff_frame(image: Image.Image, page: int, file: str | io.BytesIO, reading: Reading) -> _Pixels:
    if image.width * image.height <= MAX_PIXELS:
        return _from_file(image, reading)
    # Closing an image frees its memory; `image`, which stays open, would keep it.
    with _opened(file, reading) as alone:
        with _raised_limit(reading):
            alone.seek(page)
            alone.load()  # checks the limit once more
        return _from_file(alone, reading)


@contextmanager
def _opened(file: str | io.BytesIO, reading: Reading) -> Iterator[Image.Image]:
    with _raised_limit(reading):
        image = Image.open(file, formats=_FORMATS)
    try:
        yield image
    finally:
        image.close()


@contextmanager
def _raised_limit(reading: Reading) -> Iterator[None]:
    """Raise Pillow's pixel limit where `reading` allows more."""
    if reading.limit <= MAX_PIXELS:
        yield
        return
    with _PILLOW:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, reading.limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _attempt(read: Callable[[], _Pixels]) -> _Pixels | Exception:
    try:
        return read()
    except Exception as error:
        return error


def _from_file(image: Image.Image, reading: Reading) -> _Pixels:
    reading.check(*image.size)
    image.load()
    if reading.exif:
        try:
            _turn_upright(image, reading)
        except Exception:  # parsing garbage raises almost anything; the pixels are intact
            log.warning(
                "%s: its EXIF data is damaged, so its orientation is ignored",
                getattr(image, "filename", "") or "an image",
            )
    return _from_pil(image, reading)


def _turn_upright(image: Image.Image, reading: Reading) -> None:
    """Apply the orientation in the EXIF data."""
    info = image.info
    if "exif" not in info and "Raw profile type exif" in info:  # written by ImageMagick
        lines = info["Raw profile type exif"].split("\n")[3:]
        info["exif"] = bytes.fromhex("".join(lines))
    data = info.get("exif", b"").removeprefix(b"Exif\0\0")
    structure.check_tags(data, "EXIF data", reading.limit)
    image.getexif()  # keeps what it reads
    # Otherwise Pillow would read the data again, with all linked directories, to write it anew.
    info.pop("exif", None)
    info.pop("Raw profile type exif", None)
    ImageOps.exif_transpose(image, in_place=True)


def _from_pil(image: Image.Image, reading: Reading) -> _Pixels:
    """Convert to BGR: palettes and CMYK are resolved, alpha is dropped; else as `from_array`."""
    reading.check(*image.size)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        low, high = int(grey.min()), int(grey.max())
        if low < 0 or high > 65_535:
            raise InputError(
                f"an image of 32-bit integers must be from 0 to 65535, but it is from {low} to "
                f"{high}"
            )
        return from_array(grey.astype(np.uint16))
    if image.mode == "F":
        return from_array(np.asarray(image))
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    width, height = rgb.size
    bgr = np.empty((height, width, 3), np.uint8)
    step = _BAND // width + 1
    for top in range(0, height, step):
        band = rgb.crop((0, top, width, min(top + step, height)))
        pixels = np.frombuffer(band.tobytes("raw", "BGR"), np.uint8)
        bgr[top : top + step] = pixels.reshape(-1, width, 3)
    return bgr


def one_image(content: bytes, reading: Reading = Reading()) -> _Pixels:
    """Decode the bytes of a file that must contain exactly one image: no PDF, no video.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: it contains anything else.
        TooLargeError: it has more pixels than `reading` allows.
    """
    if _is_pdf(content[:1024]):
        raise InputError("this is a PDF: send each page as an image")
    if video.is_video(content):
        raise InputError("this is a video: send each frame as an image")
    found = list(islice(_decode(content, None, reading), 2))
    if len(found) != 1:
        what = "several images" if found else "no image"
        raise InputError(f"this holds {what}: send one at a time")
    if isinstance(found[0], SegFailure):
        raise found[0].error
    return found[0].image
