"""Turns inputs of any kind into a lazy sequence of frames, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from numbers import Number
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from PIL import Image, UnidentifiedImageError

from segrt import http, pdf, pillow_file, structure, tiff, video
from segrt.arrays import (
    SupportsArray,
    SupportsDLPack,
    as_numpy,
    from_array,
    from_bands,
    is_array,
)
from segrt.errors import ConfigError, InputError, MissingExtraError, TooLargeError
from segrt.folders import find_images
from segrt.formats import HEAD, READ_SUFFIXES, VIDEO_SUFFIXES, is_pdf, is_tiff
from segrt.frame import Frame, SegFailure
from segrt.names import is_url
from segrt.reading import Page, Pixels, Reading, attempt
from segrt.types import Color


class SupportsFrame(Protocol):
    """An image that reads itself, such as `segrt.geo.Raster`."""

    def read_frame(self, reading: Reading) -> Frame:
        """The image."""


class SupportsRead(Protocol):
    """A file opened in binary mode."""

    def read(self) -> bytes:
        """Its content, from the current position."""


Source: TypeAlias = (
    "str | os.PathLike[str] | int | bytes | bytearray | memoryview | Image.Image | SupportsArray "
    "| SupportsDLPack | SupportsFrame | SupportsRead | Frame | SegFailure | Iterable[Source]"
)
"""What `frames` reads."""


def frames(
    source: object,
    reading: Reading = Reading(),
    color: Color = "bgr",
    bands: tuple[str, ...] = (),
) -> Iterator[Frame | SegFailure]:
    """Read images one by one, in order. An unreadable one becomes a SegFailure in its position.

    The format is detected from the content, not from the name. Every page of a PDF, and every frame
    of a TIFF, an animation (GIF, APNG, WebP, AVIF) or a video is an image; of other files with
    several images, the first is read. Overviews and masks in a TIFF are not images. Videos in
    folders are left out.

    Example:
        >>> for frame in frames(["photos/", "scan.pdf", array]):
        ...     print(frame.input_path, frame.page_index)

    Args:
        source: a file or folder (str or Path), an http(s) URL, a camera (0, or "camera:0"), the
            bytes of a file, an opened file, an array of any library (see `from_array`), a PIL
            image (used as is, without regard to EXIF), what this function yields, or an iterable
            of these, nested to any depth.
        reading: how files are read.
        color: the order of the channels of arrays.
        bands: the names of the channels of arrays, which are then read by `from_bands`; empty if
            arrays are pictures.
    """
    if isinstance(source, os.PathLike):
        source = os.fsdecode(source)
    if isinstance(source, (Frame, SegFailure)):
        yield source
    elif isinstance(source, str) and is_url(source):
        yield from _from_url(source, reading)
    elif (index := video.camera_index(source)) is not None:
        yield from _from_video(index, f"camera:{index}", reading)
    elif isinstance(source, str):
        yield from _from_path(source, reading)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield from _decode(bytes(source), None, reading)
    elif isinstance(source, Image.Image):
        image = source
        yield _framed(attempt(lambda: pillow_file.from_pil(image, reading)))
    elif callable(getattr(source, "read_frame", None)):
        yield _from_frame(source, reading)
    elif is_array(source):
        yield from _from_arrays(source, reading, color, bands)
    elif callable(getattr(source, "read", None)):
        yield from _from_file(source, reading)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        yield from _from_items(source, reading, color, bands)
    else:
        error = InputError(
            f"an input of type {type(source).__name__} can't be read: give a path, a folder, a "
            "URL, the number of a camera, bytes, an array, a PIL image or a list of these"
        )
        yield SegFailure(None, None, error)


def is_likely_single(source: object) -> bool:
    """Whether a source is likely to give one image only, so that nothing can be read ahead.

    Example:
        >>> is_likely_single("road.png"), is_likely_single(["a.png", "b.png"])
        (True, False)
    """
    if isinstance(source, (list, tuple)):
        return len(source) == 1 and is_likely_single(source[0])
    if isinstance(source, (str, os.PathLike)):
        suffix = Path(os.fsdecode(source)).suffix.lower()
        return suffix in READ_SUFFIXES and not os.path.isdir(source)
    if isinstance(source, (bytes, bytearray, memoryview, Image.Image)):
        return True
    if callable(getattr(source, "read_frame", None)):
        return True
    return getattr(source, "ndim", 0) in (2, 3)


def _from_items(
    source: Iterable[object], reading: Reading, color: Color, bands: tuple[str, ...]
) -> Iterator[Frame | SegFailure]:
    if isinstance(source, (list, tuple)) and len(source) > 1 and _are_numbers(source[:2]):
        what = "a list of numbers can't be read: pass an array, as np.asarray(list)"
        yield SegFailure(None, None, InputError(what))
        return
    try:
        items = iter(source)
    except Exception as reason:
        what = f"this {type(source).__name__} can't be iterated: {reason}"
        yield _failure(None, None, InputError(what))
        return
    for item in items:
        yield from frames(item, reading, color, bands)


def _are_numbers(items: Iterable[object]) -> bool:
    """Rows of pixels, say: one number alone is a camera, after whose frames nothing comes."""
    return all(isinstance(item, Number) for item in items)


def _framed(image: Pixels | Exception) -> Frame | SegFailure:
    """An image without a name."""
    return _failure(None, None, image) if isinstance(image, Exception) else Frame(image, None)


def _from_arrays(
    source: object, reading: Reading, color: Color, bands: tuple[str, ...]
) -> Iterator[Frame | SegFailure]:
    """One image; or a NumPy array or a pandas series of paths and other objects."""
    try:
        array = as_numpy(source)
    except InputError as error:
        yield _failure(None, None, error)
        return
    if array.ndim == 1 and array.dtype.kind in "OUT":
        for item in array.tolist():
            yield from frames(item, reading, color, bands)
    elif bands:
        image = attempt(lambda: from_bands(array, bands))
        if isinstance(image, Exception):
            yield _failure(None, None, image)
        else:
            yield Frame(image, None, bands=bands)
    else:
        yield _framed(attempt(lambda: from_array(array, color)))


def _from_frame(source: Any, reading: Reading) -> Frame | SegFailure:
    """The image of an object that reads itself."""
    try:
        frame: Frame = source.read_frame(reading)
    except Exception as error:
        return _failure(str(getattr(source, "path", "")) or None, None, error)
    return frame


def _from_file(file: Any, reading: Reading) -> Iterator[Frame | SegFailure]:
    """The images of an opened file, from its current position."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else None
    try:
        content = file.read()
        if not isinstance(content, bytes):
            raise InputError(
                "reading it does not return bytes: open the file in binary mode, as open(path, "
                "'rb')"
            )
    except Exception as error:
        yield _failure(name, None, error)
    else:
        yield from _decode(content, name, reading)


def _from_path(path: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    if os.path.isdir(path):
        yield from _from_folder(path, reading)
    elif not os.path.exists(path):
        yield SegFailure(path, None, InputError(f"{path or repr(path)} does not exist"))
    elif not os.path.isfile(path):  # opening a pipe could block forever
        yield SegFailure(path, None, InputError(f"{path} is not a file"))
    else:
        yield from _decode(path, path, reading)


def _from_folder(folder: str, reading: Reading) -> Iterator[Frame | SegFailure]:
    try:
        found = find_images(folder)
    except OSError as error:
        yield _failure(folder, None, error)
        return
    if not found.files:
        others = f" (left out: {found.summary()})" if found.left_out else ""
        yield SegFailure(folder, None, InputError(f"the folder {folder} holds no image{others}"))
    found.warn(folder)
    for file in found.files:
        yield from _from_path(file, reading)


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
    index = -1
    try:
        head = _head(content)
        if video.is_video(head):
            yield from _from_video(content, name, reading)
            return
        for page in _pages(content, head, reading):
            index = -1 if page.index is None else page.index
            if isinstance(page.image, Exception):
                yield _failure(name, page.index, _explained(page.image, content, name, reading))
            else:
                yield Frame(page.image, name, page.index, page.time, geotags=page.geotags)
    except Exception as error:  # decoders raise almost anything on damaged files
        after = index + 1 if index >= 0 else None
        yield _failure(name, after, _explained(error, content, name, reading))


def _pages(content: str | bytes, head: bytes, reading: Reading) -> Iterator[Page]:
    if is_pdf(head):
        yield from pdf.pages(content, reading)
        return
    with pillow_file.contents(content) as data:
        structure.check(data, reading.limit)
    if is_tiff(head):
        yield from tiff.pages(content, reading)
    else:
        yield from pillow_file.images(content, head, reading)


def _explained(
    error: Exception, content: str | bytes, name: str | None, reading: Reading
) -> Exception:
    """Errors of Pillow in words of our own."""
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(content, name)
    if isinstance(error, Image.DecompressionBombError):
        return TooLargeError(
            f"this image has more than {reading.limit:,} pixels; max_pixels raises that"
        )
    return error


def _unidentified(content: str | bytes, name: str | None) -> InputError:
    size = len(content) if isinstance(content, bytes) else os.path.getsize(content)
    if not size:
        return InputError(f"{name or 'this'} is empty")
    what = f"{name or 'this'} is not an image of a known format"
    suffixes = READ_SUFFIXES | VIDEO_SUFFIXES | {".pdf"}
    if name is None or is_url(name) or Path(name).suffix.lower() in suffixes:
        return InputError(what)
    listed = " ".join(sorted(suffix[1:] for suffix in suffixes))
    return InputError(f"{what}; segrt reads {listed}")


def _head(content: str | bytes) -> bytes:
    if isinstance(content, str):
        with open(content, "rb") as file:
            return file.read(HEAD)
    return content[:HEAD]


def _from_video(
    source: str | bytes | int, name: str | None, reading: Reading
) -> Iterator[Frame | SegFailure]:
    where = "" if name is None else f"{name}, "
    try:
        pictures = video.read(source, upright=reading.exif, max_pixels=reading.limit)
        for index, picture in enumerate(pictures):
            if isinstance(picture, InputError):
                yield _failure(name, index, InputError(f"{where}frame {index}: {picture}"))
            else:
                yield Frame(picture.image, name, index, picture.time)
    except Exception as error:
        yield _failure(name, None, error)


def _failure(name: str | None, page: int | None, error: Exception) -> SegFailure:
    """The failure of one image, with an error that includes the file name, if there is one."""
    if isinstance(error, MemoryError):
        error = TooLargeError("it takes too much memory to decode")
    reason = " ".join(str(error).split()) or type(error).__name__
    kind = type(error) if isinstance(error, (InputError, MissingExtraError)) else InputError
    if not isinstance(error, kind):
        reason = f"it can't be read: {reason}"
    if name is not None and name not in reason:
        reason = f"{name}: {reason}" if page is None else f"{name}, page {page}: {reason}"
    return SegFailure(name, page, kind(reason))


def read_image(path: str | Path) -> Pixels:
    """Read an image file; of several pages, the first.

    Example:
        >>> read_image("road.png").shape
        (360, 480, 3)

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: the file can't be read.
    """
    frame = next(frames(path))
    if isinstance(frame, SegFailure):
        raise frame.error
    return frame.image


def one_page(content: bytes, index: int, reading: Reading = Reading()) -> tuple[Pixels, int]:
    """Decode one page of the bytes of a PDF, TIFF or animation; other images have one page.

    Args:
        content: the bytes of a file.
        index: zero-based page or frame, as in `frames`.
        reading: how files are read.

    Returns:
        tuple: the page, uint8 (H, W, 3) BGR, and the number of pages.

    Raises:
        ConfigError: the file has no such page.
        InputError: the page, or the file, can't be read; or it is a video.
        TooLargeError: the page has more pixels than `reading` allows.
    """
    head = content[:HEAD]
    if video.is_video(head):
        raise InputError("this is a video: send each frame as an image")
    try:
        if is_pdf(head):
            return pdf.page(content, index, reading)
        structure.check(content, reading.limit)
        if is_tiff(head):
            return tiff.page(content, index, reading)
        return pillow_file.page(content, head, index, reading)
    except ConfigError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        raise _failure(None, index, _explained(error, content, None, reading)).error from None


def one_image(content: bytes, reading: Reading = Reading()) -> Pixels:
    """Decode the bytes of a file that must contain exactly one image: no PDF, no video.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: it contains anything else.
        TooLargeError: it has more pixels than `reading` allows.
    """
    if is_pdf(content):
        raise InputError("this is a PDF: select a page with page=0, or send pages as images")
    if video.is_video(content):
        raise InputError("this is a video: send each frame as an image")
    found = list(islice(_decode(content, None, reading), 2))
    if len(found) != 1:
        what = "several images" if found else "no image"
        raise InputError(f"this holds {what}: send one at a time, or select one with page=0")
    if isinstance(found[0], SegFailure):
        raise found[0].error
    return found[0].image
