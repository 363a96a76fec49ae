"""Limits on the structure of image files, checked before a decoder sees them.

The cost of decoding depends on more than the number of pixels: a JPEG of 341 KB can have 10,000
scans, each of which visits every pixel. `check` counts such parts with searches that are linear in
the size of the file. It refuses what no camera or program writes, and leaves damage of any other
kind to the decoders.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.errors import TooLargeError

Data: TypeAlias = bytes | mmap.mmap
"""The contents of a file."""

MAX_SCANS = 100
"""Maximum scans of a JPEG; progressive ones usually have 10."""

MAX_SEGMENTS = 1000
"""Maximum segments before the first scan of a JPEG: tables and metadata."""

MAX_EXIF_SEGMENTS = 64
"""Maximum segments of EXIF data of a JPEG, which Pillow joins one by one."""

MAX_RESOURCES = 10_000
"""Maximum Photoshop resources of a JPEG, which Pillow lists in Python."""

MAX_CHUNKS = 100_000
"""Maximum chunks of a PNG or WebP; PNGs usually have one per 8 KiB."""

MAX_METADATA = 256
"""Maximum chunks of a PNG that hold neither pixels nor animation."""

MAX_TAGS = 1000
"""Maximum tags of a TIFF frame or of EXIF data."""

MAX_NUMBERS = 100_000
"""Maximum numbers of a TIFF tag, such as the offsets of strips or tiles."""

RLE_PIXELS = 16
"""Pixels of the largest image allowed per byte of run-length encoding that a BMP may have."""

TEXT_PIXELS = 8
"""Pixels of the largest image allowed per byte of a PNM file with pixels as text.

Pillow decodes these two in Python: with a limit of 16 million pixels they take up to 0.5 s.
"""

MAX_COMMENTS = 1000
"""Maximum comments of a PNM file with pixels as text."""

MAX_HEADER = 64 << 10
"""Maximum bytes before the pixels of a PNM or BMP file."""

# A JPEG may have this many scans at any size; more, while together they visit as many pixels as
# two scans of the largest image allowed.
_USUAL_SCANS = 20
_MAX_DIRECTORIES = 10_000
# Tags may share data, so their sizes can add up to more than the file; small files are harmless.
_SHARED = 16 << 20

# Within the pixels of a JPEG, 0xFF is followed by zero or a restart marker (0xD0 to 0xD7).
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers
_SOI, _EOI, _SOS, _APP1, _APP2 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2

_PNM = re.compile(rb"\s*(?:#[^\r\n]*|[0-9]+)")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_DIRECTORIES = (34665, 34853, 40965)  # tags that hold offsets: EXIF, GPS, interoperability
# Bytes per value, by the type of a tag; other types are skipped by Pillow.
_UNITS = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8], np.float64)
_BYTES = (1, 2, 7)  # types that are kept as bytes


def check(data: Data, max_pixels: int) -> None:
    """Refuse a file whose decoding would cost far more than its pixels.

    Example:
        >>> check(Path("road.jpg").read_bytes(), max_pixels=16_000_000)

    Args:
        data: the contents of an image file of any format.
        max_pixels: limit on the pixels of an image.

    Raises:
        TooLargeError: it has too many scans, segments, chunks, tags, tiles or comments.
    """
    head = data[:16]
    if head.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, max_pixels)
    elif head.startswith(b"\x89PNG"):
        _check_png(data)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        _check_webp(data)
    elif head.startswith(_TIFF) or head[:2] in (b"II", b"MM"):
        check_tags(data, "TIFF", max_pixels)
    elif re.match(rb"P[1-6][\s#]", head):
        _check_pnm(data, max_pixels // TEXT_PIXELS)
    else:
        _check_bmp(data, max_pixels // RLE_PIXELS)


def check_tags(data: Data, what: str, max_pixels: int) -> None:
    """Refuse a TIFF file, or EXIF data, with too many tags, or tags that are too long.

    Args:
        data: the file, or the EXIF data without its `Exif` header.
        what: TIFF or EXIF data, for the message.
        max_pixels: limit on the pixels of a tile.

    Raises:
        TooLargeError: it has too many of them.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    entry = np.dtype(
        [
            ("tag", f"{order}u2"),
            ("type", f"{order}u2"),
            ("count", f"{order}u{8 if big else 4}"),
            ("value", f"{order}u{8 if big else 4}"),
        ]
    )
    try:
        waiting = [struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]]
        seen: set[int] = set()
        while waiting and len(seen) < _MAX_DIRECTORIES:
            at = waiting.pop()
            if at in seen or not 0 < at < len(data):
                continue
            seen.add(at)
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
            at += 8 if big else 2
            if count > MAX_TAGS and at + MAX_TAGS * entry.itemsize < len(data):
                raise _too_many(f"this {what} has", "tags", MAX_TAGS)
            entries = np.frombuffer(data[at : at + count * entry.itemsize], entry)
            _check_entries(entries, len(data), what, max_pixels)
            linked = entries["value"][np.isin(entries["tag"], _DIRECTORIES)]
            waiting += linked.tolist()
            waiting += struct.unpack_from(
                order + ("Q" if big else "I"), data, at + count * entry.itemsize
            )
    except (struct.error, ValueError) as error:  # cut off
        if isinstance(error, TooLargeError):
            raise


def _check_entries(entries: npt.NDArray[np.void], size: int, what: str, max_pixels: int) -> None:
    kinds, counts = entries["type"], entries["count"].astype(np.float64)
    sizes = counts * _UNITS[np.minimum(kinds, len(_UNITS) - 1)]
    # Decoders skip a value that the file can't hold: that is damage, not cost.
    numbers = counts[~np.isin(kinds, _BYTES) & (sizes <= size)]
    if numbers.size and numbers.max() > MAX_NUMBERS:
        raise _too_many(f"a tag of this {what} has", "numbers", MAX_NUMBERS)
    total = int(np.minimum(sizes, size).sum())
    if total > max(_SHARED, 2 * size):
        raise TooLargeError(
            f"the tags of this {what} state {total:,} bytes, but it has only {size:,}"
        )
    tile = [_number(entries, tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
    if tile[0] * tile[1] > max_pixels:
        raise TooLargeError(
            f"this {what} has tiles of {tile[0]} x {tile[1]}: at most {max_pixels:,} pixels are "
            "read"
        )


def _number(entries: npt.NDArray[np.void], tag: int) -> int:
    """The value of a tag with one number; 0 without that tag."""
    found = entries[entries["tag"] == tag]
    if not len(found):
        return 0
    value, short = int(found["value"][0]), found["type"][0] == 3
    if short and found.dtype["value"].str.startswith(">"):
        value >>= 8 * (found.dtype["value"].itemsize - 2)
    return value


def _check_jpeg(data: Data, max_pixels: int) -> None:
    pixels, exif, start = 0, list[bytes](), len(data)
    for number, (kind, at, segment) in enumerate(_segments(data, 2)):
        if kind == _SOS:
            start = at - 2
            break
        if number >= MAX_SEGMENTS:
            raise _too_many("this JPEG has", "segments", MAX_SEGMENTS)
        if kind in _SIZES and len(segment) >= 5:
            height, width = struct.unpack_from(">HH", segment, 1)
            pixels = height * width
        elif kind == _APP1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment[6:])
        elif kind == _APP2 and segment.startswith(b"MPF\0"):
            check_tags(segment[4:], "JPEG's index", max_pixels)
    if exif:
        check_tags(b"".join(exif), "JPEG's EXIF data", max_pixels)
    if len(exif) > MAX_EXIF_SEGMENTS:
        raise _too_many("this JPEG has", "segments of EXIF data", MAX_EXIF_SEGMENTS)
    if _more_than(MAX_RESOURCES, data, b"8BIM"):
        raise _too_many("this JPEG has", "Photoshop resources", MAX_RESOURCES)
    most = min(MAX_SCANS, max(_USUAL_SCANS, 2 * max_pixels // max(1, pixels)))
    # Finding the bytes of the marker is fast, and exact unless metadata hold them as well.
    if _more_than(most, data, b"\xff\xda", start):
        scans = 0
        for number, (kind, _, _) in enumerate(_segments(data, start)):
            scans += kind == _SOS
            if scans > most or number > 10 * MAX_SEGMENTS:
                raise _too_many(f"this JPEG of {pixels:,} pixels has", "scans", most)


def _segments(data: Data, at: int) -> Iterator[tuple[int, int, bytes]]:
    """The marker, the position after it, and the contents of each segment, up to the end."""
    while match := _MARKER.search(data, at):
        kind, at = match[1][0], match.end()
        if kind == _EOI:
            return
        if kind == _SOI:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        yield kind, at, data[at + 2 : at + length]
        at += max(2, length)


def _more_than(most: int, data: Data, part: bytes, at: int = 0) -> bool:
    for _ in range(most + 1):
        at = data.find(part, at) + 1
        if not at:
            return False
    return True


def _check_png(data: Data) -> None:
    metadata = 0
    for number, kind in enumerate(_chunks(data, 8, ">I4s", 4)):
        metadata += kind not in (b"IDAT", b"fdAT", b"fcTL")
        if number >= MAX_CHUNKS:
            raise _too_many("this PNG has", "chunks", MAX_CHUNKS)
        if metadata > MAX_METADATA:
            raise _too_many("this PNG has", "chunks of metadata", MAX_METADATA)
        if kind == b"IEND":
            return


def _check_webp(data: Data) -> None:
    for number, _ in enumerate(_chunks(data, 12, "<4sI", 0)):
        if number >= MAX_CHUNKS:
            raise _too_many("this WebP has", "chunks", MAX_CHUNKS)


def _chunks(data: Data, at: int, form: str, trailer: int) -> Iterator[bytes]:
    """The kind of each chunk of a PNG (with a trailer of 4 bytes) or WebP (without)."""
    unpack, end = struct.Struct(form).unpack_from, len(data) - 8
    while at <= end:
        first, second = unpack(data, at)
        kind, size = (second, first) if trailer else (first, second + second % 2)
        yield kind
        at += 8 + size + trailer


def _check_pnm(data: Data, most: int) -> None:
    at, numbers = 2, 0
    while numbers < (2 if data[1:2] in b"14" else 3):
        match = _PNM.match(data, at)
        if not match:
            return
        numbers += match[0].lstrip()[:1] != b"#"
        at = match.end()
        if at > MAX_HEADER:
            raise TooLargeError(f"the header of this PNM file has more than {MAX_HEADER:,} bytes")
    if data[1:2] not in b"123":
        return
    if len(data) > at + most:
        raise TooLargeError(
            f"this PNM file has {len(data):,} bytes of pixels as text: at most {most:,} are read; "
            "save it in binary form, or as PNG"
        )
    if _more_than(MAX_COMMENTS, data, b"#"):
        raise _too_many("this PNM file has", "comments", MAX_COMMENTS)


def _check_bmp(data: Data, most: int) -> None:
    header = 14 if data[:2] == b"BM" else 0
    size = int.from_bytes(data[header : header + 4], "little")
    packed = data[header + 16 : header + 20] in (b"\1\0\0\0", b"\2\0\0\0")
    if size in (40, 52, 56, 64, 108, 124) and packed and len(data) > MAX_HEADER + most:
        raise TooLargeError(
            f"this BMP has {len(data):,} bytes of run-length encoding: at most {most:,} are "
            "read; save it without compression, or as PNG"
        )


def gif_is_complete(data: Data) -> bool:
    """Whether a GIF has all of its blocks, up to the mark of its end."""
    at = 13 + _table(data, 10)
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return True
        if kind not in (0x21, 0x2C):  # Pillow skips what is no block
            at += 1
            continue
        at += 2 if kind == 0x21 else 11 + _table(data, at + 9)
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return False


def _table(data: Data, at: int) -> int:
    """Bytes of the colour table of a GIF, given the position of its flags."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _too_many(owner: str, parts: str, most: int) -> TooLargeError:
    return TooLargeError(
        f"{owner} more than {most:,} {parts}, the most that are read: save it with another program"
    )
