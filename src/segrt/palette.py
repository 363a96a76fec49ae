"""Palettes: the colours of the classes, by name or as a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import zoo
from segrt.errors import ConfigError

Palette = npt.NDArray[np.uint8]
"""uint8 (K, 3), RGB: one colour for each class id."""


PaletteLike: TypeAlias = str | Sequence[Sequence[int]] | npt.NDArray[Any] | None
"""What `parse_palette` takes; None where there is a default."""


def voc_palette(size: int = 256) -> Palette:
    """The PASCAL VOC colour map without its first entry, as PaddleX colours its classes.

    The three lowest bits of an entry's index are the highest bits of its red, green and blue
    values, the next three bits the second-highest ones, and so on (`VOClabelcolormap` in the VOC
    development kit).

    Args:
        size: number of colours, at most 2**24 - 1; all differ.

    Returns:
        np.ndarray: uint8 (size, 3), RGB. Class 0 is (128, 0, 0).
    """
    index = np.arange(1, size + 1)
    palette = np.zeros((size, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = ((index >> (3 * bit + channel)) & 1) << (7 - bit)
            palette[:, channel] |= value.astype(np.uint8)
    return palette


def parse_palette(value: object, classes: int = 256) -> Palette:
    """Look up a palette by name, or check a list of colours.

    Example:
        >>> parse_palette("cityscapes")[0].tolist()
        [128, 64, 128]

    Args:
        value: "voc", the name of a data set in the model zoo ("cityscapes", "ade20k", "camvid"), or
            (R, G, B) colours from 0 to 255 in class id order, as an array or nested lists of shape
            (K, 3).
        classes: number of colours needed; "voc" has at least 256.

    Returns:
        np.ndarray: uint8 (K, 3), RGB.

    Raises:
        ConfigError: the name is unknown, or the colours are invalid.
    """
    if isinstance(value, str):
        known = {dataset.name: dataset.palette for dataset in zoo.load().datasets}
        if value == "voc":
            return voc_palette(max(256, classes))
        if value not in known:
            names = ", ".join(["voc", *known])
            raise ConfigError(f"unknown palette {value!r}: use {names}, or a list of (R, G, B)")
        return np.array(known[value], np.uint8)
    try:
        colours = np.array(value)
    except ValueError:  # rows of different lengths
        colours = np.array(None)
    is_table = colours.ndim == 2 and colours.shape[1] == 3 and len(colours) > 0
    if not is_table or colours.dtype.kind not in "iu" or colours.min() < 0 or colours.max() > 255:
        raise ConfigError(
            f"palette {value!r:.80} is not valid: give a name, or a list of (R, G, B), each from "
            "0 to 255"
        )
    return colours.astype(np.uint8)
