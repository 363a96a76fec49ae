"""Palettes: the colours of the classes, by name or as a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import zoo
from segrt.colour_distance import CLOSE, VISIONS, ciede2000, to_lab
from segrt.errors import ConfigError

Palette = npt.NDArray[np.uint8]
"""uint8 (K, 3), RGB: one colour for each class id."""

BY_INDEX = ("voc", "distinct")
"""Palettes without class names: colours in class id order."""

# Classes that data sets name differently, in the spelling of `class_key`.
_SAME = (
    ("sidewalk", "pavement"),
    ("person", "pedestrian"),
    ("rider", "bicyclist", "cyclist"),
    ("vegetation", "tree", "plant"),
    ("trafficsign", "signsymbol", "signboard"),
    ("bicycle", "bike"),
    ("motorcycle", "motorbike", "minibike"),
    ("terrain", "grass"),
)

# Printed by tools/make_palette.py.
_DISTINCT = """
6060ff d8f000 a81800 f09000 00a890 ffd8ff c000a8 ff1848 48d860 009000 d878f0 186060 783048
484878 ffc0a8 a8a878 a87860 a8c0f0 604830 c0f0d8 4800d8 d890a8 4890c0 ff1890 ffd890 606030
a86078 00f0f0 c01848 9078a8 0060c0 d86000 487860 d8c000 78c0c0 306000 90c090 789048 781890
c07878 f07860 189090 c0a8ff 007890 d8a8d8 f018d8 904848 9018f0 6078c0 ffa8a8 90ffa8 904878
60a8c0 a80060 a8ff60 60d8c0 60a860 d8a848 9078d8 d84830 787830 906000 784890 6060a8 907848
609078 78a8d8 ffa860 c078a8 48c000 c018ff a8d8ff ffc0d8 c0d878 ff78a8 00a8f0 4848d8 901878
0078d8 d848a8 d8a8a8 ff78d8 c09048 c060ff 906060 78d890 6030a8 007818 784860 a87890 006090
90f0c0 d86090 d8d860 f06078 c04860 306048 78d830 f06030 a8c078 a890ff ffd8c0 90f0ff 30c0ff
004890 a800c0 c09090 ffc048 c090c0 a87800 a878c0 00ff90 901830 48c0d8 1878a8 ffd848 3030c0
7860c0 d81818 009060 78d8f0 784800 90d8d8 909018 c0c0ff 48f0a8 906078 9090c0 d8f078 c0a830
904860 d8a8c0 d8c090 18a848 903048 48f060 78c048 f07890 784878 a8f0f0 c06078 609030 a8d8c0
9060d8 6000ff a8a8f0 a81830 c090a8 a8d848 78a890 f0c0c0 00c078 606090 a878f0 f00078 7878f0
7848c0 a89030 d86060 0090ff d830f0 d8a890 ffc0f0 c07848 a8a848 487830 f0a8c0 a84830 c078d8
d8d800 78a878 60a8a8 f060ff a86048 a860c0 784830 d83060 78ffc0 903018 6090a8 1848ff c0a860
60ff48 307848 90a830 c00090 3078f0 ffa8f0 a8c030 ff7878 c0c048 60f000 c0d890 ff78f0 4830d8
901860 d890c0 f0c0ff 0018f0 ff90ff 78ff78 7848a8 a818f0 f01800 7830d8 30ffd8 d81830 d860ff
901800 006018 604800 90f078 a80018 d89000 189078 78a848 7848f0 6090d8 d8c078 607848 a8f0a8
c03000 609060 3048c0 1890a8 18a8a8 90d8a8 901848 c0f060 c03090 7830a8 00a878 ff18f0 006078
c09000 ff60c0 78f0d8 60d8d8 18fff0 c090d8 90a860 a83018 786030 c030a8 78c0a8 7800d8 f01860
6078a8 3060d8 90c0d8 a80078 60d878 48c090 c030d8 78c078 ffc090
"""


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


def distinct_palette(size: int = 256) -> Palette:
    """Colours that look as different as possible, also with a colour-vision deficiency.

    Any two of the first 20 differ by a CIEDE2000 of at least 21, and of 8.6 as seen without one of
    the three kinds of cones. Each further colour differs from those before it as much as possible.

    Example:
        >>> distinct_palette(2).tolist()
        [[96, 96, 255], [216, 240, 0]]

    Args:
        size: number of colours, at most 2**24 - 1; all differ, and palettes of other sizes begin
            with the same ones.

    Returns:
        np.ndarray: uint8 (size, 3), RGB.
    """
    table = np.frombuffer(bytes.fromhex(_DISTINCT), np.uint8).reshape(-1, 3)
    if size <= len(table):
        return table[:size].copy()
    further = voc_palette(size)
    known = {colour.tobytes() for colour in table}
    further = further[[colour.tobytes() not in known for colour in further]]
    return np.concatenate([table, further])[:size]


def parse_palette(value: object, class_names: Sequence[str] = ()) -> Palette:
    """Look up a palette by name, or check a list of colours.

    The palettes of data sets colour classes by their names. Case, spaces and punctuation don't
    matter, and some classes of other data sets have the same colour: CamVid's Pavement has that of
    Cityscapes' sidewalk. Classes that the data set lacks have those of `distinct_palette` that
    differ most from the rest.

    Example:
        >>> parse_palette("cityscapes", ["Sky", "Road"]).tolist()
        [[70, 130, 180], [128, 64, 128]]

    Args:
        value: "voc", "distinct", the name of a data set in the model zoo ("cityscapes", "ade20k",
            "camvid"), or (R, G, B) colours from 0 to 255 in class id order, as an array or nested
            lists of shape (K, 3).
        class_names: the name of each class id. Without names (`class_7`), the palette of a data set
            with as many classes is taken in class id order.

    Returns:
        np.ndarray: uint8 (K, 3), RGB.

    Raises:
        ConfigError: the name is unknown, a palette by names has none of the classes, or the colours
            are invalid.
    """
    if isinstance(value, str):
        if value in BY_INDEX:
            make = voc_palette if value == "voc" else distinct_palette
            return make(max(256, len(class_names)))
        known = {dataset.name: dataset for dataset in zoo.load().datasets}
        if value not in known:
            names = ", ".join([*BY_INDEX, *known])
            raise ConfigError(f"unknown palette {value!r}: use {names}, or a list of (R, G, B)")
        return _by_name(known[value], class_names)
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


def class_key(name: str) -> str:
    """A class name without case, spaces and punctuation, to compare names of data sets.

    Example:
        >>> class_key("Traffic-Light")
        'trafficlight'
    """
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _by_name(dataset: zoo.Dataset, class_names: Sequence[str]) -> Palette:
    colours = np.array(dataset.palette, np.uint8)
    names = tuple(class_names) or dataset.class_names
    unnamed = names == tuple(f"class_{i}" for i in range(len(names)))
    if names == dataset.class_names or (unnamed and len(names) == len(colours)):
        return colours
    if unnamed:
        raise ConfigError(
            f"the palette {dataset.name!r} has {len(colours)} colours, which go by class name, and "
            f"the model has {len(names)} classes without names: set class_names, or use "
            f"{' or '.join(BY_INDEX)}"
        )
    known = {class_key(name): index for index, name in reversed([*enumerate(dataset.class_names)])}
    found: dict[str, int] = {}  # exact names first, so that they keep their colours
    for spellings in (lambda key: (key,), _synonyms):
        for key in map(class_key, names):
            index = next((known[one] for one in spellings(key) if one in known), None)
            if index is not None and key not in found and index not in found.values():
                found[key] = index
    if not found:
        raise ConfigError(
            f"the palette {dataset.name!r} goes by class name, and has none of the model's classes "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): use "
            f"{' or '.join(BY_INDEX)}, or a list of (R, G, B)"
        )
    missing = [key for key in dict.fromkeys(map(class_key, names)) if key not in found]
    colour_of = {key: colours[index] for key, index in found.items()}
    colour_of.update(zip(missing, _others(colours[[*found.values()]], len(missing)), strict=True))
    return np.array([colour_of[class_key(name)] for name in names], np.uint8)


def _synonyms(key: str) -> Sequence[str]:
    return next((group for group in _SAME if key in group), ())


def _others(taken: Palette, size: int) -> Palette:
    """The colours of `distinct_palette` that differ most from those taken, and each other."""
    candidates = distinct_palette(max(256, size + len(taken)))
    chosen: list[int] = []
    nearest = np.full(len(candidates), np.inf)

    def add(colour: Palette) -> None:
        for vision in VISIONS:
            difference = ciede2000(to_lab(candidates, vision), to_lab(colour, vision))
            np.minimum(nearest, difference / CLOSE[vision], out=nearest)

    for colour in taken:
        add(colour)
    while len(chosen) < size:
        chosen.append(int(nearest.argmax()))
        add(candidates[chosen[-1]])
    return candidates[chosen]
