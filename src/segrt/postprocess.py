"""From the network's logits (or labels) to label maps of the source size.

An exported graph ends at the network's own logits, 1/4 or 1/8 of the inference size. PaddleSeg
upsamples them bilinearly, takes the argmax and resizes the label map to the source size by nearest
neighbour. This module computes the same labels without the full-size logits:

* Each source pixel maps to one pixel of the inference size, and that pixel lies in one cell of the
  low-resolution grid: the square between four neighbouring logits. Only these pixels are computed.
* Bilinear interpolation is a convex combination of the four corners, so a class that wins at all of
  them wins in the whole cell. On photographs this settles at least three quarters of the cells.
* In the remaining cells, a class that some other class beats at all four corners can't win. This
  usually leaves two or three classes, and only these are interpolated.

Numba compiles the loop over the cells for the first image after installation; later processes load
the machine code from Numba's cache. The loop runs without the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import cv2
import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import NDArray

from segrt import forks
from segrt.errors import ModelError
from segrt.metadata import ModelMeta
from segrt.preprocess import Layout, Padding, PaddingByAspectRatio

Labels: TypeAlias = NDArray[np.int32]
Scores: TypeAlias = NDArray[np.float32] | None
_Function = TypeVar("_Function", bound=Callable[..., Any])

forks.hold(global_compiler_lock)

# Differences between logits within +-_SAFE don't overflow.
_SAFE = np.finfo(np.float32).max / 4


def labels_from_logits(
    logits: NDArray[Any],
    size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
    *,
    align_corners: bool = False,
    with_scores: bool = False,
    probabilities: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Label every source pixel: bilinear upsampling, argmax and nearest neighbour in one step.

    Ties go to the lowest class id and a NaN counts as the largest value, as with `np.argmax`.
    Corners with interpolation weight 0 have no effect, even NaN. Class ids are always in range.

    Example:
        >>> logits = np.random.rand(1, 19, 64, 128).astype(np.float32)
        >>> labels, _ = labels_from_logits(logits, size=(512, 1024), source_size=(1080, 1920))
        >>> labels.shape
        (1, 1080, 1920)

    Args:
        logits: float, shape (N, C, h, w), at any scale relative to `size`; converted to float32.
        size: inference size (height, width), i.e. the size of the network's input.
        source_size: (height, width) of the source image; None for `size`.
        align_corners: pixel i of H has the coordinate i * (h - 1) / (H - 1) if true,
            max((i + 0.5) * h / H - 0.5, 0) if false, as in Paddle's `bilinear_interp` (align_mode
            0) and the ONNX operator Resize.
        with_scores: also return scores; many times slower, as they need all classes everywhere.
        probabilities: whether `logits` are probabilities, which are the scores as they are.

    Returns:
        labels: int32, shape (N, Hs, Ws) of the source, class ids in [0, C).
        scores: None without `with_scores`; otherwise float32, same shape, in (0, 1]: the largest
            softmax probability, or NaN where a class is NaN or +inf or all classes are -inf.

    Raises:
        ModelError: `logits` is empty or does not have four dimensions.
        ValueError: a size is not positive.
    """
    if logits.ndim != 4 or logits.size == 0:
        what = f"expected logits of shape (N, C, h, w), got {logits.shape}"
        raise ModelError(f"{what}: is this a segmentation model?")
    source_size = source_size or size
    if min(*size, *source_size) < 1:
        raise ValueError(f"sizes must be positive, got {size} and {source_size}")
    # A source larger than the inference size repeats pixels: compute each once, then repeat labels.
    rows, cols = (
        _axis(low, full, min(full, source), align_corners)
        for low, full, source in zip(logits.shape[2:], size, source_size, strict=True)
    )
    labels = np.empty((len(logits), *source_size), np.int32)
    scores = np.empty(labels.shape, np.float32) if with_scores else None
    for n, image in enumerate(logits):
        low = np.ascontiguousarray(image, np.float32)
        labels[n] = resize_nearest(_labels(low, rows, cols), source_size)
        if scores is not None:
            dense = _dense_scores(low, rows, cols, probabilities=probabilities)
            scores[n] = resize_nearest(dense, source_size)
    return labels, scores


def finish(
    output: NDArray[Any], meta: ModelMeta, layout: Layout, with_scores: bool = False
) -> tuple[Labels, Scores]:
    """Turn the network's output for one image into labels at the size of the source image.

    Args:
        output: logits or probabilities, float (C, h, w), or labels, integers (H, W), depending on
            `meta.output`.
        meta: the metadata of the model.
        layout: how the image got to its inference size.
        with_scores: whether to return the scores too.

    Returns:
        labels: int32 (Hs, Ws).
        scores: as in `labels_from_logits`.

    Raises:
        ModelError: `output` is not of that form.
    """
    if meta.output == "labels":
        labels = resize_labels(output[None], layout.size)[0]
        return to_source(labels, layout), None
    direct = meta.interpolate_to == "source" and not any(map(_pads, layout.steps))
    size = layout.source if direct else layout.size
    batch, batch_scores = labels_from_logits(
        output[None],
        size,
        layout.source if layout.is_plain else size,
        align_corners=meta.align_corners,
        with_scores=with_scores,
        probabilities=meta.output == "probabilities",
    )
    scores = None if batch_scores is None else batch_scores[0]
    if direct or layout.is_plain:
        return batch[0], scores
    return to_source(batch[0], layout), None if scores is None else to_source(scores, layout)


def to_source(image: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Bring labels or scores (h, w) of the inference size to that of the source image.

    Each step is undone, the last one first: padding is cropped off, and a resize is undone by
    nearest neighbour.
    """
    if layout.is_plain:
        return resize_nearest(image, layout.source)
    samples = []
    for axis in (0, 1):
        index, before = np.arange(layout.source[axis]), layout.source[axis]
        for step in layout.steps:
            after = step[1][axis]
            if not _pads(step):
                index = nearest_pixels(after, before)[index]
            before = after
        samples.append(index)
    return np.ascontiguousarray(image[np.ix_(*samples)])


def _pads(step: tuple[object, object]) -> bool:
    return isinstance(step[0], (Padding, PaddingByAspectRatio))


class Upsampled:
    """The bilinearly upsampled logits of one image, computed on demand.

    Example:
        >>> upsampled = Upsampled(np.zeros((19, 64, 128), np.float32), (512, 1024))
        >>> [row.shape for row in upsampled.rows(slice(0, 2), slice(0, 100))]
        [(19, 100), (19, 100)]

    Attributes:
        size: inference size (height, width).
    """

    def __init__(
        self, logits: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False
    ) -> None:
        """Prepare the upsampling.

        Args:
            logits: float, shape (C, h, w).
            size: (height, width).
            align_corners: as in `labels_from_logits`.
        """
        self.size = size
        self._low = np.ascontiguousarray(logits, np.float32)
        self._first = 0  # index of the first row of logits in `_low`
        self._rows, self._cols = (
            _axis(low, full, full, align_corners)
            for low, full in zip(logits.shape[1:], size, strict=True)
        )

    def rows(self, rows: slice, columns: slice) -> Iterator[NDArray[np.float32]]:
        """Yield the rows of a region: float32, shape (C, columns), read-only."""
        return _upsampled(self._low, self._rows, self._cols, rows, columns, self._first)

    def forget(self, row: int) -> None:
        """Free the memory of all rows above this one; they can't be requested any more."""
        first = int(self._rows.pixel_ends[0, row])
        self._low, self._first = self._low[:, first - self._first :].copy(), first


def resize_labels(labels: NDArray[Any], source_size: tuple[int, int]) -> NDArray[np.int32]:
    """Resize label maps to the source size by nearest neighbour, for models with a final argmax.

    Example:
        >>> resize_labels(np.zeros((1, 512, 512), np.int64), (1080, 1920)).shape
        (1, 1080, 1920)

    Args:
        labels: integers, shape (N, H, W) of the inference size.
        source_size: (height, width) of the source image.

    Returns:
        np.ndarray: int32, shape (N, Hs, Ws), equal to
            `cv2.resize(..., interpolation=cv2.INTER_NEAREST)` of each label map.

    Raises:
        ModelError: `labels` is empty, does not have three dimensions or is not of integers.
    """
    if labels.ndim != 3 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ModelError(
            f"expected integer labels of shape (N, H, W), got {labels.dtype} {labels.shape}: is "
            "this a segmentation model?"
        )
    return np.stack([resize_nearest(image.astype(np.int32), source_size) for image in labels])


class _Axis(NamedTuple):
    """One axis of the upsampling: its cells, and the position of each pixel in its cell.

    A cell lies between two neighbouring logits. The first and the last cell may extend beyond the
    grid; both of their logits are then the one at the edge.

    Attributes:
        ends: intp, shape (2, cells): indices of the logits before and after each cell.
        start: intp, shape (cells + 1,): the first pixel of each cell, then the number of pixels. No
            cell is empty.
        weight: float32, shape (pixels,), in [0, 1): each pixel's weight of the logit after it.
        pixel_ends: intp, shape (2, pixels): indices of the logits before and after each pixel.
    """

    ends: NDArray[np.intp]
    start: NDArray[np.intp]
    weight: NDArray[np.float32]
    pixel_ends: NDArray[np.intp]


@lru_cache(maxsize=64)
def _axis(low: int, full: int, pixels: int, align_corners: bool) -> _Axis:
    """Locate `pixels` <= `full` nearest-neighbour samples of an axis among its `low` logits."""
    sample = nearest_pixels(full, pixels)
    if align_corners:
        numerator, denominator = sample * (low - 1), max(full - 1, 1)
    else:
        numerator, denominator = (2 * sample + 1) * low - full, 2 * full
    # In integers, so that rounding can't move a pixel to a neighbouring cell.
    cell, rest = np.divmod(numerator, denominator)
    weight = (rest / denominator).astype(np.float32)
    first = np.flatnonzero(np.diff(cell, prepend=-2))
    ends = np.array([cell[first], cell[first] + 1]).clip(0, low - 1)
    start = np.append(first, pixels)
    return _Axis(ends, start, weight, ends.repeat(np.diff(start), axis=1))


def nearest_pixels(full: int, pixels: int) -> NDArray[np.intp]:
    """Index in `full` pixels of each of `pixels` samples, computed as cv2.INTER_NEAREST does."""
    return np.asarray(np.minimum(np.arange(pixels) * (1 / (pixels / full)), full - 1), np.intp)


def resize_nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize labels or scores (H, W) by nearest neighbour; not copied if the size is the same."""
    if image.shape == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST))


def _labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from any logits (C, h, w)."""
    safe = bool(low.min() >= -_SAFE and low.max() <= _SAFE)  # False for NaN
    return (_sparse_labels if safe else _dense_labels)(low, rows, cols)


def _sparse_labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from finite logits (C, h, w), interpolated only where needed."""
    classes, _, width = low.shape
    flat = low.reshape(classes, -1)
    by_position = cv2.transpose(flat).reshape(-1, classes)
    labels = np.empty((len(rows.weight), len(cols.weight)), np.int32)
    pixels = int(np.diff(rows.start).max() * np.diff(cols.start).max())
    scratch = _Scratch(
        np.empty((4, pixels), np.float32),
        np.empty(pixels, np.int32),
        np.empty(pixels, np.float32),
        np.empty(classes, np.bool_),
        np.empty(classes, np.intp),
    )
    _label_cells(labels, by_position, _argmax(flat), width, rows, cols, scratch)
    return labels


def _argmax(low: NDArray[np.float32]) -> NDArray[np.intp]:
    """`low.argmax(0)` for (C, n) without NaN, several times faster: it reads memory in order."""
    classes = len(low)
    # The lowest id has the highest rank, so it wins ties.
    rank = np.arange(classes, 0, -1, dtype=np.uint8 if classes < 256 else np.int32)
    return np.asarray(classes - ((low == low.max(0)) * rank[:, None]).max(0), np.intp)


def _compiled(function: _Function) -> _Function:
    """Compile a function with Numba on its first call; cache the code if a folder is writable."""
    try:
        compiled: _Function = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        compiled = numba.njit(nogil=True)(function)
    return compiled


def _inlined(function: _Function) -> _Function:
    """Inline a function into the compiled ones that call it: 10% faster than calls."""
    inlined: _Function = numba.njit(inline="always")(function)
    return inlined


class _Scratch(NamedTuple):
    """Memory reused for every cell, for P pixels (of the largest cell) and C classes.

    Attributes:
        weights: float32 (4, P): weight of each corner at each pixel.
        best: int32 (P,): class with the largest value so far.
        best_value: float32 (P,): that value.
        possible: bool (C,): whether a class may win somewhere in the cell.
        candidates: intp (C,): the ids of these classes, ascending, followed by garbage.
    """

    weights: NDArray[np.float32]
    best: NDArray[np.int32]
    best_value: NDArray[np.float32]
    possible: NDArray[np.bool_]
    candidates: NDArray[np.intp]


_Values = NDArray[np.float32]
_Corners = tuple[_Values, _Values, _Values, _Values]
"""Logits (C,) of the upper left, upper right, lower left and lower right corner of a cell."""


@_inlined
def _find_candidates(corners: _Corners, one: int, other: int, scratch: _Scratch) -> int:
    """Find the classes that neither `one` nor `other` beats at all four corners.

    Args:
        corners: the logits.
        one: class that wins at a corner. It is a candidate, and so is any class tied with it there.
        other: class that wins at another corner, likewise.
        scratch: `possible` and `candidates` are overwritten.

    Returns:
        int: number of candidates.
    """
    a, b, c, d = corners
    possible, candidates = scratch.possible, scratch.candidates
    a1, b1, c1, d1 = a[one], b[one], c[one], d[one]
    a2, b2, c2, d2 = a[other], b[other], c[other], d[other]
    for k in range(len(possible)):  # free of branches, so that it is vectorised
        possible[k] = ((a[k] >= a1) | (b[k] >= b1) | (c[k] >= c1) | (d[k] >= d1)) & (
            (a[k] >= a2) | (b[k] >= b2) | (c[k] >= c2) | (d[k] >= d2)
        )
    count = 0
    for k in range(len(possible)):
        candidates[count] = k
        count += possible[k]
    return count


@_inlined
def _label_mixed_cell(
    labels: NDArray[np.int32],
    row_weight: NDArray[np.float32],
    col_weight: NDArray[np.float32],
    corners: _Corners,
    count: int,
    scratch: _Scratch,
) -> None:
    """Write the labels of one cell, interpolating the first `count` candidates of `scratch`.

    Args:
        labels: the cell's pixels, overwritten.
        row_weight: `_Axis.weight` of the cell's rows.
        col_weight: `_Axis.weight` of the cell's columns.
        corners: the logits.
        count: number of candidates.
        scratch: `weights`, `best` and `best_value` are overwritten.
    """
    a, b, c, d = corners
    weights, best, best_value = scratch.weights, scratch.best, scratch.best_value
    pixels = 0
    for y in range(len(row_weight)):
        for x in range(len(col_weight)):
            weights[0, pixels] = (1 - row_weight[y]) * (1 - col_weight[x])
            weights[1, pixels] = (1 - row_weight[y]) * col_weight[x]
            weights[2, pixels] = row_weight[y] * (1 - col_weight[x])
            weights[3, pixels] = row_weight[y] * col_weight[x]
            best[pixels] = 0
            best_value[pixels] = -np.inf
            pixels += 1
    for candidate in range(count):
        k = scratch.candidates[candidate]
        ak, bk, ck, dk = a[k], b[k], c[k], d[k]
        for p in range(pixels):
            value = (
                weights[0, p] * ak + weights[1, p] * bk + weights[2, p] * ck + weights[3, p] * dk
            )
            better = value > best_value[p]  # candidates ascend, so ties go to the lowest id
            best[p] = k if better else best[p]
            best_value[p] = value if better else best_value[p]
    pixels = 0
    for y in range(len(row_weight)):
        for x in range(len(col_weight)):
            labels[y, x] = best[pixels]
            pixels += 1


@_compiled
def _label_cells(
    labels: NDArray[np.int32],
    logits: NDArray[np.float32],
    winner: NDArray[np.intp],
    width: int,
    rows: _Axis,
    cols: _Axis,
    scratch: _Scratch,
) -> None:
    """Write the label of every pixel, cell by cell.

    Args:
        labels: shape (pixel rows, pixel columns), overwritten.
        logits: shape (h * w, C), finite.
        winner: shape (h * w,): the class with the largest logit, the lowest id in a tie.
        width: w.
        rows: the rows of the upsampling.
        cols: its columns.
        scratch: overwritten.
    """
    for i in range(len(rows.start) - 1):
        top, bottom = rows.start[i], rows.start[i + 1]
        for j in range(len(cols.start) - 1):
            left, right = cols.start[j], cols.start[j + 1]
            upper_left = rows.ends[0, i] * width + cols.ends[0, j]
            upper_right = rows.ends[0, i] * width + cols.ends[1, j]
            lower_left = rows.ends[1, i] * width + cols.ends[0, j]
            lower_right = rows.ends[1, i] * width + cols.ends[1, j]
            one = winner[upper_left]
            other = winner[upper_right]
            other = winner[lower_left] if other == one else other
            other = winner[lower_right] if other == one else other
            if other == one:
                for y in range(top, bottom):
                    for x in range(left, right):
                        labels[y, x] = one
                continue
            corners = (
                logits[upper_left],
                logits[upper_right],
                logits[lower_left],
                logits[lower_right],
            )
            count = _find_candidates(corners, one, other, scratch)
            _label_mixed_cell(
                labels[top:bottom, left:right],
                rows.weight[top:bottom],
                cols.weight[left:right],
                corners,
                count,
                scratch,
            )


def _dense_labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from any logits (C, h, w): every class at every pixel."""
    return np.array([values.argmax(0) for values in _upsampled(low, rows, cols)], np.int32)


def _dense_scores(
    low: NDArray[np.float32], rows: _Axis, cols: _Axis, *, probabilities: bool
) -> NDArray[np.float32]:
    """Highest probability of `rows` x `cols` from any logits or probabilities (C, h, w)."""
    scores = np.empty((len(rows.weight), len(cols.weight)), np.float32)
    for row, values in zip(scores, _upsampled(low, rows, cols), strict=True):
        if probabilities:
            row[:] = values.max(0)
            continue
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
    """Yield upsampled rows: float32, shape (C, pixels), read-only.

    Args:
        low: logits (C, h, w), starting at row `first`.
        rows: the rows of the upsampling.
        cols: its columns.
        part_rows: the rows to yield.
        part_columns: the columns to yield.
        first: index of the first row in `low`.
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
    """(1 - weight) * a + weight * b, for weights other than 0: 0 * inf and 0 * NaN are NaN."""
    with np.errstate(invalid="ignore"):
        return (1 - weight) * a + weight * b
