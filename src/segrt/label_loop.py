"""The loop that labels pixels cell by cell, compiled by Numba, without the interpreter lock.

Importing this module imports Numba, which takes 0.3 s. The first call after installation compiles
the loop, which takes over a second; later processes load the machine code from Numba's cache.
`segrt.postprocess` therefore imports it only for many images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import NDArray

from segrt import forks

if TYPE_CHECKING:
    from segrt.postprocess import Axis

_Function = TypeVar("_Function", bound=Callable[..., Any])

forks.hold(global_compiler_lock)


def compiled(function: _Function) -> _Function:
    """Compile a function with Numba on its first call; cache the code if a folder is writable."""
    try:
        fast: _Function = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        fast = numba.njit(nogil=True)(function)
    return fast


def _inlined(function: _Function) -> _Function:
    """Inline a function into the compiled ones that call it: 10% faster than calls."""
    inlined: _Function = numba.njit(inline="always")(function)
    return inlined


class Scratch(NamedTuple):
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
def _find_candidates(corners: _Corners, one: int, other: int, scratch: Scratch) -> int:
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
    scratch: Scratch,
) -> None:
    """Write the labels of one cell, interpolating the first `count` candidates of `scratch`.

    Args:
        labels: the cell's pixels, overwritten.
        row_weight: `Axis.weight` of the cell's rows.
        col_weight: `Axis.weight` of the cell's columns.
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


@compiled
def label_cells(
    labels: NDArray[np.int32],
    logits: NDArray[np.float32],
    winner: NDArray[np.intp],
    width: int,
    rows: Axis,
    cols: Axis,
    scratch: Scratch,
) -> None:
    """Write the label of every pixel, cell by cell.

    Args:
        labels: int32, shape (pixel rows, pixel columns), overwritten.
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
