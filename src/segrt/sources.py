"""Whatever the user names as input becomes a lazy sequence of frames, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segrt.errors import InputError
from segrt.result import IMAGE_SUFFIXES, SegFailure

MAX_PIXELS = 178_956_970
"""Most pixels of one image: where Pillow, too, stops believing that it is one."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        image: uint8 (H, W, 3), BGR.
        input_path: where it came from, as text; None for an array.
        page_index: page or frame, from 0; None where there is only one.
    """

    image: npt.NDArray[np.uint8]
    input_path: str | None
    page_index: int | None = None


def frames(source: object) -> Iterator[Frame | SegFailure]:
    """Read images one by one, in the order given; what can't be read becomes a SegFailure in its place.

    Args:
        source: a file or folder (str or Path), an image (array as `from_array` takes it, or PIL), or an iterable
            of these, nested as one likes.
    """
    if isinstance(source, (str, Path)):
        yield from _from_path(str(source))
    elif isinstance(source, np.ndarray):
        yield from _guard(None, lambda: Frame(from_array(source), None))
    elif isinstance(source, Image.Image):
        yield from _guard(None, lambda: Frame(_bgr(source), None))
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, dict)):
        for item in source:
            yield from frames(item)
    else:
        error = InputError(
            f"an input of type {type(source).__name__} can't be read: give a path, a folder, a uint8 array, a PIL image"
            " or a list of these"
        )
        yield SegFailure(None, None, error)


def from_array(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Bring an array to BGR.

    Args:
        array: uint8; (H, W) or (H, W, 1) grey, (H, W, 3) BGR, or (H, W, 4) BGR and alpha, which is dropped.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        InputError: another dtype or shape, or no pixels.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"an array of {array.dtype} {array.shape} is not an image: it must be uint8, (H, W) or (H, W, 1 | 3 | 4), "
            "colours in the order BGR"
        )
    _check_pixels(array.shape[1], array.shape[0])
    if channels == 1:
        array = np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return np.ascontiguousarray(array[:, :, :3], np.uint8)


def _from_path(path: str) -> Iterator[Frame | SegFailure]:
    if os.path.isdir(path):
        files = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if Path(name).suffix.lower() in IMAGE_SUFFIXES
        )
        if not files:
            known = " ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
            yield SegFailure(path, None, InputError(f"the folder {path} holds no image ({known})"))
        for file in files:
            yield from _guard(file, lambda file=file: Frame(_read(file), file))
    else:
        yield from _guard(path, lambda: Frame(_read(path), path))


def _guard(path: str | None, read: object) -> Iterator[Frame | SegFailure]:
    assert callable(read)
    try:
        yield read()
    except InputError as error:
        yield SegFailure(path, None, error)


def _read(path: str) -> npt.NDArray[np.uint8]:
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        known = " ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
        raise InputError(f"{path} has a suffix that is not an image's; segrt reads {known}")
    try:
        with Image.open(path) as image:
            _check_pixels(*image.size)
            return _bgr(ImageOps.exif_transpose(image))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        empty = "is empty" if os.path.getsize(path) == 0 else "is not an image of a known format"
        raise InputError(f"{path} {empty}") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} can't be read: {reason}") from None


def _bgr(image: Image.Image) -> npt.NDArray[np.uint8]:
    rgb = np.asarray(image.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"an image of {width} x {height} has more than {MAX_PIXELS:,} pixels")
    if width < 1 or height < 1:
        raise InputError("the image has no pixels")
