"""A sliding window: a large image goes through the network in crops, and their logits are averaged where they overlap.

The crops lie as in PaddleSeg's `slide_inference` (paddleseg/core/infer.py): `stride` apart, the last ones pushed back
so that they end with the image; an image smaller than the crop is one crop. PaddleSeg holds the logits of the whole
image. Here a pixel's class is decided once the last crop that covers it has run, so that besides the labels only the
rows that one row of crops shares with the next are held.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segrt.errors import ConfigError

Size: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a crop."""
Rows: TypeAlias = NDArray[np.float32]
"""Logits as float32 (H, C, W): one row of pixels after the other."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called after each step with the crops of this image that are done, and all of them."""

_FORM = 'use {"crop": N or (height, width), "stride": N or (height, width)}, or True for the window of the model'


@dataclass(frozen=True)
class Window:
    """A sliding window, in pixels of the inference.

    Attributes:
        crop: (height, width) of what goes through the network at once.
        stride: (down, right) from one crop to the next; at most `crop`, or pixels would be left out.
    """

    crop: Size
    stride: Size

    def __post_init__(self) -> None:
        if min(self.stride) < 1 or self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]:
            raise ConfigError(f"slide: the stride {self.stride} must be from 1 to the crop {self.crop} on each side")


def parse_window(value: object) -> Window | bool:
    """Parse a window given as a mapping, as text or as a switch.

    Args:
        value: {"crop": ..., "stride": ...}, each a number or a pair (height, width); text "CROP,STRIDE" or
            "HEIGHT,WIDTH,DOWN,RIGHT"; True or "model" for the window that model_zoo.yaml gives the model; False or
            None for none.

    Raises:
        ConfigError: anything else.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, Window):
        return value
    if isinstance(value, str):
        if value.strip().lower() == "model":
            return True
        numbers = [int(n) for n in value.split(",")] if re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)+", value) else []
        if len(numbers) == 2:
            return Window((numbers[0],) * 2, (numbers[1],) * 2)
        if len(numbers) == 4:
            return Window((numbers[0], numbers[1]), (numbers[2], numbers[3]))
        raise ConfigError(f"slide {value!r} is not valid: use CROP,STRIDE or HEIGHT,WIDTH,DOWN,RIGHT or model")
    if isinstance(value, Mapping) and value.keys() == {"crop", "stride"}:
        return Window(_pair(value["crop"]), _pair(value["stride"]))
    raise ConfigError(f"slide {value!r} is not valid: {_FORM}")


def _pair(value: object) -> Size:
    pair = (value, value) if type(value) is int else value
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(n) is int for n in pair)):
        raise ConfigError(f"slide: {value!r} is not valid: {_FORM}")
    return pair[0], pair[1]


def starts(size: int, crop: int, stride: int) -> list[int]:
    """Where the crops of one axis of length `size` begin."""
    count = max(0, math.ceil((size - crop) / stride)) + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(count)]


def run_window(
    size: Size,
    window: Window,
    infer: Callable[[list[Box]], Iterator[Rows]],
    *,
    batch_size: int = 1,
    with_scores: bool = False,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Run the crops of one image.

    Args:
        size: (height, width) of the inference.
        window: how to cut it.
        infer: gives the logits of crops, each float32 (h, C, w) of the crop's own size, which may be written to.
        batch_size: how many crops `infer` gets at once; they are of one size.
        with_scores: give the scores as well.
        progress: what to call after each batch.

    Returns:
        labels: int32 (H, W), the argmax of the averaged logits; of equal ones the lowest.
        scores: None unless asked for; float32 (H, W): the largest entry of the softmax over the averaged logits.
    """
    height, width = (min(crop, full) for crop, full in zip(window.crop, size, strict=True))
    tops, lefts = (starts(*axis) for axis in zip(size, window.crop, window.stride, strict=True))
    labels = np.empty(size, np.int32)
    scores = np.empty(size, np.float32) if with_scores else None
    down, right = _counts(tops, height, size[0]), _counts(lefts, width, size[1])
    shared = np.empty((0, 0, 0), np.float32)  # sums of the rows that the next row of crops covers too, (H, C, W)
    above = 0  # how many rows that are
    for top, next_top in zip(tops, [*tops[1:], size[0]], strict=True):
        final = next_top - top  # rows of these crops that no later crop covers
        beside = np.empty((height, 0, 0), np.float32)  # sums of the columns that the next crop covers too
        for index, logits in enumerate(_batches(infer, top, height, lefts, width, batch_size)):
            left, next_left = lefts[index], [*lefts[1:], size[1]][index]
            if index:
                logits[:, :, : beside.shape[2]] += beside
            block, beside = logits[:, :, : next_left - left], logits[:, :, next_left - left :]
            columns = slice(left, next_left)
            if above:
                block[:above] += shared[:above, :, columns]
            if final < height:
                if not shared.size:
                    most = max(height - (b - a) for a, b in pairwise(tops))
                    shared = np.empty((most, logits.shape[1], size[1]), np.float32)
                shared[: height - final, :, columns] = block[final:]
            rows = slice(top, next_top)
            mean = block[:final] / (down[rows, None] * right[columns])[:, None]
            labels[rows, columns] = mean.argmax(axis=1)
            if scores is not None:
                mean -= mean.max(axis=1, keepdims=True)
                scores[rows, columns] = 1 / np.exp(mean, out=mean).sum(axis=1)
            if progress is not None and ((index + 1) % batch_size == 0 or index + 1 == len(lefts)):
                progress(tops.index(top) * len(lefts) + index + 1, len(tops) * len(lefts))
        above = height - final
    return labels, scores


def _counts(begins: list[int], length: int, full: int) -> NDArray[np.float32]:
    """How many crops cover each pixel of an axis."""
    counts = np.zeros(full, np.float32)
    for begin in begins:
        counts[begin : begin + length] += 1
    return counts


def _batches(infer: Any, top: int, height: int, lefts: list[int], width: int, batch_size: int) -> Iterator[Rows]:
    for first in range(0, len(lefts), batch_size):
        yield from infer(
            [(slice(top, top + height), slice(left, left + width)) for left in lefts[first : first + batch_size]]
        )
