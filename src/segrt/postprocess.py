"""The network's logits (or labels) -> label maps of the source image's size.

An exported graph ends at the network's own logits, 1/4 or 1/8 of the inference size. PaddleSeg upsamples them
bilinearly, takes the argmax, and sends the label map to the source size by nearest neighbour. This module gives the
same labels without ever making the full-size logits:

* Each pixel of the source is one of the inference size, and that one lies in one cell of the low-resolution grid, the
  square between four neighbouring logits. Only the pixels asked for are computed.
* Bilinear interpolation is a convex combination of the four corners. A class that wins at all of them wins in the
  whole cell. On photographs that settles three cells of four, or more.
* In the other cells, a class that one other class beats at all four corners can't win. Two or three classes are left
  as a rule, and only these are interpolated. Where many are left, as in noise, all are, by a matrix product.

It is NumPy throughout: no compiler at run time, and the interpreter lock is free during the long loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segrt.errors import ModelError

_Ids: TypeAlias = NDArray[np.integer[Any]]

_SAFE = np.finfo(np.float32).max / 4  # differences between logits within +-_SAFE don't overflow
_CHUNK = 1 << 15  # pixels interpolated at once: a few float32 arrays of this size fit the L2 cache
_FEW = 16  # contenders of a cell up to which interpolating them in turn is faster than all classes in a matrix product
_PRODUCT = 1 << 20  # float32 values of such a product: smaller ones cost more in calls than they gain in cache


def labels_from_logits(
    logits: NDArray[Any],
    size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
    *,
    align_corners: bool = False,
    with_scores: bool = False,
    threads: int = 1,
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
        threads: how many share the cells in which many classes may win; a photo has few of them.

    Returns:
        labels: int32, shape (N, Hs, Ws) of the source, class ids in [0, C).
        scores: None unless asked for; float32, same shape, in (0, 1]: the largest entry of the softmax over the
            upsampled logits. NaN where that softmax is not defined (NaN or +inf takes part, or every class is -inf).

    Raises:
        ModelError: `logits` is empty or does not have four dimensions.
        ValueError: a size is not positive.
    """
    if logits.ndim != 4 or logits.size == 0:
        raise ModelError(f"expected logits of shape (N, C, h, w), got {logits.shape}: is this a segmentation model?")
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
        found = _sparse_labels(low, rows, cols, threads) if calm else _dense_labels(low, rows, cols)
        labels[n] = resize_nearest(found, source_size)
        if scores is not None:
            scores[n] = resize_nearest(_dense_scores(low, rows, cols), source_size)
    return labels, scores


def upsample(logits: NDArray[Any], size: tuple[int, int], *, align_corners: bool = False) -> NDArray[np.float32]:
    """Upsample the logits of one image, bilinearly, to the size of the inference.

    Args:
        logits: float, shape (C, h, w).
        size: (height, width).
        align_corners: as in `labels_from_logits`.

    Returns:
        float32, shape (height, C, width): one row of pixels after the other.
    """
    rows, cols = (_axis(low, full, full, align_corners) for low, full in zip(logits.shape[1:], size, strict=True))
    return np.stack(list(_upsampled(np.ascontiguousarray(logits, np.float32), rows, cols)))


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
        count: intp, shape (cells,): how many pixels a cell has, at least 1. They are consecutive.
        weight: float32, shape (pixels,), in [0, 1): how much each pixel takes of the logit after it.
        cell_pixels: intp, shape (largest count, cells): the pixels of each cell, its last one repeated.
        cell_weights: float32, same shape: their weights.
    """

    ends: NDArray[np.intp]
    count: NDArray[np.intp]
    weight: NDArray[np.float32]
    cell_pixels: NDArray[np.intp]
    cell_weights: NDArray[np.float32]


@lru_cache(maxsize=64)
def _axis(low: int, full: int, pixels: int, align_corners: bool) -> _Axis:
    """Place `pixels` <= `full` nearest-neighbour samples of an axis of length `full` among its `low` logits."""
    sample = _nearest(full, pixels)
    if align_corners:
        numerator, denominator = sample * (low - 1), max(full - 1, 1)
    else:
        numerator, denominator = (2 * sample + 1) * low - full, 2 * full
    cell, rest = np.divmod(numerator, denominator)  # integers: no rounding moves a pixel to a neighbouring cell
    weight = (rest / denominator).astype(np.float32)
    start = np.flatnonzero(np.diff(cell, prepend=-2))
    count = np.diff(start, append=pixels)
    cell_pixels = start + np.minimum(np.arange(count.max())[:, None], count - 1)
    ends = np.array([cell[start], cell[start] + 1]).clip(0, low - 1)
    return _Axis(ends, count, weight, cell_pixels, weight[cell_pixels])


def _nearest(full: int, pixels: int) -> NDArray[np.intp]:
    """Which of `full` pixels each of `pixels` samples takes: the rule of cv2.INTER_NEAREST, in its own arithmetic."""
    return np.asarray(np.minimum(np.arange(pixels) * (1 / (pixels / full)), full - 1), np.intp)


def resize_nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize labels or scores (H, W) to `size` by nearest neighbour; those that have it are not copied."""
    return image if image.shape == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)


def _sparse_labels(low: NDArray[np.float32], rows: _Axis, cols: _Axis, threads: int) -> _Ids:
    """Labels (uint8 if they fit, else int32) of `rows` x `cols`, interpolating finite logits (C, h, w) where needed."""
    classes, height, width = low.shape
    winner = _argmax(low.reshape(classes, -1))
    corners = (rows.ends[:, None, :, None] * width + cols.ends[None, :, None, :]).reshape(4, -1)
    winners = winner.take(corners)
    grid = winners[0].reshape(len(rows.count), len(cols.count))
    labels: _Ids = grid.repeat(cols.count, axis=1).repeat(rows.count, axis=0)
    if not (rows.weight.any() or cols.weight.any()):
        return labels  # each pixel is one logit

    cells = np.flatnonzero((winners[1:] != winners[0]).any(0))
    corners = corners.take(cells, axis=1)
    able, pair = _contenders(low, corners, winners.take(cells, axis=1))
    count = np.add.reduce(able, axis=0, dtype=np.intp)

    # Arrays end in (pixel rows, pixel columns, cells) from here on: NumPy's inner loops then run over many cells.
    def write(chosen: NDArray[np.intp], best: Callable[[NDArray[np.float32], NDArray[np.float32]], _Ids]) -> None:
        y, x = np.divmod(cells[chosen], len(cols.count))
        first_pixel = rows.cell_pixels.take(y, axis=1) * labels.shape[1]
        pixels = first_pixel[:, None] + cols.cell_pixels.take(x, axis=1)
        labels.reshape(-1)[pixels] = best(rows.cell_weights.take(y, axis=1), cols.cell_weights.take(x, axis=1))

    cell_pixels = len(rows.cell_pixels) * len(cols.cell_pixels)
    for chosen, contenders in _groups(able, pair, count, _CHUNK // cell_pixels + 1):
        values = low.ravel().take(contenders * (height * width) + corners.take(chosen, axis=1)[:, None])
        write(chosen, partial(_best, contenders.astype(labels.dtype), values))

    crowded = np.flatnonzero(count > _FEW)
    if len(crowded):
        by_place = np.ascontiguousarray(low.reshape(classes, -1).T)
        step = _PRODUCT // (classes * cell_pixels) + 1

        def settle(share: NDArray[np.intp]) -> None:
            products = np.empty(
                (step, cell_pixels, classes), np.float32
            )  # once: new memory costs more than the product
            for chosen in np.split(share, range(step, len(share), step)):
                values = by_place.take(corners.take(chosen, axis=1).T, axis=0)
                write(chosen, partial(_best_of_all, values, products[: len(chosen)]))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(settle, np.array_split(crowded, threads)))
    return labels


def _argmax(low: NDArray[np.float32]) -> _Ids:
    """`low.argmax(0)` of (C, n) without NaN, several times as fast since it reads memory in order."""
    classes = len(low)
    rank = np.arange(classes, 0, -1, dtype=np.uint8 if classes < 256 else np.int32)  # of equals the lowest id leads
    first: _Ids = classes - ((low == low.max(0)) * rank[:, None]).max(0)
    return first


def _contenders(
    low: NDArray[np.float32], corners: NDArray[np.intp], winners: _Ids
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Find the classes that may win somewhere in a cell.

    Args:
        low: (C, h, w).
        corners: flat indices into h x w, shape (4, cells).
        winners: the class that wins at each corner, shape (4, cells), not the same at all four.

    Returns:
        able: bool, shape (C, cells). False for what the first corner's winner beats at all corners, or what the first
            different winner does. All winners are able, and so is a class that ties with these two at some corner.
        pair: intp, shape (2, cells): these two winners, ascending.
    """
    first = winners[0]
    other = np.where(winners[1] != first, winners[1], np.where(winners[2] != first, winners[2], winners[3]))
    values = low.reshape(len(low), -1).take(corners, axis=1)
    pair = np.array([np.minimum(first, other), np.maximum(first, other)], np.intp)
    rivals = low.ravel().take(pair[:, None] * low[0].size + corners)
    able = (values >= rivals[0]).any(1) & (values >= rivals[1]).any(1)
    return able, pair


def _groups(
    able: NDArray[np.bool_], pair: NDArray[np.intp], count: NDArray[np.intp], step: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Split cells into groups of at most `step` with about as many classes left: 2, 3 to 4, 5 to 8, up to `_FEW`.

    Args:
        able: bool, shape (C, cells): the classes left in each cell.
        pair: intp, shape (2, cells): two classes that are left in each cell, ascending.
        count: intp, shape (cells,): how many classes are left in each.
        step: how many cells a group may have.

    Yields:
        cells: intp, shape (n,).
        classes: intp, shape (most, n): the classes left in each of them, ascending, then one of them repeated.
    """
    most = 2
    while most < 2 * min(count.max(initial=0), _FEW):
        group = np.flatnonzero((count > most // 2) & (count <= most))
        for chosen in np.split(group, range(step, len(group), step)):
            classes = pair.take(chosen, axis=1)
            if most > 2:
                cell, able_class = able.take(chosen, axis=1).T.nonzero()
                place = np.arange(len(cell)) - (count[chosen].cumsum() - count[chosen])[cell]
                classes = np.tile(classes[0], (most, 1))
                classes[place, cell] = able_class
            yield chosen, classes
        most *= 2


def _best(classes: _Ids, values: NDArray[np.float32], down: NDArray[np.float32], right: NDArray[np.float32]) -> _Ids:
    """Interpolate and take the argmax.

    Args:
        classes: ids in the dtype of labels, shape (K, cells), ascending, but one of them may come again at the end.
        values: their logits at the upper left, upper right, lower left and lower right corner, shape (4, K, cells).
        down: weights of the lower corners, shape (pixel rows, cells).
        right: weights of the right corners, shape (pixel columns, cells).

    Returns:
        Labels, shape (pixel rows, pixel columns, cells); of equals the first of `classes`.
    """
    # All of it is relative to the first class: half the work for two classes, and exact for equal ones.
    a, b, c, d = (values[:, 1:] - values[:, :1])[:, :, None]
    left = a + (c - a) * down
    slope = b + (d - b) * down - left
    label: _Ids = classes[0]
    lead = np.zeros(1, np.float32)  # of the best class so far
    for k in range(1, len(classes)):
        ahead = slope[k - 1, :, None] * right
        ahead += left[k - 1, :, None]
        # Masked assignment is slow in NumPy, arithmetic is not; uint8 wraps around, there and back.
        label = label + (ahead > lead) * (classes[k] - label)
        if k + 1 < len(classes):
            lead = np.maximum(lead, ahead)
    return label


def _best_of_all(
    values: NDArray[np.float32],
    products: NDArray[np.float32],
    down: NDArray[np.float32],
    right: NDArray[np.float32],
) -> _Ids:
    """Interpolate every class and take the argmax.

    Args:
        values: logits at the upper left, upper right, lower left and lower right corner, shape (cells, 4, C).
        products: overwritten, shape (cells, pixel rows * pixel columns, C).
        down: weights of the lower corners, shape (pixel rows, cells).
        right: weights of the right corners, shape (pixel columns, cells).

    Returns:
        Labels, shape (pixel rows, pixel columns, cells); of equals the lowest.
    """
    down = down[:, None]
    weights = np.array([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    np.matmul(weights.reshape(4, -1, len(values)).transpose(2, 1, 0), values, out=products)
    best: _Ids = products.argmax(-1).T.reshape(weights.shape[1:])
    return best


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


def _upsampled(low: NDArray[np.float32], rows: _Axis, cols: _Axis) -> Iterator[NDArray[np.float32]]:
    """Yield each of `rows`, upsampled: float32, shape (C, pixels of `cols`). Read-only."""
    before, after = cols.ends.repeat(cols.count, axis=1)

    @lru_cache(maxsize=2)
    def line(y: int) -> NDArray[np.float32]:
        a, b = low[:, y].take(before, axis=1), low[:, y].take(after, axis=1)
        return np.where(cols.weight == 0, a, _mix(a, b, cols.weight))

    for y0, y1, weight in zip(*rows.ends.repeat(rows.count, axis=1), rows.weight, strict=True):
        yield line(y0) if weight == 0 else _mix(line(y0), line(y1), weight)


def _mix(
    a: NDArray[np.float32], b: NDArray[np.float32], weight: np.float32 | NDArray[np.float32]
) -> NDArray[np.float32]:
    """(1 - weight) * a + weight * b. The caller sees to weights of 0, since 0 * inf and 0 * NaN are NaN."""
    with np.errstate(invalid="ignore"):
        return (1 - weight) * a + weight * b
