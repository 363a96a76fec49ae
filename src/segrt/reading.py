"""How files are read: the options and limits of all decoders, and what they yield."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError, InputError, TooLargeError
from segrt.formats import GeoTags
from segrt.types import shown

MAX_PIXELS = 178_956_970
"""Default limit on the pixels of one image or PDF page; Pillow's own limit."""

MAX_PAGES = 10_000
"""Limit on the pages of a PDF and the frames of a TIFF or an animation."""

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""An image: uint8 (H, W, 3), BGR."""


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


def check_page(index: int, count: int) -> None:
    """Refuse a page that a file doesn't have.

    Args:
        index: zero-based.
        count: the number of pages; those from `MAX_PAGES` on are not read.

    Raises:
        ConfigError: there is no such page.
    """
    if index >= min(count, MAX_PAGES):
        have = "1 page, page 0" if count == 1 else f"{count} pages, from 0 to {count - 1}"
        more = f", and those from {MAX_PAGES} on are not read" if count > MAX_PAGES else ""
        raise ConfigError(f"there is no page {index}: this file has {have}{more}")


@dataclass(frozen=True, eq=False)
class Page:
    """One image of a file, or why it can't be read.

    Attributes:
        image: uint8 (H, W, 3), BGR; or the error.
        index: zero-based index of the page or frame; None for a format with a single image.
        time: seconds from the start of an animation; None for other formats.
        geotags: where it is, if it is a page of a GeoTIFF; see `segrt.formats.GEOTAGS`.
    """

    image: Pixels | Exception
    index: int | None = None
    time: float | None = None
    geotags: GeoTags | None = None


def attempt(read: Callable[[], Pixels]) -> Pixels | Exception:
    """The result of a function, or the exception that it raises."""
    try:
        return read()
    except Exception as error:  # decoders raise almost anything on damaged files
        return error
