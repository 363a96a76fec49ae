"""A sliding window: a large image goes through the network in crops, and their logits are averaged where they overlap.

The crops lie as in PaddleSeg's `slide_inference` (paddleseg/core/infer.py): `stride` apart, the last ones pushed back
so that they end with the image; an image smaller than the crop is one crop. PaddleSeg holds the logits of the whole
image. Here a pixel's class is decided once the last crop that covers it has run, so that besides the labels only what
one row of crops shares with the next is held, and that as the network gave it, before its upsampling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segrt.errors import ConfigError
from segrt.postprocess import Upsampled

Size: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a crop."""
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
            raise ConfigError(
                f"slide: the stride {self.stride} must be from 1 to the crop {self.crop} on each side"
            )


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
        numbers = (
            [int(n) for n in value.split(",")]
            if re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)+", value)
            else []
        )
        if len(numbers) == 2:
            return Window((numbers[0],) * 2, (numbers[1],) * 2)
        if len(numbers) == 4:
            return Window((numbers[0], numbers[1]), (numbers[2], numbers[3]))
        raise ConfigError(
            f"slide {value!r} is not valid: use CROP,STRIDE or HEIGHT,WIDTH,DOWN,RIGHT or model"
        )
    if isinstance(value, Mapping) and value.keys() == {"crop", "stride"}:
        return Window(_pair(value["crop"]), _pair(value["stride"]))
    raise ConfigError(f"slide {value!r} is not valid: {_FORM}")


def _pair(value: object) -> Size:
    pair = (value, value) if type(value) is int else value
    if not (
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(n) is int for n in pair)
    ):
        raise ConfigError(f"slide: {value!r} is not valid: {_FORM}")
    return pair[0], pair[1]


def starts(size: int, crop: int, stride: int) -> list[int]:
    """Where the crops of one axis of length `size` begin."""
    count = max(0, math.ceil((size - crop) / stride)) + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(count)]


def run_window(
    size: Size,
    window: Window,
    infer: Callable[[list[Box]], Iterator[Upsampled]],
    *,
    batch_size: int = 1,
    with_scores: bool = False,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Run the crops of one image.

    Args:
        size: (height, width) of the inference.
        window: how to cut it.
        infer: gives the logits of crops, each for the crop's own size.
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
    down, across = _counts(tops, height, size[0]), _counts(lefts, width, size[1])
    held: list[_Crop] = []  # that cover pixels not yet decided
    for top, bottom in zip(tops, [*tops[1:], size[0]], strict=True):
        for index, logits in enumerate(_batches(infer, top, height, lefts, width, batch_size)):
            held.append(_Crop(top, lefts[index], logits))
            # Which pixels have all their crops now: from this one's corner to the next ones'.
            left, right = lefts[index], [*lefts[1:], size[1]][index]
            over = [crop for crop in held if crop.left < right and crop.left + width > left]
            count = across[left:right]
            for y, total in enumerate(_sums(over, slice(top, bottom), slice(left, right)), top):
                mean = total / (down[y] * count)
                labels[y, left:right] = mean.argmax(axis=0)
                if scores is not None:
                    odds = mean - mean.max(axis=0)
                    scores[y, left:right] = 1 / np.exp(odds, out=odds).sum(axis=0)
            for crop in over:
                if crop.left + width > right:
                    continue
                if crop.top + height > bottom:
                    crop.logits.forget(bottom - crop.top)
                else:
                    held.remove(crop)
            if progress is not None and ((index + 1) % batch_size == 0 or index + 1 == len(lefts)):
                progress(tops.index(top) * len(lefts) + index + 1, len(tops) * len(lefts))
    return labels, scores


@dataclass(frozen=True, eq=False)
class _Crop:
    """Where a crop begins, and its logits."""

    top: int
    left: int
    logits: Upsampled


def _sums(crops: list[_Crop], rows: slice, columns: slice) -> Iterator[NDArray[np.float32]]:
    """Yield the sum of the logits for each row of a part: (C, columns). The last crop covers all of it."""
    *others, whole = crops
    parts = []
    for crop in others:
        left, right = (
            max(crop.left, columns.start),
            min(crop.left + crop.logits.size[1], columns.stop),
        )
        below = slice(rows.start - crop.top, min(rows.stop - crop.top, crop.logits.size[0]))
        parts.append(
            (
                slice(left - columns.start, right - columns.start),
                crop.logits.rows(below, slice(left - crop.left, right - crop.left)),
            )
        )
    offset = slice(rows.start - whole.top, rows.stop - whole.top)
    for row in whole.logits.rows(
        offset, slice(columns.start - whole.left, columns.stop - whole.left)
    ):
        total = row.copy()
        for place, values in parts:
            if (part := next(values, None)) is not None:
                total[:, place] += part
        yield total


def _counts(begins: list[int], length: int, full: int) -> NDArray[np.float32]:
    """How many crops cover each pixel of an axis."""
    counts = np.zeros(full, np.float32)
    for begin in begins:
        counts[begin : begin + length] += 1
    return counts


def _batches(
    infer: Any, top: int, height: int, lefts: list[int], width: int, batch_size: int
) -> Iterator[Upsampled]:
    for first in range(0, len(lefts), batch_size):
        yield from infer(
            [
                (slice(top, top + height), slice(left, left + width))
                for left in lefts[first : first + batch_size]
            ]
        )
