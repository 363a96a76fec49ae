"""Write about 200 malicious or broken files and read them all: `python tests/hostile.py FOLDER`.

Prints JSON: {"peak_mib": ..., "files": {name: [max seconds per image, images read, [errors]]}}. CPU
seconds are reported because they don't depend on other processes. This is a separate program, so
that crashes are noticed and the peak memory is that of reading alone.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segrt.bench.contender import peak_memory
from segrt.frame import SegFailure
from segrt.sources import frames

SUFFIXES = ("png", "jpg", "bmp", "webp", "ppm", "ras", "tif")


def encoded(image: Image.Image, suffix: str, **options: Any) -> bytes:
    """An image file."""
    if suffix == "ras":
        import cv2

        return cv2.imencode(".ras", np.asarray(image))[1].tobytes()
    names = {"jpg": "JPEG", "tif": "TIFF"}
    buffer = io.BytesIO()
    image.save(buffer, names.get(suffix, suffix.upper()), **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG with a header for the given size and arbitrary rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    """A BMP that consists of a header only."""
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header states another size."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "jpg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int, following: tuple[int, ...] = (0,)) -> bytes:
    """A TIFF with one directory per entry of `following`, the index of the next one (0: none)."""
    size = 2 + 6 * 12 + 4
    data = b"II*\0" + struct.pack("<I", 8)
    for after in following:
        tags = (
            (256, width),
            (257, height),
            (258, 8),
            (262, 1),
            (273, 8),
            (279, max(1, min(width * height, 2**31))),
        )
        data += struct.pack("<H", len(tags)) + b"".join(
            struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
        )
        data += struct.pack("<I", 8 + after * size if after else 0)
    return data


def pdf(width: float = 100, height: float = 100, extra: bytes = b"", pages: int = 1) -> bytes:
    """A PDF with one empty page that claims to have `pages`."""
    return (
        b"%%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count %d>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 %g %g]>>endobj\n"
        b"trailer<</Root 1 0 R%s>>\n%%%%EOF\n"
    ) % (pages, width, height, extra)


def encrypted_pdf() -> bytes:
    """An encrypted PDF with an unknown password."""
    secret = b"5a" * 32
    return pdf(
        extra=b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<"
        + secret
        + b">/U<"
        + secret
        + b">>>",
    )


def special_files() -> dict[str, bytes]:
    """Decompression bombs, loops of TIFF directories, and unusual PDFs."""
    files: dict[str, bytes] = {}
    # Complete, and below the limit of pixels.
    files["bomb-compressed.png"] = png(13_000, 13_000, bytes(13_000 * (3 * 13_000 + 1)))
    files["bomb-rows.png"] = png(10, 10, bytes(100 << 20))
    files["negative.bmp"] = bmp(-5, -5)
    files["loop-self.tif"] = tiff(9, 9, (0, 1))
    files["loop-two.tif"] = tiff(9, 9, (1, 2, 1))
    files["loop-long.tif"] = tiff(9, 9, (*range(1, 300), 5))
    files["frames.tif"] = tiff(1, 1, (*range(1, 12_000), 0))
    files["encrypted.pdf"] = encrypted_pdf()
    files["pages.pdf"] = pdf(pages=2_000_000_000)
    files["no-pages.pdf"] = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"
    return files


def make(folder: Path) -> None:
    """Write all files."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    files: dict[str, bytes] = {}
    whole = {suffix: encoded(noise, suffix) for suffix in SUFFIXES}
    whole["pdf"] = encoded(noise, "pdf")
    grey16 = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (64, 96), np.uint16))
    whole["16.png"], whole["16.tif"] = encoded(grey16, "png"), encoded(grey16, "tif")
    whole["pages.tif"] = encoded(noise, "tif", save_all=True, append_images=[noise, noise])
    whole["lzw.tif"] = encoded(noise, "tif", compression="tiff_lzw")
    for suffix, data in whole.items():
        for tenth in range(10):
            files[f"cut{tenth}.{suffix}"] = data[: len(data) * tenth // 10]
    others = {
        "gif": encoded(noise, "gif"),
        "zip": b"PK\3\4" + bytes(200),
        "elf": b"\x7fELF" + bytes(200),
        "html": b"<html><body>404</body></html>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n%%EndComments\n{} loop\n",
        "zeros": bytes(4096),
    }
    for kind, data in others.items():
        for suffix in ("png", "jpg", "tif", "webp", "pdf"):
            files[f"{kind}-inside.{suffix}"] = data
    for kind in ("png", "jpg", "bmp", "tif"):
        for suffix in ("pdf", "webp"):
            files[f"fine-{kind}-inside.{suffix}"] = whole[kind]
    for name, size in {"bomb": 50_000, "zero": 0}.items():
        files |= {
            f"{name}.png": png(size, size),
            f"{name}.jpg": jpeg(size, size),
            f"{name}.bmp": bmp(size, size),
            f"{name}.ppm": b"P6 %d %d 255\n" % (size, size) + bytes(99),
            f"{name}.pbm": b"P4 %d %d\n" % (size, size) + bytes(99),
            f"{name}.pgm": b"P2 %d %d 65535\n" % (size, size) + b"1 " * 99,
            f"{name}.tif": tiff(size, size),
            f"{name}.ras": struct.pack(">8I", 0x59A66A95, size, size, 24, 99, 1, 0, 0) + bytes(99),
            f"{name}.pdf": pdf(size, size),
        }
    files |= special_files()
    rng = random.Random(0)
    for number in range(8):
        exif = (
            b"Exif\0\0" + rng.choice((b"II*\0", b"MM\0*", b"")) + rng.randbytes(rng.randrange(60))
        )
        files[f"exif{number}.jpg"] = encoded(noise, "jpg", exif=exif)
    for suffix in ("png", "jpg", "webp", "tif", "lzw.tif", "pdf"):
        for number in range(4):
            flipped = bytearray(whole[suffix])
            for _ in range(20):
                flipped[rng.randrange(len(flipped) if number % 2 else min(200, len(flipped)))] = (
                    rng.randrange(256)
                )
            files[f"flipped{number}.{suffix}"] = bytes(flipped)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def main() -> None:
    """Write and read the files, and print the report."""
    folder = Path(sys.argv[1])
    make(folder)
    report: dict[str, tuple[float, int, list[str]]] = {}
    for file in sorted(folder.iterdir()):
        start, longest, images, errors = time.process_time(), 0.0, 0, list[str]()
        for item in frames(file):
            longest, start = max(longest, time.process_time() - start), time.process_time()
            if isinstance(item, SegFailure):
                errors.append(str(item.error))
            else:
                images += 1
        report[file.name] = longest, images, errors
    print(json.dumps({"peak_mib": peak_memory() / 2**20, "files": report}))


if __name__ == "__main__":
    main()
