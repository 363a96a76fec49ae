from __future__ import annotations

import io
import mmap
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from PIL import Image

from segrt import structure
from segrt.errors import TooLargeError
from segrt.frame import Frame, SegFailure
from segrt.reading import Reading
from segrt.sources import frames, one_image

PIXELS = 16_000_000


def encoded(
    form: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any
) -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Image.new(mode, size, 90).save(buffer, form, **options)
    return buffer.getvalue()


def with_scans(count: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `count`."""
    data = encoded("JPEG", size, "L", progressive=True)
    starts = [match.start() for match in re.finditer(b"\xff\xda", data)]
    return data[:-2] + data[starts[-1] : -2] * (count - len(starts)) + data[-2:]


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with further segments (marker, contents) at its start."""
    data = encoded("JPEG")
    parts = [
        b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments
    ]
    return data[:2] + b"".join(parts) + data[2:]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with further chunks before its pixels."""
    data = encoded("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def tags(*entries: tuple[int, int, int, int], order: str = "<", size: int = 0) -> bytes:
    """A TIFF, or EXIF data, with tags (id, type, count, value), filled up to `size` bytes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return (head + body + bytes(4)).ljust(size, b"\0")


def overlapping(count: int, size: int) -> bytes:
    """Tags that each state all of the file as their value."""
    return tags(*((1000 + i, 7, size - 8, 8) for i in range(count)), size=size)


def webp(count: int) -> bytes:
    """An animated WebP with `count` frames."""
    first, *others = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime"))
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, lossless=True)
    data = buffer.getvalue()
    at = data.index(b"ANMF")
    frame = data[at : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]
    body = data[12:at] + frame * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def packed_bmp(size: int) -> bytes:
    """A BMP with 8-bit run-length encoding."""
    numbers = 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0
    return (
        b"BM" + struct.pack("<III", size, 0, 1078) + struct.pack("<IiiHHIIiiII", *numbers)
    ).ljust(size, b"\0")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: with_scans(101), "more than 100 scans"),
    "many scans": (lambda: with_scans(10_000), "more than 100 scans"),
    "medium scans": (lambda: with_scans(33, (1000, 1000)), "more than 32 scans"),
    "large scans": (lambda: with_scans(21, (4000, 4000)), "more than 20 scans"),
    "segments": (lambda: with_segments(*[(0xEE, b"")] * 1001), "more than 1,000 segments"),
    "EXIF in parts": (
        lambda: with_segments((0xE1, b"Exif\0\0" + overlapping(999, 60_000))),
        "EXIF data state",
    ),
    "index of images": (
        lambda: with_segments((0xE2, b"MPF\0" + overlapping(999, 60_000))),
        "JPEG's index state",
    ),
    "chunks": (lambda: with_chunks(chunk(b"IDAT") * 100_001), "more than 100,000 chunks"),
    "profiles": (lambda: with_chunks(chunk(b"iCCP", b"a\0\0") * 300), "256 chunks of metadata"),
    "frames": (lambda: webp(100_001), "more than 100,000 chunks"),
    "tags": (lambda: overlapping(1001, 20_000), "more than 1,000 tags"),
    "tags that share data": (lambda: overlapping(999, 100_000), "tags of this TIFF state"),
    "strips": (lambda: tags((273, 4, 100_001, 8), size=500_000), "more than 100,000 numbers"),
    "strips, big-endian": (
        lambda: tags((273, 4, 100_001, 8), order=">", size=500_000),
        "100,000 numbers",
    ),
    "tiles": (
        lambda: tags((322, 4, 1, 60_000), (323, 4, 1, 60_000)),
        "tiles of 60000 x 60000",
    ),
    "tiles, big-endian": (
        lambda: tags((322, 3, 1, 60_000 << 16), (323, 3, 1, 60_000 << 16), order=">"),
        "tiles of 60000 x 60000",
    ),
    "EXIF directory": (
        lambda: tags((34665, 4, 1, 26)) + struct.pack("<H", 1001) + bytes(13_000),
        "more than 1,000 tags",
    ),
    "runs": (lambda: packed_bmp(1_100_000), "run-length encoding"),
    "pixels as text": (lambda: b"P2 9 9 255\n".ljust(2_000_100), "pixels as text"),
    "parts of EXIF": (
        lambda: with_segments(*[(0xE1, b"Exif\0\0")] * 65),
        "more than 64 segments of EXIF",
    ),
    "resources": (
        lambda: with_segments((0xED, b"Photoshop 3.0\0" + b"8BIM" * 10_001)),
        "Photoshop resources",
    ),
    "comments": (lambda: b"P2 9 9 255\n" + b"#\n" * 1001, "more than 1,000 comments"),
    "long comment": (lambda: b"P6 #" + b"a" * 65_536 + b"\n9 9 255\n", "65,536 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_structure_is_refused(name: str, tmp_path: Path) -> None:
    make, message = HOSTILE[name]
    data = make()
    with pytest.raises(TooLargeError, match=re.escape(message)):
        structure.check(data, PIXELS)
    with pytest.raises(TooLargeError, match=re.escape(message)):
        one_image(data, Reading(max_pixels=PIXELS))
    path = tmp_path / "hostile.png"  # the suffix does not matter
    path.write_bytes(data)
    (failure,) = frames(path, Reading(max_pixels=PIXELS))
    assert isinstance(failure, SegFailure)
    assert isinstance(failure.error, TooLargeError)
    assert str(path) in str(failure.error)


HARMLESS: dict[str, Callable[[], bytes]] = {
    "progressive": lambda: encoded("JPEG", progressive=True),
    "scans": lambda: with_scans(100),
    "scans of a medium size": lambda: with_scans(32, (1000, 1000)),
    "large scans": lambda: with_scans(20, (4000, 4000)),
    # Metadata may hold the bytes of the marker, as thumbnails do.
    "thumbnails": lambda: with_segments((0xEE, b"\xff\xda" * 200)),
    "comments after pixels": lambda: encoded("JPEG") + with_scans(500),
    "profile in parts": lambda: with_segments(*[(0xE2, b"ICC_PROFILE\0" + bytes(60_000))] * 255),
    "damaged EXIF": lambda: with_segments((0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\0" + b"z" * 60)),
    "chunks": lambda: with_chunks(*[chunk(b"IDAT")] * 1000),
    "tall": lambda: encoded("TIFF", (1, 30_000)),
    "compressed": lambda: encoded("TIFF", (300, 3000), compression="tiff_deflate"),
    "packed": lambda: encoded("BMP", (300, 300)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_unusual_but_harmless_structure_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(HARMLESS[name]())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        structure.check(data, PIXELS)
    one_image(path.read_bytes(), Reading(max_pixels=PIXELS))


def test_scans_inside_segments_between_scans_do_not_count() -> None:
    data = with_scans(20)
    at = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe" + struct.pack(">H", 602) + b"\xff\xda" * 300
    structure.check(data[:at] + comment + data[at:], PIXELS)


def test_every_frame_of_a_tiff_is_checked() -> None:
    data = tags((256, 4, 1, 9))
    second = struct.pack("<HHHIII", 1, 273, 4, 100_001, 8, 0)
    linked = data[:-4] + struct.pack("<I", len(data)) + second + bytes(500_000)
    with pytest.raises(TooLargeError, match="numbers"):
        structure.check(linked, PIXELS)


def test_bigtiff_is_checked() -> None:
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    one = struct.pack("<QHHQQQ", 1, 273, 16, 100_001, 8, 0)
    with pytest.raises(TooLargeError, match="numbers"):
        structure.check(head + one + bytes(900_000), PIXELS)
    with pytest.raises(TooLargeError, match="tags"):
        structure.check(head + struct.pack("<Q", 1 << 60) + bytes(30_000), PIXELS)


def test_exif_orientation_survives_but_hostile_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for form, hostile in (("PNG", chunk(b"eXIf", overlapping(999, 60_000))), ("WEBP", b"")):
        path = tmp_path / form.lower()
        path = path.with_suffix("." + form.lower())
        path.write_bytes(encoded(form, exif=exif))
        (turned,) = frames(path)
        assert isinstance(turned, Frame)
        assert turned.image.shape == (64, 48, 3)
        if hostile:
            path.write_bytes(with_chunks(hostile))
            (plain,) = frames(path)
            assert isinstance(plain, Frame)
            assert plain.image.shape == (48, 64, 3)


SAMPLES = [
    encoded("JPEG", progressive=True),
    encoded("JPEG", exif=Image.Exif()),
    encoded("PNG"),
    encoded("WEBP"),
    encoded("TIFF"),
    encoded("BMP"),
    encoded("PPM"),
    b"P2 3 3 255 # nine\n1 2 3 4 5 6 7 8 9",
    tags((256, 4, 1, 9), (257, 4, 1, 9), (34665, 4, 1, 8), order=">"),
    webp(3),
]


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=300, deadline=None)
def test_damaged_files_are_left_to_the_decoders(data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(0, 8))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(sample[: data.draw(st.integers(0, len(sample)))])
    with suppress(TooLargeError):
        structure.check(content, PIXELS)


@hypothesis.given(st.binary(max_size=200), st.sampled_from([s[:16] for s in SAMPLES]))
@hypothesis.settings(deadline=None)
def test_any_bytes_can_be_checked(content: bytes, head: bytes) -> None:
    with suppress(TooLargeError):
        structure.check(head + content, PIXELS)
