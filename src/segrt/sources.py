"""Whatever the user names as input becomes a lazy sequence of frames, in order."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Semaphore, Thread
from typing import Any, TypeAlias, TypeVar

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segrt import video
from segrt.download import public, redirected
from segrt.errors import ConfigError, DownloadError, InputError, TooLargeError
from segrt.result import IMAGE_SUFFIXES, SegFailure

log = logging.getLogger("segrt")

MAX_PIXELS = 178_956_970
"""Most pixels of one image file or PDF page: where Pillow, too, stops believing that it is one."""
MAX_PAGES = 10_000
"""Most pages of a PDF and frames of a TIFF."""
URL_SECONDS = 30.0
"""Longest time that one download may take."""
URL_BYTES = 256 << 20
"""Most bytes of one download."""

SUFFIXES = IMAGE_SUFFIXES | {".pdf"}
# Pillow's decoders of IMAGE_SUFFIXES. Others it must not try: its EPS one, say, starts Ghostscript.
_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "WEBP", "PPM", "SUN", "TIFF")
_BAND = (
    1 << 18
)  # pixels copied out of Pillow at once, which needs twice their bytes: few enough to stay in the cache
_PILLOW = Lock()  # over its limit of pixels, which is a global
_PDFIUM = Lock()  # PDFium must not be called by two threads at once

_Pixels: TypeAlias = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        image: uint8 (H, W, 3), BGR.
        input_path: where it came from, as text; None for what has no name, such as an array.
        page_index: page of a PDF, frame of a TIFF, a video or a camera, from 0; None for the other formats.
    """

    image: _Pixels
    input_path: str | None
    page_index: int | None = None


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        exif: turn a photo the way its EXIF orientation says, and a video the way it says itself. A TIFF is always
            turned the way its own tag says.
        pdf_scale: pixels to one point (1/72 inch) of a PDF page: 2 is 144 dpi.
        max_pixels: most pixels of one image, page or frame; None for `MAX_PIXELS`. Raise it for files that are trusted.
    """

    exif: bool = True
    pdf_scale: float = 2.0
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.pdf_scale, (int, float)) and 0 < self.pdf_scale <= 100):
            raise ConfigError(
                f"pdf_scale {self.pdf_scale!r} is not valid: it must be above 0 and at most 100"
            )
        if self.max_pixels is not None and not (
            type(self.max_pixels) is int and self.max_pixels > 0
        ):
            raise ConfigError(
                f"max_pixels {self.max_pixels!r} is not valid: it must be a whole number from 1"
            )

    @property
    def limit(self) -> int:
        """The most pixels of one image."""
        return MAX_PIXELS if self.max_pixels is None else self.max_pixels

    def check(self, width: int, height: int) -> None:
        """Refuse an image before its pixels are read.

        Raises:
            InputError: it has no pixels.
            TooLargeError: it has too many.
        """
        if width * height > self.limit:
            raise TooLargeError(
                f"an image of {width} x {height} has more than {self.limit:,} pixels; max_pixels raises that"
            )
        if width < 1 or height < 1:
            raise InputError("the image has no pixels")


def frames(source: object, reading: Reading = Reading()) -> Iterator[Frame | SegFailure]:
    """Read images one by one, in the order given; what can't be read becomes a SegFailure in its place.

    What a file, a URL's answer or bytes hold is told by their content. Every page of a PDF and every frame of a TIFF
    or a video is an image; of other formats that hold several, the first is. In folders videos are left out.

    Args:
        source: a file or folder (str or Path), an http(s) URL, the number of a camera (0, or "camera:0"), bytes of a
            file, an array as `from_array` takes it, a PIL image (taken as it stands, without regard to EXIF), or an
            iterable of these, nested as one likes.
        reading: how files are read.
    """
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield from _from_url(source, reading)
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
        yield _failure(None, None, image) if isinstance(image, Exception) else Frame(image, None)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        for item in source:
            yield from frames(item, reading)
    else:
        error = InputError(
            f"an input of type {type(source).__name__} can't be read: give a path, a folder, a URL, the number of a"
            " camera, bytes, an array, a PIL image or a list of these"
        )
        yield SegFailure(None, None, error)


def ahead(items: Iterator[_Item], size: int) -> Generator[_Item, None, None]:
    """Let a thread take items before they are asked for, in order; it ends when the iterator that this gives is closed.

    Args:
        items: the thread alone runs this iterator, and closes it; what it raises is raised in its place.
        size: how many items at most may be taken that were not asked for yet.
    """
    free, ready, closed = Semaphore(size), SimpleQueue[tuple[Any, BaseException | None]](), Event()

    def work() -> None:
        try:
            while free.acquire() and not closed.is_set():
                ready.put((next(items), None))
        except BaseException as error:  # StopIteration too: it ends the consumer
            ready.put((None, error))
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = Thread(target=work, name="segrt-read", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield item
    finally:
        closed.set()
        free.release()
        thread.join(
            1
        )  # so that a caller may close what `items` reads from; not for ever, since that may hang


def in_threads(
    work: Callable[[_Item], _Done], items: Iterator[_Item], threads: int
) -> Generator[_Done, None, None]:
    """Do work on items in several threads, and give what comes of them in order.

    Args:
        work: what it raises is raised in its place.
        items: as for `ahead`.
        threads: how many, which is also the most items under way.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="segrt-work") as pool:
        futures = ahead((pool.submit(work, item) for item in items), max(1, threads - 1))
        with closing(futures):
            for future in futures:
                yield future.result()


def from_array(array: npt.NDArray[Any]) -> _Pixels:
    """Bring an array to 8-bit BGR.

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) BGR, or (H, W, 4) BGR and alpha, which is dropped as OpenCV does.
            uint8: taken as it is, and not copied where it can be used in place, which a memory-mapped one can.
            uint16: its upper 8 bits. Float: from 0 to 1, times 255, rounded. bool: 0 and 255.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: another dtype or shape, no pixels, or floats that are not in [0, 1].
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image: it must be (H, W) or (H, W, 1 | 3 | 4), colours in the"
            " order BGR"
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
        if not (low >= 0 and high <= 1):  # NaN, too, is neither
            raise InputError(
                f"an array of {array.dtype} must be from 0 to 1, but it is from {low:g} to {high:g}: scale it, or"
                " convert it to uint8"
            )
        return np.asarray(np.rint(array * array.dtype.type(255)), np.uint8)
    raise InputError(
        f"an array of {array.dtype} is not an image: it must be uint8, uint16, bool, or float from 0 to 1"
    )


def _from_path(path: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    if os.path.isdir(path):
        files = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
        if not files:
            yield SegFailure(
                path, None, InputError(f"the folder {path} holds no image ({_known(SUFFIXES)})")
            )
        for file in files:
            yield from _from_path(file, reading)
    elif not os.path.exists(path):
        yield SegFailure(path, None, InputError(f"{path} does not exist"))
    elif Path(path).suffix.lower() not in SUFFIXES | video.SUFFIXES:
        error = InputError(
            f"{path} has a suffix that is not an image's; segrt reads {_known(SUFFIXES | video.SUFFIXES)}"
        )
        yield SegFailure(path, None, error)
    elif not os.path.isfile(path):  # to open a pipe could wait for ever
        yield SegFailure(path, None, InputError(f"{path} is not a file"))
    else:
        yield from _decode(path, path, reading)


def _known(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(s[1:] for s in suffixes))


def _from_url(url: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    try:
        content = download(url)
    except Exception as error:
        yield _failure(url, None, error)
    else:
        yield from _decode(content, url, reading)


def download(
    url: str,
    *,
    transport: httpx.BaseTransport | None = None,
    seconds: float | None = None,
    max_bytes: int | None = None,
) -> bytes:
    """Read what a URL answers.

    Args:
        url: http or https; redirects are followed, but not from https to http.
        transport: what makes the connections; None for httpx's own, with the proxies that the environment names.
        seconds: longest time; None for `URL_SECONDS`.
        max_bytes: most bytes; None for `URL_BYTES`.

    Raises:
        InputError: it can't be downloaded.
        TooLargeError: it is larger than that.
    """
    seconds = URL_SECONDS if seconds is None else seconds
    max_bytes = URL_BYTES if max_bytes is None else max_bytes
    shown = public(url)
    late = InputError(f"{shown} took more than {seconds:g} s to download")
    deadline = time.monotonic() + seconds
    parts, size = [], 0
    try:
        with (
            httpx.Client(
                transport=transport, trust_env=transport is None, timeout=seconds
            ) as client,
            redirected(client, url) as response,
        ):
            if not response.is_success:
                raise InputError(
                    f"{shown} can't be downloaded: the server answers {response.status_code}"
                )
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise TooLargeError(f"{shown} is larger than {max_bytes / 2**20:g} MiB")
                if time.monotonic() > deadline:
                    raise late
    except httpx.TimeoutException:
        raise late from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"{shown} can't be downloaded: {error}") from None
    except DownloadError as error:
        raise InputError(str(error)) from None
    return b"".join(parts)


def _decode(
    content: str | bytes, name: str | None, reading: Reading
) -> Iterator[Frame | SegFailure]:
    """Every image of a file, given by its path or by what stands in it."""
    page = None
    try:
        head = _head(content)
        if video.is_video(head):
            yield from _from_video(content, name, reading)
            return
        # where every reader looks for it
        for page, image in (_pdf_pages if b"%PDF-" in head else _image_frames)(content, reading):
            yield (
                _failure(name, page, image)
                if isinstance(image, Exception)
                else Frame(image, name, page)
            )
    except Exception as error:  # decoders raise nearly anything on damaged files
        if isinstance(error, UnidentifiedImageError):
            size = len(content) if isinstance(content, bytes) else os.path.getsize(content)
            error = InputError(
                f"{name or 'this'} is {'not an image of a known format' if size else 'empty'}"
            )
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


def _from_video(
    source: str | bytes | int, name: str | None, reading: Reading
) -> Iterator[Frame | SegFailure]:
    index = 0
    try:
        with (
            tempfile.TemporaryDirectory() if isinstance(source, bytes) else nullcontext() as folder
        ):
            if isinstance(source, bytes):
                file = os.path.join(folder or "", "video")  # FFmpeg wants a file
                Path(file).write_bytes(source)
                source = file
            for image in video.read(source, upright=reading.exif, max_pixels=reading.limit):
                yield Frame(image, name, index)
                index += 1
    except Exception as error:
        yield _failure(name, None, error)


def _failure(name: str | None, page: int | None, error: Exception) -> SegFailure:
    """The failure of one image, with an error that names the file; arrays and bytes have no name."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"it can't be read: {reason}"
    if name is not None and name not in reason:
        reason = f"{name}: {reason}" if page is None else f"{name}, page {page}: {reason}"
    return SegFailure(
        name, page, (type(error) if isinstance(error, InputError) else InputError)(reason)
    )


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
        document.init_forms()  # so that what was filled in is drawn
        count = len(document)
    try:
        if not count:
            raise InputError("this PDF has no pages")
        for page in range(min(count, MAX_PAGES)):
            with _PDFIUM:
                image = _attempt(partial(_pdf_page, document, page, reading))
            yield page, image
        if count > MAX_PAGES:
            raise InputError(f"this PDF has {count} pages: those from {MAX_PAGES} on are left out")
    finally:
        with _PDFIUM:
            document.close()


def _pdf_page(document: Any, index: int, reading: Reading) -> _Pixels:
    page = document[index]
    try:
        width, height = page.get_size()
        reading.check(int(width * reading.pdf_scale), int(height * reading.pdf_scale))
        bitmap = page.render(scale=reading.pdf_scale)
        image = from_array(bitmap.to_numpy()).copy()  # the bitmap's memory is PDFium's
        bitmap.close()
        return image
    finally:
        page.close()


def _image_frames(
    content: str | bytes, reading: Reading
) -> Iterator[tuple[int | None, _Pixels | Exception]]:
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with _opened(file, reading) as image:
        if image.format != "TIFF":
            yield None, _from_file(image, reading)
            return
        for page in range(MAX_PAGES):
            try:
                with _limit(reading):
                    image.seek(
                        page
                    )  # asking for the number of frames would read all of their headers
            except EOFError:
                return
            yield page, _attempt(partial(_tiff_frame, image, page, file, reading))
    raise InputError(f"this TIFF has more than {MAX_PAGES} frames: the others are left out")


def _tiff_frame(image: Image.Image, page: int, file: str | io.BytesIO, reading: Reading) -> _Pixels:
    if image.width * image.height <= MAX_PIXELS:
        return _from_file(image, reading)
    with _opened(
        file, reading
    ) as alone:  # an image that is closed gives its memory back; `image` would keep it
        with _limit(reading):
            alone.seek(page)
            alone.load()  # checks once more
        return _from_file(alone, reading)


@contextmanager
def _opened(file: str | io.BytesIO, reading: Reading) -> Iterator[Image.Image]:
    with _limit(reading):
        image = Image.open(file, formats=_FORMATS)
    try:
        yield image
    finally:
        image.close()


@contextmanager
def _limit(reading: Reading) -> Iterator[None]:
    """Let Pillow open what is larger than it believes."""
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
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:  # parsing nonsense may raise nearly anything; the picture itself is whole
            log.warning(
                "%s: its EXIF data is damaged, so its orientation is ignored",
                getattr(image, "filename", "") or "an image",
            )
    return _from_pil(image, reading)


def _from_pil(image: Image.Image, reading: Reading) -> _Pixels:
    """Flatten to BGR: palettes and CMYK are looked up, alpha is dropped, 16 bits and floats are as in `from_array`."""
    reading.check(*image.size)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        low, high = int(grey.min()), int(grey.max())
        if low < 0 or high > 65_535:
            raise InputError(
                f"an image of 32-bit integers must be from 0 to 65535, but it is from {low} to {high}"
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
        bgr[top : top + step] = np.frombuffer(band.tobytes("raw", "BGR"), np.uint8).reshape(
            -1, width, 3
        )
    return bgr


def one_image(content: bytes, reading: Reading = Reading()) -> _Pixels:
    """Read bytes of a file that must hold one image: no PDF, no video, and no TIFF with several frames.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: they don't.
        TooLargeError: it has more pixels than `reading` allows.
    """
    if b"%PDF-" in content[:1024]:  # where every reader looks for it
        raise InputError("this is a PDF: send each page as an image")
    if video.is_video(content):
        raise InputError("this is a video: send each frame as an image")
    found = list(islice(_decode(content, None, reading), 2))
    if len(found) != 1:
        raise InputError(
            f"this holds {'several images' if found else 'no image'}: send one at a time"
        )
    if isinstance(found[0], SegFailure):
        raise found[0].error
    return found[0].image
