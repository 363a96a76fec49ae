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

`segrt.label_loop` does so fastest, but loading it takes longer than labelling dozens of images with
NumPy alone. So the first images are labelled by NumPy, in the same arithmetic, and a thread loads
the loop once that has taken as long as loading it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segrt import forks
from segrt.errors import ModelError
from segrt.metadata import ModelMeta
from segrt.preprocess import Layout, Padding, PaddingByAspectRatio

Labels: TypeAlias = NDArray[np.int32]
Scores: TypeAlias = NDArray[np.float32] | None

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


class Axis(NamedTuple):
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
def _axis(low: int, full: int, pixels: int, align_corners: bool) -> Axis:
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
    return Axis(ends, start, weight, ends.repeat(np.diff(start), axis=1))


def nearest_pixels(full: int, pixels: int) -> NDArray[np.intp]:
    """Index in `full` pixels of each of `pixels` samples, computed as cv2.INTER_NEAREST does."""
    return np.asarray(np.minimum(np.arange(pixels) * (1 / (pixels / full)), full - 1), np.intp)


def resize_nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize labels or scores (H, W) by nearest neighbour; not copied if the size is the same."""
    if image.shape == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST))


def _labels(low: NDArray[np.float32], rows: Axis, cols: Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from any logits (C, h, w)."""
    safe = bool(low.min() >= -_SAFE and low.max() <= _SAFE)  # False for NaN
    return (_sparse_labels if safe else _dense_labels)(low, rows, cols)


def _sparse_labels(low: NDArray[np.float32], rows: Axis, cols: Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from finite logits (C, h, w), interpolated only where needed."""
    if _loop_is_ready.is_set():
        return _loop_labels(low, rows, cols)
    begin = perf_counter()
    labels = _array_labels(low, rows, cols)
    _count_towards_loading(perf_counter() - begin)
    return labels


_PATIENCE = 0.3
"""Seconds spent in `_array_labels` before the loop is loaded, which takes about as long."""

_loop_is_ready = Event()
_loading = Lock()
_spent: list[float] = []  # emptied when loading starts
forks.hold(_loading)


def load_loop() -> None:
    """Load the compiled loop now, for a process that will label many images.

    Without this call, a thread does it after some dozens of images.

    Example:
        >>> load_loop()
    """
    with _loading:
        if not _loop_is_ready.is_set():
            axis = _axis(2, 4, 4, False)
            _loop_labels(np.zeros((2, 2, 2), np.float32), axis, axis)
            _loop_is_ready.set()


def _count_towards_loading(seconds: float) -> None:
    _spent.append(seconds)
    if sum(_spent) > _PATIENCE and not _loading.locked():
        _spent.clear()
        # Not a daemon: the interpreter must not exit while Numba compiles.
        Thread(target=load_loop, name="segrt-compile").start()


def _loop_labels(low: NDArray[np.float32], rows: Axis, cols: Axis) -> NDArray[np.int32]:
    """`_sparse_labels` by the compiled loop."""
    from segrt.label_loop import Scratch, label_cells

    classes, _, width = low.shape
    flat = low.reshape(classes, -1)
    by_position = cv2.transpose(flat).reshape(-1, classes)
    labels = np.empty((len(rows.weight), len(cols.weight)), np.int32)
    pixels = int(np.diff(rows.start).max() * np.diff(cols.start).max())
    scratch = Scratch(
        np.empty((4, pixels), np.float32),
        np.empty(pixels, np.int32),
        np.empty(pixels, np.float32),
        np.empty(classes, np.bool_),
        np.empty(classes, np.intp),
    )
    label_cells(labels, by_position, _argmax(flat), width, rows, cols, scratch)
    return labels


_BLOCK = 1 << 17
"""Pixels, or logits, of the cells that `_array_labels` computes together."""


def _array_labels(low: NDArray[np.float32], rows: Axis, cols: Axis) -> NDArray[np.int32]:
    """`_sparse_labels` by NumPy: the same arithmetic and labels, in 3 to 5 times the time."""
    classes, _, width = low.shape
    flat = low.reshape(classes, -1)
    by_position = cv2.transpose(flat).reshape(-1, classes)
    winner = _argmax(flat)
    heights, widths = np.diff(rows.start), np.diff(cols.start)
    upper, lower = rows.ends[:, :, None] * width
    left, right = cols.ends
    corners = np.stack([upper + left, upper + right, lower + left, lower + right])
    one, *others = winner[corners]
    other = one
    for winners in reversed(others):
        other = np.where(winners != one, winners, other)
    labels: Labels = one.astype(np.int32).repeat(widths, axis=1).repeat(heights, axis=0)
    i, j = np.nonzero(other != one)
    size = max(1, _BLOCK // max(4 * classes, int(heights.max() * widths.max())))
    for cells in ((i[k : k + size], j[k : k + size]) for k in range(0, len(i), size)):
        logits = by_position[corners[(slice(None), *cells)]]
        _label_mixed_cells(labels, logits, (one[cells], other[cells]), rows, cols, cells)
    return labels


def _label_mixed_cells(
    labels: NDArray[np.int32],
    corners: NDArray[np.float32],
    winners: tuple[NDArray[np.intp], NDArray[np.intp]],
    rows: Axis,
    cols: Axis,
    cells: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> None:
    """Write the labels of n mixed cells.

    Args:
        labels: shape (pixel rows, pixel columns), of which these cells are overwritten.
        corners: shape (4, n, C): logits of the upper left, upper right, lower left and lower right
            corner of each cell.
        winners: shape (n,), twice: two different classes that win at a corner of each cell.
        rows: the rows of the upsampling.
        cols: its columns.
        cells: shape (n,), twice: row and column of each cell.
    """
    every = np.arange(corners.shape[1])
    possible = np.ones(corners.shape[1:], np.bool_)
    for winner in winners:
        possible &= (corners >= corners[:, every, winner, None]).any(0)
    count = possible.sum(1)
    order = np.argsort(-count)  # so that the k-th candidates are those of the first cells
    count = count[order]
    cell, candidates = np.nonzero(possible[order])
    values = corners[:, order[cell], candidates]
    start = np.cumsum(count) - count
    y, down = _pixels_of(rows, cells[0][order])
    x, right = _pixels_of(cols, cells[1][order])
    weights = [
        np.multiply(v[:, None], u).astype(np.float32)
        for v in (1 - down, down)
        for u in (1 - right, right)
    ]
    best = np.full(weights[0].shape, -np.inf, np.float32)
    found = np.zeros(best.shape, np.int32)
    for k in range(count[0]):
        cells_left = np.count_nonzero(count > k)
        at, part = start[:cells_left] + k, (..., slice(cells_left))
        value = weights[0][part] * values[0, at]
        for weight, corner in zip(weights[1:], values[1:], strict=True):
            value += weight[part] * corner[at]
        better = value > best[part]
        # Candidates ascend, so a better one has the largest id so far.
        np.maximum(found[part], better * candidates[at].astype(np.int32), out=found[part])
        np.maximum(best[part], value, out=best[part])
    labels[y[:, None], x] = found


def _pixels_of(axis: Axis, cells: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Pixels of n cells, and their weights: both (pixels, n); small cells repeat their last one."""
    start, end = axis.start[cells], axis.start[cells + 1]
    pixels = np.minimum(start + np.arange((end - start).max())[:, None], end - 1)
    return pixels, axis.weight[pixels].astype(np.float64)


def _argmax(low: NDArray[np.float32]) -> NDArray[np.intp]:
    """`low.argmax(0)` for (C, n) without NaN, several times faster: it reads memory in order."""
    classes = len(low)
    # The lowest id has the highest rank, so it wins ties.
    rank = np.arange(classes, 0, -1, dtype=np.uint8 if classes < 256 else np.int32)
    return np.asarray(classes - ((low == low.max(0)) * rank[:, None]).max(0), np.intp)


def _dense_labels(low: NDArray[np.float32], rows: Axis, cols: Axis) -> NDArray[np.int32]:
    """Labels of `rows` x `cols` from any logits (C, h, w): every class at every pixel."""
    return np.array([values.argmax(0) for values in _upsampled(low, rows, cols)], np.int32)


def _dense_scores(
    low: NDArray[np.float32], rows: Axis, cols: Axis, *, probabilities: bool
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
    rows: Axis,
    cols: Axis,
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
