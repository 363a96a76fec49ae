"""Pictures of label maps: coloured labels, overlays and legends."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segrt.palette import Palette

Labels = npt.NDArray[np.int32]
Picture = npt.NDArray[np.uint8]


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
    """Blend the class colours over an image.

    Args:
        image: uint8 (H, W, 3), BGR.
        labels: int (H, W).
        palette: uint8 (K, 3), RGB.
        alpha: weight of the class colour, from 0 to 1.

    Returns:
        np.ndarray: uint8 (H, W, 3), RGB.
    """
    colours = colorize(labels, palette)
    return np.asarray(cv2.addWeighted(image[:, :, ::-1], 1 - alpha, colours, alpha, 0), np.uint8)


def legend(
    classes: Sequence[int],
    names: Sequence[str],
    palette: Palette,
    areas: Sequence[float],
    size: int = 20,
) -> Image.Image:
    """Draw a legend with the colour, the name and the area of each class.

    Args:
        classes: the class ids to list, in this order.
        names: the name of each class id.
        palette: uint8 (K, 3), RGB.
        areas: the share of the image covered by each of `classes`, from 0 to 1.
        size: text height in pixels.

    Returns:
        PIL.Image.Image: RGB, on a white background.
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
    """Place a `legend` to the right of a picture.

    Args:
        picture: uint8 (H, W, 3), RGB.
        classes: as in `legend`.
        names: as in `legend`.
        palette: as in `legend`.
        areas: as in `legend`.

    Returns:
        PIL.Image.Image: RGB, as tall as the picture or the legend, whichever is taller.
    """
    height, width = picture.shape[:2]
    text_size = int(np.clip(height / 36, 11, 32))
    right = legend(classes, names, palette, areas, size=text_size)
    canvas = Image.new("RGB", (width + right.width, max(height, right.height)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    canvas.paste(right, (width, 0))
    return canvas
