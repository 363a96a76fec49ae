"""Pictures of label maps: coloured labels, overlays and cut-outs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import lettering
from segrt.colour_distance import are_close
from segrt.look import Look
from segrt.palette import Palette

Labels = npt.NDArray[np.int32]
Picture = npt.NDArray[np.uint8]

_COUNTED = 1 << 20  # pixels whose values decide how bands are shown


def colorize(labels: Labels, palette: Palette) -> Picture:
    """Colour a label map.

    Args:
        labels: int (H, W), class ids below len(palette).
        palette: uint8 (K, 3), RGB.

    Returns:
        np.ndarray: uint8 (H, W, 3), RGB.
    """
    return np.take(palette, labels, axis=0, mode="clip")


def shown_bands(image: npt.NDArray[Any], bands: Sequence[str]) -> Picture:
    """A picture of an image with bands: those called red, green and blue, else the first three.

    uint8 is shown as it is. Of other types, the 2nd percentile of each band becomes 0 and the 98th
    255, as is usual for satellite images; of large images, every nth row and column is counted.

    Args:
        image: (H, W, C).
        bands: the name of each.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.
    """
    names = [name.lower() for name in bands]
    colours = ("blue", "green", "red")
    if all(colour in names for colour in colours):
        chosen = [names.index(colour) for colour in colours]
    else:
        chosen = [2, 1, 0] if len(names) > 2 else [0, 0, 0]
    picture = image[:, :, chosen]
    if picture.dtype == np.uint8:
        return np.asarray(picture, np.uint8, order="C")
    step = math.isqrt(picture.shape[0] * picture.shape[1] // _COUNTED) + 1
    low, high = np.percentile(picture[::step, ::step], (2, 98), axis=(0, 1)).astype(np.float32)
    scaled = (picture.astype(np.float32) - low) * (255 / np.maximum(high - low, 1e-6))
    return np.asarray(np.rint(scaled.clip(0, 255)), np.uint8)


def overlay(
    image: Picture, labels: Labels, palette: Palette, class_names: Sequence[str], look: Look
) -> Image.Image:
    """Draw the classes over an image, with everything that `look` asks for.

    Args:
        image: uint8 (H, W, 3), BGR.
        labels: int (H, W).
        palette: uint8 (K, 3), RGB.
        class_names: the name of each class id.
        look: what to show.

    Returns:
        PIL.Image.Image: RGB, or RGBA for a transparent background.

    Raises:
        ConfigError: `look` names classes that don't exist.
    """
    shows = look.shows(class_names)
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    present = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    present = [c for c in present if shows is None or shows[c]]
    rows = [row(c, class_names, palette, float(counts[c]) / labels.size) for c in present]
    picture = Image.fromarray(paint(image, labels, palette, class_names, look)[:, :, ::-1])
    panel = None
    if look.place == "inside" and rows:
        panel = _corner_panel(picture.size, rows, labels)
    if look.names:
        free = labels.copy()
        if panel is not None:
            free[panel.box[1] : panel.box[3], panel.box[0] : panel.box[2]] = -1
        lettering.write_names(picture, free, class_names, present, palette)
    if look.background == "transparent":
        assert shows is not None
        picture.putalpha(Image.fromarray(_soft(shows[labels])))
    if panel is not None:
        picture.paste(panel.picture.convert(picture.mode), panel.box, panel.mask)
    if look.side_by_side:
        picture = _beside(image, picture)
    if look.place == "none" or panel is not None or not rows:
        return picture
    return _with_legend(picture, rows, look)


def row(c: int, class_names: Sequence[str], palette: Palette, share: float) -> lettering.Row:
    """The line of a class in a legend."""
    red, green, blue = palette[min(c, len(palette) - 1)].tolist()
    return lettering.Row(c, class_names[c], share, (red, green, blue))


def paint(
    image: Picture, labels: Labels, palette: Palette, class_names: Sequence[str], look: Look
) -> Picture:
    """Blend the class colours over an image, with outlines and background; no text.

    Args:
        image: uint8 (H, W, 3), BGR.
        labels: int (H, W).
        palette: uint8 (K, 3), RGB.
        class_names: the name of each class id.
        look: what to show; a transparent background is that of the image.

    Returns:
        np.ndarray: uint8 (H, W, 3), BGR.

    Raises:
        ConfigError: `look` names classes that don't exist.
    """
    shows, alpha = look.shows(class_names), look.weight
    kept = None if shows is None else shows[labels]
    painted = image
    if alpha > 0:
        painted = np.asarray(
            cv2.addWeighted(image, 1 - alpha, _colours(labels, palette), alpha, 0), np.uint8
        )
        if kept is not None:
            painted = np.where(kept[..., None], painted, image)
    if look.outlines or (look.outlines is None and alpha > 0 and _need_outlines(labels, palette)):
        painted = _outlined(painted, labels, kept)
    if kept is not None and look.background in ("blur", "white"):
        rest = np.full_like(image, 255) if look.background == "white" else _blurred(image, ~kept)
        weight = (_soft(kept).astype(np.float32) / 255)[..., None]
        return np.rint(rest + (painted.astype(np.float32) - rest) * weight).astype(np.uint8)
    return painted


def _colours(labels: Labels, palette: Palette) -> Picture:
    """`colorize` as BGR; OpenCV's table of 256 colours takes a third of the time."""
    if len(palette) > 256:
        return np.ascontiguousarray(colorize(labels, palette)[:, :, ::-1])
    table = np.take(palette[:, ::-1], range(256), axis=0, mode="clip")
    return np.asarray(cv2.applyColorMap(labels.astype(np.uint8), table[:, None]), np.uint8)


def _need_outlines(labels: Labels, palette: Palette) -> bool:
    """Whether two of the classes present are hard to tell apart by their colours."""
    present = np.flatnonzero(np.bincount(labels.ravel()))
    colours = np.take(palette, present, axis=0, mode="clip")
    return _are_close(colours.tobytes())


@lru_cache(64)
def _are_close(colours: bytes) -> bool:
    return are_close(np.frombuffer(colours, np.uint8).reshape(-1, 3))


def _thickness(shape: tuple[int, ...]) -> int:
    """The width of lines in a picture, in pixels."""
    return max(1, round(math.sqrt(shape[0] * shape[1]) / 600))


def _outlined(image: Picture, labels: Labels, kept: npt.NDArray[np.bool_] | None) -> Picture:
    """Draw white lines between classes, except between two that are not shown."""
    edges = np.zeros(labels.shape, np.uint8)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    if kept is not None:
        across &= kept[:, 1:] | kept[:, :-1]
        down &= kept[1:] | kept[:-1]
    edges[:, 1:] |= across
    edges[1:] |= down
    if (width := _thickness(labels.shape)) > 1:
        edges = np.asarray(cv2.dilate(edges, np.ones((width, width), np.uint8)), np.uint8)
    lines = edges.astype(np.bool_)
    drawn = image.copy()
    drawn[lines] = (drawn[lines].astype(np.uint16) + 3 * 255) // 4
    return drawn


def _soft(kept: npt.NDArray[np.bool_]) -> Picture:
    """A mask as weights from 0 to 255, with smooth edges."""
    sigma = max(0.7, math.sqrt(kept.size) / 1500)
    return np.asarray(cv2.GaussianBlur(kept.astype(np.uint8) * 255, (0, 0), sigma), np.uint8)


def _blurred(image: Picture, rest: npt.NDArray[np.bool_]) -> Picture:
    """Blur the rest of an image without the classes that are cut out: they leave no halo."""
    height, width = rest.shape
    shrink = max(1, round(math.sqrt(height * width) / 400))
    small = max(1, width // shrink), max(1, height // shrink)
    weight = cv2.resize(rest.astype(np.float32), small, interpolation=cv2.INTER_AREA)[..., None]
    colours = cv2.resize(image.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    sigma = max(1.0, math.sqrt(small[0] * small[1]) / 45)
    total = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None] + 1e-4
    mean = (cv2.GaussianBlur(colours * weight, (0, 0), sigma) + 1e-4 * colours) / total
    whole = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.rint(whole), 0, 255), np.uint8)


def _beside(image: Picture, picture: Image.Image) -> Image.Image:
    """The image to the left of its picture."""
    gap = 4 * _thickness(image.shape)
    both = Image.new("RGB", (2 * picture.width + gap, picture.height), "white")
    both.paste(Image.fromarray(image[:, :, ::-1]), (0, 0))
    both.paste(picture, (picture.width + gap, 0))
    return both


def _with_legend(picture: Image.Image, rows: Sequence[lettering.Row], look: Look) -> Image.Image:
    """Add a legend to the right of a picture, or below it."""
    width, height = picture.size
    size = lettering.text_size(width, height)
    if look.place == "below" or (look.place != "right" and height > 1.2 * width):
        panel = lettering.legend(rows, size, width=width)
        corner, shape = (0, height), (max(width, panel.width), height + panel.height)
    else:
        panel = lettering.legend(rows, size, height=height)
        corner, shape = (width, 0), (width + panel.width, max(height, panel.height))
    canvas = Image.new(picture.mode, shape, "white")
    canvas.paste(picture, (0, 0))
    canvas.paste(panel, corner)
    return canvas


class _Panel(NamedTuple):
    """A legend inside a picture: its pixels, their weights, and the place."""

    picture: Image.Image
    mask: Image.Image
    box: tuple[int, int, int, int]


def _corner_panel(
    shape: tuple[int, int], rows: Sequence[lettering.Row], labels: Labels
) -> _Panel | None:
    """A legend for the corner where it hides the fewest outlines; None if it is too large."""
    width, height = shape
    for size in range(lettering.text_size(width, height), lettering.SMALLEST - 1, -1):
        panel, margin = lettering.legend(rows, size), size // 2
        if panel.width <= width / 2 and panel.height + 2 * margin <= height:
            break
    else:
        return None
    edges = labels[:, 1:] != labels[:, :-1]

    def hidden(corner: tuple[int, int]) -> int:
        x, y = corner
        return int(edges[y : y + panel.height, x : x + panel.width].sum())

    right, low = width - panel.width - margin, height - panel.height - margin
    x, y = min(((right, low), (margin, low), (right, margin), (margin, margin)), key=hidden)
    mask = lettering.rounded(panel.size, size // 2, 235)
    return _Panel(panel, mask, (x, y, x + panel.width, y + panel.height))
