"""Text in pictures: fonts for class names, legends, and names inside regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segrt.palette import Palette

Labels = npt.NDArray[np.int32]
Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

SMALLEST = 11
"""Text height in pixels that is still readable."""

# Pillow's own font draws Latin, Greek and Cyrillic partly; these, if installed, draw the rest.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
)
_INK, _SOFT = (32, 33, 36), (110, 113, 118)
_MISSING = "\U0010ffff"  # a code point that no font draws
_SMALL = 480  # longest side of the label map in which places for names are looked for
_LARGE = 0.004  # share of the picture from which a region is named
_FEWEST = 4  # lines of a column
_PER_CLASS = 2  # regions of a class that are named


def text_size(width: int, height: int) -> int:
    """The height of text in a picture of this size, in pixels.

    Example:
        >>> text_size(960, 720), text_size(6000, 4500)
        (18, 113)
    """
    return max(SMALLEST, round(min(math.sqrt(width * height) / 46, min(width, height) / 14)))


@lru_cache(64)
def _font(name: str | None, size: int) -> Font | None:
    try:
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    except OSError:  # not installed
        return None


@lru_cache(1024)
def _draws(name: str | None, character: str) -> bool:
    font = _font(name, SMALLEST)
    if font is None:
        return False
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))


def lettered(name: str, class_id: int, size: int) -> tuple[str, Font]:
    """A class name as it can be drawn, and the font for it.

    Example:
        >>> lettered("sky", 3, 18)[0]
        'sky'

    Args:
        name: the class name; line breaks become spaces.
        class_id: drawn instead of a name that no font here can draw.
        size: text height in pixels.
    """
    text = " ".join(name.encode("utf-8", "replace").decode().split())
    for family in (None, *_SYSTEM_FONTS):
        font = _font(family, size)
        if font is not None and all(_draws(family, character) for character in set(text)):
            return text, font
    return f"class {class_id}", ImageFont.load_default(size)


@dataclass(frozen=True)
class Row:
    """A line of a legend.

    Attributes:
        class_id: the class.
        name: its name.
        share: the share of the picture it covers, from 0 to 1.
        colour: (R, G, B).
    """

    class_id: int
    name: str
    share: float
    colour: tuple[int, int, int]


def legend(
    rows: Sequence[Row], size: int = 20, *, height: int | None = None, width: int | None = None
) -> Image.Image:
    """Draw a legend with the colour, the name and the share of each class.

    Example:
        >>> legend([Row(0, "road", 0.4, (128, 64, 128))]).size

    Args:
        rows: its lines, in this order.
        size: text height in pixels.
        height: start another column rather than become higher than this, unless it is tiny.
        width: use as many columns as fit into this width.

    Returns:
        PIL.Image.Image: RGB, on a white background.
    """
    line, pad, gap = round(size * 1.7), size, round(size * 0.6)
    texts = [lettered(row.name, row.class_id, size) for row in rows]
    shares = [f"{row.share:.1%}" for row in rows]
    plain = ImageFont.load_default(size)
    name_width = max((int(font.getlength(text)) for text, font in texts), default=0) + 1
    share_width = max((int(plain.getlength(text)) for text in shares), default=0) + 1
    column = size + gap + name_width + 2 * gap + share_width
    deep = max(1, len(rows))
    if height is not None:
        fit = (height - 2 * pad) // line
        deep = min(deep, fit if fit >= _FEWEST else _FEWEST * 3)
    elif width is not None:
        across = max(1, (width - 2 * pad + 2 * size) // (column + 2 * size))
        deep = -(-deep // across)
    across = -(-len(rows) // deep)
    deep = -(-len(rows) // max(1, across))  # columns of equal length
    picture = Image.new(
        "RGB",
        (2 * pad + across * column + max(0, across - 1) * 2 * size, 2 * pad + deep * line),
        "white",
    )
    draw = ImageDraw.Draw(picture)
    for index, (row, (text, font), share) in enumerate(zip(rows, texts, shares, strict=True)):
        x = pad + index // deep * (column + 2 * size)
        y = pad + index % deep * line + (line - size) // 2
        box = (x, y, x + size, y + size)
        draw.rounded_rectangle(box, size // 5, row.colour, (150, 150, 150), max(1, size // 20))
        middle = y + size / 2
        draw.text((x + size + gap, middle), text, _INK, font, "lm")
        draw.text((x + column, middle), share, _SOFT, plain, "rm")
    return picture


def rounded(size: tuple[int, int], radius: int, opacity: int) -> Image.Image:
    """A mask, L, of a rectangle with round corners."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, opacity)
    return mask


def write_names(
    picture: Image.Image,
    labels: Labels,
    class_names: Sequence[str],
    classes: Sequence[int],
    palette: Palette,
) -> None:
    """Write the names of classes into their large regions, as far from other classes as possible.

    Args:
        picture: RGB or RGBA, of the size of `labels`; changed in place.
        labels: int (H, W).
        class_names: the name of each class id.
        classes: the class ids to name.
        palette: uint8 (K, 3), RGB.
    """
    height, width = labels.shape
    shrink = max(1.0, max(height, width) / _SMALL)
    shape = max(1, round(width / shrink)), max(1, round(height / shrink))
    small = cv2.resize(labels, shape, interpolation=cv2.INTER_NEAREST_EXACT)
    draw = ImageDraw.Draw(picture)
    largest = round(text_size(width, height) * 1.15)
    smallest = max(SMALLEST, round(0.6 * largest))
    for one in classes:
        for region in _large_regions(small == one):
            for size in range(largest, smallest - 1, -max(1, largest // 10)):
                text, font = lettered(class_names[one], one, size)
                halo = max(1, round(size / 9))
                box = (font.getlength(text) + 2 * halo) / shrink, (size + 2 * halo) / shrink
                place = _place(region, box)
                if place is None:
                    continue
                x, y = (place[0] + 0.5) * width / shape[0], (place[1] + 0.5) * height / shape[1]
                dark = tuple(int(v * 0.3) for v in palette[one])
                draw.text((x, y), text, "white", font, "mm", stroke_width=halo, stroke_fill=dark)
                break


def _large_regions(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.uint8]]:
    """The largest connected regions of a mask that are large enough for a name."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = [int(n) for n in np.argsort(-areas, kind="stable")[:_PER_CLASS]]
    return [(numbers == n + 1).astype(np.uint8) for n in order if areas[n] >= _LARGE * mask.size]


def _place(region: npt.NDArray[np.uint8], box: tuple[float, float]) -> tuple[float, float] | None:
    """The centre, x and y, of the box that lies in a region and is farthest from its edge."""
    wide, high = (max(1, int(np.ceil(side))) for side in box)
    if wide > region.shape[1] or high > region.shape[0]:
        return None
    inside = cv2.boxFilter(
        region.astype(np.float32), -1, (wide, high), borderType=cv2.BORDER_CONSTANT
    )
    distance = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    distance[inside < 0.995] = 0
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (float(x), float(y)) if distance[y, x] > 0 else None
