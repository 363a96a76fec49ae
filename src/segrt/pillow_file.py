"""Reads image files with Pillow."""

from __future__ import annotations

import io
import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps, features

from segrt import forks, structure
from segrt.arrays import from_array
from segrt.errors import InputError, MissingExtraError
from segrt.formats import is_avif, is_heif, pillow_formats
from segrt.reading import MAX_PAGES, Page, Pixels, Reading, check_page

log = logging.getLogger("segrt")

# Formats of animations and of faxes with several pages. Other formats hold further images too: the
# sizes of an icon, the layers of a PSD, the two views of a stereo photo; the first is the image.
_SEVERAL = ("AVIF", "DCX", "FLI", "GIF", "PNG", "WEBP")
_WITHOUT_TIME = ("DCX",)
# Pixels copied out of Pillow at once: the copy takes twice their bytes and should stay in cache.
_BAND = 1 << 18
_PILLOW = Lock()  # guards Pillow's pixel limit, which is a global
forks.hold(_PILLOW)


def images(content: str | bytes, head: bytes, reading: Reading) -> Iterator[Page]:
    """Decode a file of a format other than TIFF: one image, or each frame of an animation.

    Args:
        content: a file, or its bytes.
        head: its first bytes.
        reading: the limits, and whether to turn photos upright.

    Raises:
        InputError: it can't be read, or has more than `MAX_PAGES` frames.
        MissingExtraError: Pillow needs a plugin for it.
    """
    suffix = Path(content).suffix.lower() if isinstance(content, str) else ""
    formats = pillow_formats(head, suffix)
    _check_decoder(head)
    with _opened(content, reading, formats) as image:
        if image.format in _SEVERAL and getattr(image, "is_animated", False):
            yield from _frames(image, content, reading)
        else:
            yield Page(_pixels(image, reading))


def page(content: str | bytes, head: bytes, index: int, reading: Reading) -> tuple[Pixels, int]:
    """Decode one frame of an animation, or the image of another file; see `images`.

    Returns:
        tuple: the frame, uint8 (H, W, 3) BGR, and the number of frames that the file states.
        What is missing from a GIF that was cut off counts as one.

    Raises:
        ConfigError: there is no such frame.
    """
    suffix = Path(content).suffix.lower() if isinstance(content, str) else ""
    _check_decoder(head)
    with _opened(content, reading, pillow_formats(head, suffix)) as image:
        is_animated = image.format in _SEVERAL and getattr(image, "is_animated", False)
        count = int(getattr(image, "n_frames", 1)) if is_animated else 1
        if is_animated and _is_cut_off(image, content, count):
            count += 1  # where `images` has an error
        check_page(index, count)
        if is_animated:
            try:
                image.seek(index)
            except EOFError:
                raise InputError(f"this animation breaks off before frame {index}") from None
        return _pixels(image, reading), count


def _frames(image: Any, content: str | bytes, reading: Reading) -> Iterator[Page]:
    """Each frame of an animation, as shown: frames are drawn over earlier ones."""
    time = 0.0
    for index in range(MAX_PAGES):
        try:
            image.seek(index)
            reading.check(*image.size)
            # Turning the frame itself upright would spoil those drawn over it.
            pixels = _pixels(image.copy(), reading)
        except EOFError:
            if _is_cut_off(image, content, index):
                yield Page(InputError(f"this animation breaks off after {index} frames"), index)
            return
        except Exception as error:
            what = f"{error} (the frames after this one are drawn over it, and left out)"
            yield Page(InputError(what), index, time)
            return
        yield Page(pixels, index, None if image.format in _WITHOUT_TIME else time)
        time += float(image.info.get("duration") or 0) / 1000
    raise InputError(f"this file has more than {MAX_PAGES} frames: the others are skipped")


def _is_cut_off(image: Any, content: str | bytes, frames: int) -> bool:
    if image.format == "GIF":  # states no number of frames
        with contents(content) as data:
            return not structure.gif_is_complete(data)
    return bool(frames < image.n_frames)


def tiff_page(content: str | bytes, number: int, reading: Reading) -> Pixels:
    """Decode the page in a directory of a TIFF, given its position in the chain."""
    with _opened(content, reading, ("TIFF",)) as image:
        with _raised_limit(reading):
            image.seek(number)
            image.load()
        return _pixels(image, reading)


@contextmanager
def contents(content: str | bytes) -> Iterator[structure.Data]:
    """The bytes of a file, mapped rather than read."""
    if isinstance(content, bytes) or not os.path.getsize(content):
        yield content if isinstance(content, bytes) else b""
        return
    with open(content, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


@contextmanager
def _opened(
    content: str | bytes, reading: Reading, formats: tuple[str, ...]
) -> Iterator[Image.Image]:
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    Image.preinit()  # else Pillow 13 loads all its plugins to see whether a PNG is a JPEG
    with _raised_limit(reading):
        image = Image.open(file, formats=formats)
    try:
        yield image
    finally:
        image.close()


@contextmanager
def _raised_limit(reading: Reading) -> Iterator[None]:
    """Raise Pillow's pixel limit where `reading` allows more; Pillow itself allows twice that."""
    if reading.limit <= 2 * (Image.MAX_IMAGE_PIXELS or reading.limit):
        yield
        return
    with _PILLOW:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, reading.limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_decoder(head: bytes) -> None:
    """Load Pillow's plugin for HEIC photos, or tell how to install it."""
    if is_avif(head) and not features.check("avif"):
        raise MissingExtraError(
            f"Pillow {PIL.__version__} has no decoder for AVIF: run  pip install -U pillow"
        )
    if is_heif(head):
        try:
            import pillow_heif
        except ImportError:
            raise MissingExtraError(
                "HEIC and HEIF images need pillow-heif: run  pip install 'segrt[heif]'"
            ) from None
        pillow_heif.register_heif_opener()


def _pixels(image: Image.Image, reading: Reading) -> Pixels:
    """Decode an image that was opened, and turn it upright."""
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
    return from_pil(image, reading)


def _turn_upright(image: Image.Image, reading: Reading) -> None:
    """Apply the orientation in the EXIF data."""
    info = image.info
    if "exif" not in info and "Raw profile type exif" in info:  # written by ImageMagick
        lines = info["Raw profile type exif"].split("\n")[3:]
        info["exif"] = bytes.fromhex("".join(lines))
    data = (info.get("exif") or b"").removeprefix(b"Exif\0\0")
    structure.check_tags(data, "EXIF data", reading.limit)
    image.getexif()  # keeps what it reads
    # Otherwise Pillow would read the data again, with all linked directories, to write it anew.
    info.pop("exif", None)
    info.pop("Raw profile type exif", None)
    ImageOps.exif_transpose(image, in_place=True)


def from_pil(image: Image.Image, reading: Reading) -> Pixels:
    """Convert to BGR: palettes and CMYK are resolved, alpha is dropped; else as `from_array`.

    Raises:
        InputError: its values are out of range.
        TooLargeError: it has too many pixels.
    """
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
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of a conversion to RGB
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    width, height = rgb.size
    bgr = np.empty((height, width, 3), np.uint8)
    step = _BAND // width + 1
    for top in range(0, height, step):
        band = rgb.crop((0, top, width, min(top + step, height)))
        pixels = np.frombuffer(band.tobytes("raw", "BGR"), np.uint8)
        bgr[top : top + step] = pixels.reshape(-1, width, 3)
    return bgr
