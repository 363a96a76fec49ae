"""Palettes: the colours of the classes, by name or as a list."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segrt import zoo
from segrt.colour_distance import CLOSE, VISIONS, ciede2000, to_lab
from segrt.errors import ConfigError

Palette = npt.NDArray[np.uint8]
"""uint8 (K, 3), RGB: one colour for each class id."""

BY_INDEX = ("voc", "distinct")
"""Palettes without class names: colours in class id order."""

# Classes that data sets name differently, in the spelling of `_key`.
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
3090ff ffa800 006030 7800f0 a8f0ff f0d8d8 901800 a81860 906000 484848 789060 f0a8ff 004890
f06018 9090a8 f07890 007890 60ff78 d8d8a8 00c0a8 ff00d8 f00048 ffd800 786078 a8c0d8 90c060
a87878 d8a890 a860a8 7878c0 c09048 60a8c0 009048 a80030 784848 909018 486060 787860 c018d8
f0a8c0 a86030 7848a8 d83090 a89078 78a890 a8a878 d80000 60fff0 484878 c0f0c0 c0a8a8 6060ff
f078d8 00d800 3030c0 604818 009090 a86078 a878d8 487848 d8c0f0 60a860 900078 f0c090 d860ff
c090c0 783048 c0d860 90a8ff 90c0c0 a8c0a8 307800 c0a848 a8ff48 607878 7800a8 d86090 d80060
7890c0 607830 604860 ffc0c0 6060c0 906060 0078d8 60c0f0 78d878 30a878 d8f0a8 c0d8d8 a8a800
784878 a8d8c0 78d8d8 786030 a890f0 a878a8 a8d8ff 609078 7860a8 0060a8 7848f0 1848c0 c0c048
c01890 c09090 f06060 48a830 a8a8c0 a8f090 48f0a8 307860 606000 907848 d87830 0000f0 6078a8
78d8a8 d890a8 90f0d8 ffd8f0 a81848 3030ff c03048 d818c0 ffc048 78a8d8 d878a8 a87890 4878f0
0060d8 ffa890 c0a8d8 9060c0 d8c060 903030 d8c0a8 d8c0d8 0090d8 d890ff f00078 489018 ffc0ff
48c048 c03078 c0d8f0 d86000 f00018 a8c0ff c030ff c0c090 901860 a800a8 900048 a87830 a8c078
ffd890 00a848 a80078 c0f060 f090f0 a818f0 60d8f0 60d8c0 906048 ff1890 d89060 60a8a8 ff7830
c03030 9018c0 789048 907878 f060f0 ff0060 c0d800 00c078 d8a8c0 6000d8 18f0d8 901890 00c0d8
6030d8 00f078 a878ff 00ff00 a830c0 d86078 009078 a860f0 a8d848 90c090 0048ff d8a860 c078c0
a83000 901830 7890f0 606060 784818 786048 484860 c07860 781890 ff78ff 4848a8 904818 9030d8
4878c0 d8d878 a8a8a8 90f0f0 9078a8 78ffa8 4830a8 60f048 606048 c04890 78a848 00a8d8 48ffc0
306000 90a830 489060 007878 ff7860 007830 48ffd8 a86060 d8a800 d830f0 ff30c0 907890 60a800
d80048 d830a8 c01830 30a890 d8d890 c0a8f0 d89030 78a878 d8c030 c03060 c07830 90a860 486030
60d860 c078a8 c0a8c0 d86048 a830ff 18f0f0 9048a8 ff6048 c078f0
"""


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

    Any two of the first 20 differ by a CIEDE2000 of at least 22, and of 8.8 as seen without one of
    the three kinds of cones. Each further colour differs from those before it as much as possible.

    Example:
        >>> distinct_palette(2).tolist()
        [[48, 144, 255], [255, 168, 0]]

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
    known = {_key(name): index for index, name in reversed([*enumerate(dataset.class_names)])}
    found: dict[str, int] = {}  # exact names first, so that they keep their colours
    for spellings in (lambda key: (key,), _synonyms):
        for key in map(_key, names):
            index = next((known[one] for one in spellings(key) if one in known), None)
            if index is not None and key not in found and index not in found.values():
                found[key] = index
    if not found:
        raise ConfigError(
            f"the palette {dataset.name!r} goes by class name, and has none of the model's classes "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): use "
            f"{' or '.join(BY_INDEX)}, or a list of (R, G, B)"
        )
    missing = [key for key in dict.fromkeys(map(_key, names)) if key not in found]
    colour_of = {key: colours[index] for key, index in found.items()}
    colour_of.update(zip(missing, _others(colours[[*found.values()]], len(missing)), strict=True))
    return np.array([colour_of[_key(name)] for name in names], np.uint8)


def _key(name: str) -> str:
    """A class name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


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
