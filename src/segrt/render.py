"""Colours: palettes, label pictures, overlays and legends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segrt.errors import ConfigError

Labels = npt.NDArray[np.int32]
Palette = npt.NDArray[np.uint8]
Picture = npt.NDArray[np.uint8]


def voc_palette(size: int = 256) -> Palette:
    """The PASCAL VOC colour map without its first entry, which is how PaddleX colours its classes.

    The three lowest bits of an entry's index are the highest bits of its red, green and blue; the next three bits
    are the next lower ones, and so on (the devkit's `VOClabelcolormap`).

    Args:
        size: number of classes; past 255 the colours repeat.

    Returns:
        np.ndarray: uint8 (size, 3), RGB. Class 0 is (128, 0, 0).
    """
    index = np.arange(size) % 255 + 1
    palette = np.zeros((size, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def parse_palette(value: object) -> Palette:
    """Take a palette by its name or its colours.

    Args:
        value: "voc", a dataset of the model zoo ("cityscapes", "ade20k", "camvid"), or colours (R, G, B) in the order
            of the class ids, 0 to 255, as an array or nested lists of shape (K, 3).

    Returns:
        np.ndarray: uint8 (K, 3), RGB.

    Raises:
        ConfigError: no such name, or no such colours.
    """
    if isinstance(value, str):
        from segrt import zoo

        known = {"voc": voc_palette()} | {
            d.name: np.array(d.palette, np.uint8) for d in zoo.load().datasets
        }
        if value not in known:
            raise ConfigError(
                f"unknown palette {value!r}: use {', '.join(known)}, or a list of (R, G, B)"
            )
        return known[value]
    try:
        colours = np.array(value)
    except ValueError:  # rows of different lengths
        colours = np.array(None)
    valid = (
        colours.ndim == 2 and colours.shape[1] == 3 and len(colours) and colours.dtype.kind in "iu"
    )
    if not valid or colours.min() < 0 or colours.max() > 255:
        raise ConfigError(
            f"palette {value!r:.80} is not valid: give a name, or a list of (R, G, B), each from 0 to 255"
        )
    return colours.astype(np.uint8)


def colorize(labels: Labels, palette: Palette) -> Picture:
    """Colour a label map.

    Args:
        labels: int (H, W), class ids below len(palette).
        palette: uint8 (K, 3), RGB.

    Returns:
        np.ndarray: uint8 (H, W, 3), RGB.
    """
    return np.take(palette, labels, axis=0, mode="clip")


def overlay(image: Picture, labels: Labels, palette: Palette, alpha: float = 0.5) -> Picture:
    """Blend the colours of the classes over the picture.

    Args:
        image: uint8 (H, W, 3), BGR.
        labels: int (H, W).
        palette: uint8 (K, 3), RGB.
        alpha: share of the class colour, 0 to 1.

    Returns:
        np.ndarray: uint8 (H, W, 3), RGB.
    """
    import cv2

    return np.asarray(
        cv2.addWeighted(image[:, :, ::-1], 1 - alpha, colorize(labels, palette), alpha, 0), np.uint8
    )


def legend(
    classes: Sequence[int],
    names: Sequence[str],
    palette: Palette,
    areas: Sequence[float],
    size: int = 20,
) -> Image.Image:
    """Draw a legend: a colour, a name and a share of the area for each class.

    Args:
        classes: the class ids to list, in order.
        names: the name of each class id.
        palette: uint8 (K, 3), RGB.
        areas: share of the picture of each class in `classes`, 0 to 1.
        size: height of the text in pixels.

    Returns:
        PIL.Image.Image: RGB, on white.
    """
    font = ImageFont.load_default(size)
    rows = [(int(c), f"{names[c]}  {share:.1%}") for c, share in zip(classes, areas, strict=True)]
    line = round(size * 1.7)
    text_width = max((int(font.getlength(text)) for _, text in rows), default=0)
    picture = Image.new("RGB", (text_width + 4 * size, line * len(rows) + 2 * size), "white")
    draw = ImageDraw.Draw(picture)
    for row, (index, text) in enumerate(rows):
        y = size + row * line
        colour = tuple(int(v) for v in palette[min(index, len(palette) - 1)])
        draw.rectangle((size, y, 2 * size, y + size), fill=colour, outline="black")
        draw.text((2.6 * size, y + size / 2), text, fill="black", font=font, anchor="lm")
    return picture


def with_legend(
    picture: Picture,
    classes: Sequence[int],
    names: Sequence[str],
    palette: Palette,
    areas: Sequence[float],
) -> Image.Image:
    """Put a `legend` to the right of a picture.

    Args:
        picture: uint8 (H, W, 3), RGB.
        classes: as in `legend`, like the following.
        names: the name of each class id.
        palette: uint8 (K, 3), RGB.
        areas: share of each class.

    Returns:
        PIL.Image.Image: RGB, as high as the picture or as the legend, whichever is higher.
    """
    height, width = picture.shape[:2]
    beside = legend(classes, names, palette, areas, size=int(np.clip(height / 36, 11, 32)))
    canvas = Image.new("RGB", (width + beside.width, max(height, beside.height)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    canvas.paste(beside, (width, 0))
    return canvas
