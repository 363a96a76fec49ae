"""The network's logits (or labels) -> label maps of the source image's size.

An exported graph ends at the network's own logits, 1/4 or 1/8 of the inference size. PaddleSeg upsamples them
bilinearly, takes the argmax, and sends the label map to the source size by nearest neighbour. This module gives the
same labels without ever making the full-size logits:

* Each pixel of the source is one of the inference size, and that one lies in one cell of the low-resolution grid, the
  square between four neighbouring logits. Only the pixels asked for are computed.
* Bilinear interpolation is a convex combination of the four corners. A class that wins at all of them wins in the
  whole cell. On photographs that settles three cells of four, or more.
* In the other cells, a class that one other class beats at all four corners can't win. Two or three classes are left
  as a rule, and only these are interpolated.

The loop over the cells is compiled by Numba for the first image of a new installation; from then on the machine code
is read from Numba's cache. It runs without the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from segrt.errors import ModelError

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SAFE = np.finfo(np.float32).max / 4  # differences between logits within +-_SAFE don't overflow


def labels_from_logits(
    logits: NDArray[Any],
    size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
    *,
    align_corners: bool = False,
    with_scores: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Give each pixel of the source its class: bilinear upsampling, argmax and nearest neighbour in one step.

    Of equal classes the lowest id wins, as with `np.argmax`; and as there, a NaN counts as the largest value of all.
    A corner whose interpolation weight is 0 is not looked at: a NaN or an infinity there has no effect. Class ids are
    in range whatever the logits hold.

    Args:
        logits: float, shape (N, C, h, w), of any scale relative to `size`; computed with as float32.
        size: (height, width) of the inference, that is of the network's input.
        source_size: (height, width) of the source image; None means `size`.
        align_corners: the convention of the network's last interpolation. Pixel i of H has the coordinate
            i * (h - 1) / (H - 1) if true, max((i + 0.5) * h / H - 0.5, 0) if false: Paddle's `bilinear_interp` with a
            given output size (align_mode 0), and the ONNX operator Resize.
        with_scores: give the scores as well. They take every class at every pixel, so this is many times slower.

    Returns:
        labels: int32, shape (N, Hs, Ws) of the source, class ids in [0, C).
        scores: None unless asked for; float32, same shape, in (0, 1]: the largest entry of the softmax over the
            upsampled logits. NaN where that softmax is not defined (NaN or +inf takes part, or every class is -inf).

    Raises:
        ModelError: `logits` is empty or does not have four dimensions.
        ValueError: a size is not positive.
    """
    if logits.ndim != 4 or logits.size == 0:
        raise ModelError(
            f"expected logits of shape (N, C, h, w), got {logits.shape}: is this a segmentation model?"
        )
    source_size = source_size or size
    if min(*size, *source_size) < 1:
        raise ValueError(f"sizes must be positive, got {size} and {source_size}")
    # Where the source is larger than the inference, its pixels repeat: compute each once, repeat the labels.
    rows, cols = (
        _axis(low, full, min(full, source), align_corners)
        for low, full, source in zip(logits.shape[2:], size, source_size, strict=True)
    )
    labels = np.empty((len(logits), *source_size), np.int32)
    scores = np.empty(labels.shape, np.float32) if with_scores else None
    for n, image in enumerate(logits):
        low = np.ascontiguousarray(image, np.float32)
        calm = bool(low.min() >= -_SAFE and low.max() <= _SAFE)  # false for NaN too
        found = (_sparse_labels if calm else _dense_labels)(low, rows, cols)
        labels[n] = resize_nearest(found, source_size)
        if scores is not None:
            scores[n] = resize_nearest(_dense_scores(low, rows, cols), source_size)
    return labels, scores


class Upsampled:
    """The logits of one image, upsampled bilinearly where they are asked for.

    Attributes:
        size: (height, width) of the inference.
    """

    def __init__(
        self, logits: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False
    ) -> None:
        """Take what a network gave.

        Args:
            logits: float, shape (C, h, w).
            size: (height, width).
            align_corners: as in `labels_from_logits`.
        """
        self.size = size
        self._low = np.ascontiguousarray(logits, np.float32)
        self._first = 0  # row of the logits that `_low` begins with
        self._rows, self._cols = (
            _axis(low, full, full, align_corners)
            for low, full in zip(logits.shape[1:], size, strict=True)
        )

    def rows(self, rows: slice, columns: slice) -> Iterator[NDArray[np.float32]]:
        """Yield each row of a part: float32, shape (C, columns). Read-only."""
        return _upsampled(self._low, self._rows, self._cols, rows, columns, self._first)

    def forget(self, row: int) -> None:
        """Free what only the rows above this one need: they can't be asked for any more."""
        first = int(self._rows.pixel_ends[0, row])
        self._low, self._first = self._low[:, first - self._first :].copy(), first


def resize_labels(labels: NDArray[Any], source_size: tuple[int, int]) -> NDArray[np.int32]:
    """Send label maps to the source size by nearest neighbour, for models that end in an argmax of their own.

    Args:
        labels: integers, shape (N, H, W) of the inference.
        source_size: (height, width) of the source image.

    Returns:
        int32, shape (N, Hs, Ws): what `cv2.resize(..., interpolation=cv2.INTER_NEAREST)` makes of each.

    Raises:
        ModelError: `labels` is empty, does not have three dimensions or does not hold integers.
    """
    if labels.ndim != 3 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ModelError(
            f"expected integer labels of shape (N, H, W), got {labels.dtype} {labels.shape}: is this a segmentation "
            "model?"
        )
    return np.stack([resize_nearest(image.astype(np.int32), source_size) for image in labels])


@dataclass(frozen=True)
class _Axis:
    """One axis of the upsampling: the cells that hold pixels, and where in its cell each pixel lies.

    A cell lies between two neighbouring logits. The first and the last may lie outside the grid: both of theirs are
    the edge logit.

    Attributes:
        ends: intp, shape (2, cells): the logits before and after each cell.
        start: intp, shape (cells + 1,): the first pixel of each cell, and the number of pixels. No cell is empty.
        weight: float32, shape (pixels,), in [0, 1): how much each pixel takes of the logit after it.
    """

    ends: NDArray[np.intp]
    start: NDArray[np.intp]
    weight: NDArray[np.float32]

    @cached_property
    def pixel_ends(self) -> NDArray[np.intp]:
        """The logits before and after each pixel: shape (2, pixels)."""
        return self.ends.repeat(np.diff(self.start), axis=1)


@lru_cache(maxsize=64)
def _axis(low: int, full: int, pixels: int, align_corners: bool) -> _Axis:
    """Place `pixels` <= `full` nearest-neighbour samples of an axis of length `full` among its `low` logits."""
    sample = _nearest(full, pixels)
    if align_corners:
        numerator, denominator = sample * (low - 1), max(full - 1, 1)
    else:
        numerator, denominator = (2 * sample + 1) * low - full, 2 * full
    cell, rest = np.divmod(
        numerator, denominator
    )  # integers: no rounding moves a pixel to a neighbouring cell
    weight = (rest / denominator).astype(np.float32)
    start = np.flatnonzero(np.diff(cell, prepend=-2))
    ends = np.array([cell[start], cell[start] + 1]).clip(0, low - 1)
    return _Axis(ends, np.append(start, pixels), weight)


def _nearest(full: int, pixels: int) -> NDArray[np.intp]:
    """Which of `full` pixels each of `pixels` samples takes: the rule of cv2.INTER_NEAREST, in its own arithmetic."""
    return np.asarray(np.minimum(np.arange(pixels) * (1 / (pixels / full)), full - 1), np.intp)


def resize_nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize labels or scores (H, W) to `size` by nearest neighbour; those that have it are not copied."""
    return (
        image
        if image.shape == size
        else cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
    )


def _sparse_labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols`, interpolating finite logits (C, h, w) where needed."""
    classes, _, width = low.shape
    flat = low.reshape(classes, -1)
    places = cv2.transpose(flat).reshape(-1, classes)
    labels = np.empty((len(rows.weight), len(cols.weight)), np.int32)
    most = int(np.diff(rows.start).max() * np.diff(cols.start).max())
    _label_cells(labels, places, _argmax(flat), width, most, *_fields(rows), *_fields(cols))
    return labels


def _argmax(low: NDArray[np.float32]) -> NDArray[np.intp]:
    """`low.argmax(0)` of (C, n) without NaN, several times as fast since it reads memory in order."""
    classes = len(low)
    rank = np.arange(
        classes, 0, -1, dtype=np.uint8 if classes < 256 else np.int32
    )  # of equals the lowest id leads
    return np.asarray(classes - ((low == low.max(0)) * rank[:, None]).max(0), np.intp)


def _fields(axis: _Axis) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    return axis.ends, axis.start, axis.weight


def _compiled(function: _Function) -> _Function:
    """Have Numba compile it at the first call, and keep the machine code where a folder can be written."""
    try:
        compiled: _Function = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache: a read-only system
        compiled = numba.njit(nogil=True)(function)
    return compiled


@_compiled
def _contend(
    able: NDArray[np.bool_],
    contenders: NDArray[np.intp],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    c: NDArray[np.float32],
    d: NDArray[np.float32],
    one: int,
    other: int,
) -> int:
    """Find the classes that may win in a cell: those that neither `one` nor `other` beats at all four corners.

    Args:
        able: shape (C,), overwritten.
        contenders: shape (C,), overwritten: these classes, ascending, then anything.
        a: shape (C,): the logits of the upper left corner; `b`, `c` and `d` of the others.
        one: the winner of a corner. It is a contender, and so is what ties with it at a corner.
        other: likewise.

    Returns:
        int: how many there are.
    """
    a1, b1, c1, d1, a2, b2, c2, d2 = (
        a[one],
        b[one],
        c[one],
        d[one],
        a[other],
        b[other],
        c[other],
        d[other],
    )
    for k in range(len(able)):  # without a branch: many at once
        able[k] = ((a[k] >= a1) | (b[k] >= b1) | (c[k] >= c1) | (d[k] >= d1)) & (
            (a[k] >= a2) | (b[k] >= b2) | (c[k] >= c2) | (d[k] >= d2)
        )
    count = 0
    for k in range(len(able)):
        contenders[count] = k
        count += able[k]
    return count


@_compiled
def _label_cells(
    labels: NDArray[np.int32],
    logits: NDArray[np.float32],
    winner: NDArray[np.intp],
    width: int,
    most: int,
    row_ends: NDArray[np.intp],
    row_start: NDArray[np.intp],
    row_weight: NDArray[np.float32],
    col_ends: NDArray[np.intp],
    col_start: NDArray[np.intp],
    col_weight: NDArray[np.float32],
) -> None:
    """Write the label of every pixel, cell by cell.

    Args:
        labels: shape (pixel rows, pixel columns), overwritten.
        logits: shape (h * w, C), finite.
        winner: shape (h * w,): the class that wins at each of them, of equals the lowest.
        width: w.
        most: pixels of the largest cell.
        row_ends: `_Axis.ends` of the rows; `row_start` and `row_weight` likewise.
        col_ends: `_Axis.ends` of the columns; `col_start` and `col_weight` likewise.
    """
    classes = logits.shape[1]
    weights = np.empty((4, most), np.float32)
    lead, value_of_lead = np.empty(most, np.int32), np.empty(most, np.float32)
    able, contenders = np.empty(classes, np.bool_), np.empty(classes, np.intp)
    for i in range(len(row_start) - 1):
        top, bottom = row_start[i], row_start[i + 1]
        for j in range(len(col_start) - 1):
            left, right = col_start[j], col_start[j + 1]
            upper_left = row_ends[0, i] * width + col_ends[0, j]
            upper_right = row_ends[0, i] * width + col_ends[1, j]
            lower_left = row_ends[1, i] * width + col_ends[0, j]
            lower_right = row_ends[1, i] * width + col_ends[1, j]
            one = winner[upper_left]
            other = winner[upper_right]
            other = winner[lower_left] if other == one else other
            other = winner[lower_right] if other == one else other
            if other == one:
                for y in range(top, bottom):
                    for x in range(left, right):
                        labels[y, x] = one
                continue

            a, b, c, d = (
                logits[upper_left],
                logits[upper_right],
                logits[lower_left],
                logits[lower_right],
            )
            count = _contend(able, contenders, a, b, c, d, one, other)
            pixels = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    weights[0, pixels] = (1 - row_weight[y]) * (1 - col_weight[x])
                    weights[1, pixels] = (1 - row_weight[y]) * col_weight[x]
                    weights[2, pixels] = row_weight[y] * (1 - col_weight[x])
                    weights[3, pixels] = row_weight[y] * col_weight[x]
                    lead[pixels] = 0
                    value_of_lead[pixels] = -np.inf
                    pixels += 1
            for contender in range(count):
                k = contenders[contender]
                ak, bk, ck, dk = a[k], b[k], c[k], d[k]
                for p in range(pixels):
                    value = (
                        weights[0, p] * ak
                        + weights[1, p] * bk
                        + weights[2, p] * ck
                        + weights[3, p] * dk
                    )
                    ahead = (
                        value > value_of_lead[p]
                    )  # so of equals the lowest id wins: the contenders ascend
                    lead[p] = k if ahead else lead[p]
                    value_of_lead[p] = value if ahead else value_of_lead[p]
            pixels = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    labels[y, x] = lead[pixels]
                    pixels += 1


def _dense_labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from any logits (C, h, w), interpolating every class at every pixel."""
    return np.array([values.argmax(0) for values in _upsampled(low, rows, cols)], np.int32)


def _dense_scores(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.float32]:
    """Highest softmax probability of `rows` x `cols` from any logits (C, h, w)."""
    scores = np.empty((len(rows.weight), len(cols.weight)), np.float32)
    for row, values in zip(scores, _upsampled(low, rows, cols), strict=True):
        with np.errstate(invalid="ignore"):
            odds = values - values.max(0)
        np.divide(1, np.exp(odds, out=odds).sum(0), out=row)
    return scores


def _upsampled(
    low: NDArray[np.float32],
    rows: _Axis,
    cols: _Axis,
    part_rows: slice = slice(None),
    part_columns: slice = slice(None),
    first: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Yield each of `rows`, or of a part of them, upsampled: float32, shape (C, pixels of `cols`). Read-only.

    Args:
        low: (C, h, w), from row `first` of the logits on.
        rows: the upsampling's rows.
        cols: its columns.
        part_rows: which of the rows.
        part_columns: which of the columns.
        first: see `low`.
    """
    before, after = cols.pixel_ends[:, part_columns]
    right = cols.weight[part_columns]

    @lru_cache(maxsize=2)
    def line(y: int) -> NDArray[np.float32]:
        a, b = low[:, y].take(before, axis=1), low[:, y].take(after, axis=1)
        return np.where(right == 0, a, _mix(a, b, right))

    for y0, y1, weight in zip(
        *rows.pixel_ends[:, part_rows] - first, rows.weight[part_rows], strict=True
    ):
        yield line(y0) if weight == 0 else _mix(line(y0), line(y1), weight)


def _mix(
    a: NDArray[np.float32], b: NDArray[np.float32], weight: np.float32 | NDArray[np.float32]
) -> NDArray[np.float32]:
    """(1 - weight) * a + weight * b. The caller sees to weights of 0, since 0 * inf and 0 * NaN are NaN."""
    with np.errstate(invalid="ignore"):
        return (1 - weight) * a + weight * b
