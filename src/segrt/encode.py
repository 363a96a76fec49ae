"""The file formats of results: pictures, label PNGs and JSON lists, as bytes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image, TiffImagePlugin

from segrt.errors import ConfigError
from segrt.formats import GEOTAGS, IMAGE_SUFFIXES, READ_SUFFIXES, GeoTags
from segrt.names import names_folder
from segrt.palette import Palette

Labels = npt.NDArray[np.int32]

TRANSPARENT = (".png", ".webp", ".tif", ".tiff")
"""Suffixes of pictures that can have a transparent background."""

LOSSY = (".jpeg", ".jpg")
"""Suffixes of pictures that can't hold labels: a PNG is written next to them."""

_HEADER = 33  # bytes of a PNG's signature and its first chunk

_PIL_FORMATS = {
    ".jpg": "JPEG",
    ".tif": "TIFF",
    ".dib": "BMP",  # Pillow's DIB lacks the header by which OpenCV knows the format
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
}


def names_picture(save_path: str | Path) -> bool:
    """Whether a picture is saved under this very name, rather than in a folder of this name.

    Raises:
        ConfigError: it is the name of a picture of a format that can't be written.
    """
    kind = Path(save_path).suffix.lower()
    if not kind or names_folder(save_path):
        return False
    if kind in IMAGE_SUFFIXES:
        return True
    Image.init()
    if kind in READ_SUFFIXES or kind in Image.EXTENSION:
        raise ConfigError(
            f"can't write {Path(save_path).name!a}: use {', '.join(sorted(IMAGE_SUFFIXES))}, or "
            "the path of a folder"
        )
    return False


def label_png(labels: Labels, palette: Palette, classes: int) -> bytes:
    """Encode a label map as a PNG whose pixel values are the class ids.

    Args:
        labels: int32 (H, W).
        palette: uint8 (K, 3), RGB; the first 256 colours are stored in the file.
        classes: number of classes. Up to 256 give an indexed PNG, more a 16-bit grey one.
    """
    if classes > 256:
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8))
        picture.putpalette(palette[:256].tobytes())
    # Run-length encoding alone takes a third of the time, for up to 20% larger files.
    return pillow(picture, "PNG", compress_type=zlib.Z_RLE)


def rgb(picture: Image.Image, suffix: str, geotags: GeoTags | None = None) -> bytes:
    """Encode an RGB picture in the format of a suffix, such as ".png"; lossless for ".webp".

    The formats of `TRANSPARENT` take RGBA as well. A TIFF is georeferenced by the tags given.
    """
    if suffix in (".sr", ".ras"):  # Sun raster: Pillow can only read it
        import cv2

        return cv2.imencode(".ras", np.asarray(picture)[:, :, ::-1])[1].tobytes()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if geotags and suffix in (".tif", ".tiff"):
        tags = options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in geotags.items():
            tags.tagtype[tag] = GEOTAGS[tag]
            tags[tag] = value
    return pillow(picture, _PIL_FORMATS.get(suffix, suffix[1:].upper()), **options)


def mark(png: bytes) -> bytes:
    """Write into a PNG that segrt made it, as its standard keyword Software."""
    text = b"tEXtSoftware\0segrt"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:_HEADER] + chunk + png[_HEADER:]


def is_marked(file: Path) -> bool:
    """Whether a file is a PNG with the mark of `mark`."""
    with file.open("rb") as opened:
        return opened.read(_HEADER + 64)[_HEADER:].find(b"tEXtSoftware\0segrt") == 4


def pillow(picture: Image.Image, form: str, **options: Any) -> bytes:
    """Encode a picture with Pillow, in one of its formats, such as "JPEG"."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def flat_json(labels: Labels) -> bytes:
    """The class ids of an int32 array (H, W), row by row, as one flat JSON list."""
    return orjson.dumps(labels.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)


def nested_json(labels: Labels, indent: int | None) -> bytes:
    """The JSON of `labels[None].tolist()` for int32 labels (H, W).

    Args:
        labels: the class ids.
        indent: spaces per level; None for a compact list. Equal, byte for byte, to what
            `json.dumps` writes for a value of the outermost object.
    """
    text = orjson.dumps(np.ascontiguousarray(labels), option=orjson.OPT_SERIALIZE_NUMPY)
    if indent is None:
        return b"[%b]" % text
    line = [b"\n" + b" " * (indent * level) for level in range(5)]
    rows = text[2:-2].replace(b"],[", b";").replace(b",", b"," + line[4])
    between = line[3] + b"]," + line[3] + b"[" + line[4]
    start = b"[" + line[2] + b"[" + line[3] + b"[" + line[4]
    return start + rows.replace(b";", between) + line[3] + b"]" + line[2] + b"]" + line[1] + b"]"
