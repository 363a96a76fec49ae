"""Sliding window: a large image runs in crops, and logits are averaged where crops overlap.

Crops are positioned as in PaddleSeg's `slide_inference` (paddleseg/core/infer.py): `stride` apart,
the last ones moved back so that they end at the edge of the image; an image smaller than the crop
is a single crop. PaddleSeg keeps the logits of the whole image in memory. Here a pixel's class is
decided once the last crop that covers it has run. Labels leave in strips, one for each row of
crops, and only the overlap of one row of crops with the next is kept, as output by the network,
before upsampling. So neither the image nor its labels need to fit into memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segrt.errors import ConfigError
from segrt.postprocess import Upsampled
from segrt.preprocess import Transforms
from segrt.types import MAX_SIDE, shown

Size: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a crop."""

Progress: TypeAlias = Callable[[int, int], None]
"""Progress callback: crops of this image done, and the total."""

SlideLike: TypeAlias = "bool | str | Mapping[Any, int | Sequence[int]] | Window | None"
"""What `parse_window` takes."""

_FORM = (
    'use {"crop": N or (height, width), "stride": N or (height, width)}, or True for the window of '
    "the model"
)


@dataclass(frozen=True)
class Window:
    """A sliding window, in pixels at the inference size.

    Attributes:
        crop: (height, width) of a crop, at most `MAX_SIDE`.
        stride: (down, right) from one crop to the next; at most `crop`, so that no pixel is left
            out.
    """

    crop: Size
    stride: Size

    def __post_init__(self) -> None:
        sides = zip(self.stride, self.crop, strict=True)
        if not all(1 <= stride <= crop <= MAX_SIDE for stride, crop in sides):
            raise ConfigError(
                f"slide: the stride {shown(self.stride)} must be from 1 to the crop "
                f"{shown(self.crop)} on each side, and the crop at most {MAX_SIDE}"
            )


def parse_window(value: object) -> Window | bool:
    """Parse a window given as a mapping, as text or as a switch.

    Example:
        >>> parse_window("1024,768")
        Window(crop=(1024, 1024), stride=(768, 768))

    Args:
        value: {"crop": ..., "stride": ...}, each a number or a pair (height, width); the text
            "CROP,STRIDE" or "HEIGHT,WIDTH,DOWN,RIGHT"; True or "model" for the window that
            model_zoo.yaml defines for the model; False or None for none.

    Raises:
        ConfigError: any other value.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, Window):
        return value
    if isinstance(value, str):
        if value.strip().lower() == "model":
            return True
        is_list = re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)+", value)
        numbers = [int(n) for n in value.split(",")] if is_list else []
        if len(numbers) == 2:
            return Window((numbers[0],) * 2, (numbers[1],) * 2)
        if len(numbers) == 4:
            return Window((numbers[0], numbers[1]), (numbers[2], numbers[3]))
        raise ConfigError(
            f"slide {shown(value)} is not valid: use CROP,STRIDE or HEIGHT,WIDTH,DOWN,RIGHT or "
            "model"
        )
    if isinstance(value, Mapping) and value.keys() == {"crop", "stride"}:
        return Window(_pair(value["crop"]), _pair(value["stride"]))
    raise ConfigError(f"slide {shown(value)} is not valid: {_FORM}")


def _pair(value: object) -> Size:
    pair = (value, value) if type(value) is int else value
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not (is_pair and all(type(n) is int for n in pair)):  # type: ignore[attr-defined]
        raise ConfigError(f"slide: {shown(value)} is not valid: {_FORM}")
    return pair[0], pair[1]  # type: ignore[index]


class Lazy(Protocol):
    """An image that is read crop by crop, such as an array."""

    def __getitem__(self, box: Box, /) -> NDArray[Any]:
        """The pixels of a crop, as `Transforms.fit` returns them."""


class Crops:
    """Runs crops of one image. Only the crops of one batch are normalised at a time.

    Attributes:
        preprocess_s: seconds spent on preparing crops so far.
        run_s: seconds spent in the network so far.
    """

    def __init__(
        self,
        image: Lazy,
        transforms: Transforms,
        run: Callable[[NDArray[np.float32]], NDArray[Any]],
        align_corners: bool,
    ) -> None:
        """Prepare nothing yet.

        Args:
            image: at the inference size, as returned by `Transforms.fit`.
            transforms: from an image to the network's input.
            run: the network, from float32 (N, C, h, w) to logits.
            align_corners: as in `segrt.postprocess.labels_from_logits`.
        """
        self._image, self._transforms, self._run = image, transforms, run
        self._align_corners = align_corners
        self.preprocess_s = self.run_s = 0.0

    def infer(self, boxes: list[Box]) -> Iterator[Upsampled]:
        """The logits of crops of one size, upsampled to that size where they are read."""
        start = perf_counter()
        crops = [self._image[box] for box in boxes]
        height, width = crops[0].shape[:2]
        size = height, width
        batch = self._transforms.batch(crops)
        prepared = perf_counter()
        output = self._run(batch)
        self.preprocess_s += prepared - start
        self.run_s += perf_counter() - prepared
        return (Upsampled(logits, size, align_corners=self._align_corners) for logits in output)


def starts(size: int, crop: int, stride: int) -> list[int]:
    """Where the crops along an axis of length `size` start."""
    count = max(0, math.ceil((size - crop) / stride)) + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(count)]


@dataclass(frozen=True, eq=False)
class Strip:
    """The rows of an image that are decided together, at full width.

    Attributes:
        top: the first row.
        labels: int32 (rows, W), the argmax of the averaged logits; the lowest id in case of a tie.
        scores: None unless requested; float32 (rows, W), the largest entry of the softmax over the
            averaged logits.
    """

    top: int
    labels: NDArray[np.int32]
    scores: NDArray[np.float32] | None

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.top, self.top + len(self.labels))

    def _decide(
        self, y: int, columns: slice, mean: NDArray[np.float32], probabilities: bool
    ) -> None:
        """Decide part of a row from its averaged logits, float32 (C, columns)."""
        self.labels[y - self.top, columns] = mean.argmax(axis=0)
        if self.scores is not None and probabilities:
            self.scores[y - self.top, columns] = mean.max(axis=0)
        elif self.scores is not None:
            odds = mean - mean.max(axis=0)
            self.scores[y - self.top, columns] = 1 / np.exp(odds, out=odds).sum(axis=0)


def run_window(
    size: Size,
    window: Window,
    infer: Callable[[list[Box]], Iterator[Upsampled | None]],
    *,
    batch_size: int = 1,
    with_scores: bool = False,
    probabilities: bool = False,
    progress: Progress | None = None,
    done: int = 0,
) -> Iterator[Strip]:
    """Run the crops of one image, and yield its strips from top to bottom.

    Args:
        size: (height, width) of inference.
        window: how to cut it into crops.
        infer: returns the logits of each crop, at the crop's size. None stands for a crop without
            a pixel that counts: the pixels that no later crop covers have label 0 and score 0, and
            the others must not count in the crops that are averaged with it.
        batch_size: number of crops of one size that `infer` gets at once.
        with_scores: whether to compute the scores too.
        probabilities: as in `segrt.postprocess.labels_from_logits`.
        progress: called after each batch.
        done: number of strips that an earlier call has yielded. They are left out, and crops that
            overlap none of the others are not run; the others are the same, bit for bit.

    Yields:
        Strip: one for each of the rows where crops start, `starts(...)`, down to the next one.
    """
    height, width = (min(crop, full) for crop, full in zip(window.crop, size, strict=True))
    tops, lefts = (starts(*axis) for axis in zip(size, window.crop, window.stride, strict=True))
    down, across = _counts(tops, height, size[0]), _counts(lefts, width, size[1])
    held: list[_Crop] = []  # crops that cover pixels not decided yet
    for row, (top, bottom) in enumerate(zip(tops, [*tops[1:], size[0]], strict=True)):
        if done == len(tops) or top + height <= tops[done]:
            continue
        shape = bottom - top, size[1]
        scores = np.zeros(shape, np.float32) if with_scores else None
        strip = Strip(top, np.zeros(shape, np.int32), scores)
        for index, logits in enumerate(_batches(infer, top, height, lefts, width, batch_size)):
            if logits is not None:
                held.append(_Crop(top, lefts[index], logits))
            # The pixels covered by no later crop: from this corner to those of the next crops.
            left, right = lefts[index], [*lefts[1:], size[1]][index]
            over = [crop for crop in held if crop.left < right and crop.left + width > left]
            if logits is not None and row >= done:
                sums = _sums(over, slice(top, bottom), slice(left, right))
                for y, total in enumerate(sums, top):
                    mean = total / (down[y] * across[left:right])
                    strip._decide(y, slice(left, right), mean, probabilities)
            for crop in over:
                if crop.left + width > right:
                    continue
                if crop.top + height > bottom:
                    crop.logits.forget(bottom - crop.top)
                else:
                    held.remove(crop)
            if progress is not None and ((index + 1) % batch_size == 0 or index + 1 == len(lefts)):
                progress(row * len(lefts) + index + 1, len(tops) * len(lefts))
        if row >= done:
            yield strip


def whole(
    size: Size, strips: Iterator[Strip], with_scores: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """The labels and scores of an image, from all of its strips."""
    labels = np.empty(size, np.int32)
    scores = np.empty(size, np.float32) if with_scores else None
    for strip in strips:
        labels[strip.rows] = strip.labels
        if scores is not None:
            scores[strip.rows] = strip.scores
    return labels, scores


@dataclass(frozen=True, eq=False)
class _Crop:
    """The corner of a crop, and its logits."""

    top: int
    left: int
    logits: Upsampled


def _sums(crops: list[_Crop], rows: slice, columns: slice) -> Iterator[NDArray[np.float32]]:
    """Yield the sum of the logits for each row of a part, (C, columns). The last crop covers it."""
    *others, whole = crops
    parts = []
    for crop in others:
        left = max(crop.left, columns.start)
        right = min(crop.left + crop.logits.size[1], columns.stop)
        below = slice(rows.start - crop.top, min(rows.stop - crop.top, crop.logits.size[0]))
        values = crop.logits.rows(below, slice(left - crop.left, right - crop.left))
        parts.append((slice(left - columns.start, right - columns.start), values))
    offset = slice(rows.start - whole.top, rows.stop - whole.top)
    own = slice(columns.start - whole.left, columns.stop - whole.left)
    for row in whole.logits.rows(offset, own):
        total = row.copy()
        for position, values in parts:
            if (part := next(values, None)) is not None:
                total[:, position] += part
        yield total


def _counts(begins: list[int], length: int, full: int) -> NDArray[np.float32]:
    """The number of crops that cover each pixel of an axis."""
    counts = np.zeros(full, np.float32)
    for begin in begins:
        counts[begin : begin + length] += 1
    return counts


def _batches(
    infer: Any, top: int, height: int, lefts: list[int], width: int, batch_size: int
) -> Iterator[Upsampled | None]:
    for first in range(0, len(lefts), batch_size):
        yield from infer(
            [
                (slice(top, top + height), slice(left, left + width))
                for left in lefts[first : first + batch_size]
            ]
        )
