"""Image and video formats: their suffixes, and what the first bytes of a file say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

IMAGE_SUFFIXES = frozenset(
    {
        *(".bmp", ".dib", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
        *(".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes of image files that segrt reads and writes."""

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
    }
)
"""Suffixes of video files that segrt reads."""

GeoTags: TypeAlias = Mapping[int, "tuple[float, ...] | str"]
"""The values of tags of a GeoTIFF, by their numbers."""

_SHORT, _ASCII, _DOUBLE = 3, 2, 12
GEOTAGS = {
    33550: _DOUBLE,  # ModelPixelScale
    33922: _DOUBLE,  # ModelTiepoint
    34264: _DOUBLE,  # ModelTransformation
    34735: _SHORT,  # GeoKeyDirectory
    34736: _DOUBLE,  # GeoDoubleParams
    34737: _ASCII,  # GeoAsciiParams
}
"""The tags of a GeoTIFF that say where it is, and the type of their values."""

# Pillow's formats that are recognised by the first bytes of a file, whatever its name. Those that
# Pillow loads at once come first.
_BY_CONTENT = {
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".apng", ".png"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "DDS": (".dds",),
    "ICNS": (".icns",),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".bw", ".rgb", ".rgba", ".sgi"),
    "SUN": (".ras", ".sr"),
}
_PLUGIN = {"HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif")}
# Those whose first bytes other files may have as well: only their suffixes select them.
_BY_SUFFIX = {
    "BLP": (".blp",),
    "CUR": (".cur",),
    "DCX": (".dcx",),
    "DIB": (".dib",),
    "FLI": (".flc", ".fli"),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "ICO": (".ico",),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PCX": (".pcx",),
    "PIXAR": (".pxr",),
    "TGA": (".icb", ".tga", ".vda", ".vst"),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
NOT_READ = {
    "BUFR": "Pillow has no decoder",
    "EPS": "it is a program, which Ghostscript would run",
    "FITS": "Pillow ignores the sign and scale of its values",
    "GRIB": "Pillow has no decoder",
    "HDF5": "Pillow has no decoder",
    "IM": "Pillow is about to drop it",
    "IPTC": "it is metadata",
    "MPEG": "it is a video",
    "WMF": "Windows alone can draw it",
}
"""Pillow's formats that segrt does not read, and why."""

FORMATS = _BY_CONTENT | _PLUGIN | _BY_SUFFIX
"""Pillow's formats that segrt reads, with their suffixes."""

READ_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Suffixes of image files that segrt reads."""

HEAD = 1024
"""Number of bytes at the start of a file that tell its format."""

_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0"
    rb"|P[1-6Ff]\s|qoif|8BPS\x00\x01|DDS |icns"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|\x59\xa6\x6a\x95|\x01\xda[\x00\x01][\x01\x02]",
    re.DOTALL,
)
_ONE_IMAGE = re.compile(rb"\xff\xd8\xff|BM|P[1-6]\s")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def pillow_formats(head: bytes, suffix: str) -> tuple[str, ...]:
    """Pillow's formats that a file may have, given its first bytes and its suffix in lower case."""
    if is_heif(head):
        return (*_PLUGIN,)
    return (*_BY_CONTENT, *(name for name, own in _BY_SUFFIX.items() if suffix in own))


def is_pdf(head: bytes) -> bool:
    """Whether a file is a PDF: readers look for the mark in the first 1,024 bytes."""
    return b"%PDF-" in head[:HEAD]


def is_tiff(head: bytes) -> bool:
    """Whether a file is a TIFF or a BigTIFF."""
    return head.startswith(_TIFF)


def is_avif(head: bytes) -> bool:
    """Whether a file is an AVIF image, which old versions of Pillow can't read."""
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return head[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def is_heif(head: bytes) -> bool:
    """Whether a file is a HEIC or HEIF image, for which Pillow requires a plugin."""
    brands = (
        *(b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx"),
        *(b"mia1", b"mif1", b"msf1"),
    )
    return head[4:8] == b"ftyp" and head[8:12] in brands and not is_avif(head)


def is_image(head: bytes) -> bool:
    """Whether a file is an image or a PDF of a format recognised by its first bytes."""
    kinds = (is_pdf, is_tiff, is_avif, is_heif)
    return any(is_kind(head) for is_kind in kinds) or _IMAGE.match(head) is not None


def has_one_image(head: bytes) -> bool:
    """Whether a file is certainly read as one image: a JPEG, BMP, PNM, or a PNG that stands still.

    Args:
        head: of a PNG, enough to reach the first pixels.
    """
    if head.startswith(b"\x89PNG"):
        return b"IDAT" in head and b"acTL" not in head
    return _ONE_IMAGE.match(head) is not None


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image or a PDF."""
    suffix = lower_suffix(name)
    return suffix == ".pdf" or suffix in READ_SUFFIXES


def lower_suffix(name: str) -> str:
    """The suffix of a path in lower case; faster than pathlib, for a million names.

    Example:
        >>> lower_suffix("photos/a.JPG"), lower_suffix("photos/a")
        ('.jpg', '')
    """
    return os.path.splitext(name)[1].lower() or Path(name).suffix.lower()
