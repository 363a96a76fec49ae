"""Reads a raster at another resolution from its pixels with data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Read: TypeAlias = "Callable[[slice], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]"
"""Reads rows of the raster at full width: bands (C, h, w), and which have data, bool (h, w)."""

_PIXELS = 2**22  # of the raster, read at once


@dataclass(frozen=True)
class Axis:
    """The pixels of a raster along one axis, and those of a grid over it.

    Attributes:
        length: pixels of the raster.
        factor: pixels of the raster that a pixel of the grid covers.
        average: whether a pixel is the average of what it covers, or interpolated at its centre.
    """

    length: int
    factor: float
    average: bool

    @property
    def size(self) -> int:
        """Pixels of the grid, of which the last one may reach beyond the raster."""
        return max(1, math.ceil(self.length / self.factor - 1e-6))

    def taps(self, start: int, stop: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """The pixels of the raster that each pixel of the grid is made of, and their weights.

        Returns:
            index: (stop - start, n).
            weight: likewise; 0 for pixels that do not count.
        """
        at = np.arange(start, stop)[:, None]
        if self.average:
            low = at * self.factor
            high = np.minimum((at + 1) * self.factor, self.length)
            index = np.floor(low).astype(np.intp) + np.arange(math.ceil(self.factor) + 1)
            weight = np.minimum(high, index + 1) - np.maximum(low, index)
        else:
            place = (at + 0.5) * self.factor - 0.5
            index = np.floor(place).astype(np.intp) + np.arange(2)
            weight = 1 - np.abs(index - place)
        return np.clip(index, 0, self.length - 1), np.maximum(weight, 0)

    def nearest(self, start: int, stop: int) -> npt.NDArray[np.intp]:
        """The pixel of the raster at the centre of each pixel of the grid."""
        at = ((np.arange(start, stop) + 0.5) * self.factor).astype(np.intp)
        return np.clip(at, 0, self.length - 1)


@dataclass(frozen=True)
class Grid:
    """A grid of pixels of another size over a raster.

    Attributes:
        down: its rows.
        across: its columns.
    """

    down: Axis
    across: Axis

    def read(self, rows: slice, read: Read) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read rows of the grid at full width.

        A pixel that averages has data if one that it covers has; one that is interpolated if the
        one at its centre has. Pixels without data do not count for others.

        Args:
            rows: within the grid.
            read: reads the raster.

        Returns:
            bands: (C, rows, W), of the type of the raster; integers are rounded.
            valid: bool (rows, W), the pixels with data.
        """
        step = max(1, int(_PIXELS / (self.across.length * max(1.0, self.down.factor))))
        parts = [
            self._read(top, min(top + step, rows.stop), read)
            for top in range(rows.start, rows.stop, step)
        ]
        bands, valid = zip(*parts, strict=True)
        return np.concatenate(bands, axis=1), np.concatenate(valid)

    def _read(
        self, top: int, bottom: int, read: Read
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        index, weight = self.down.taps(top, bottom)
        first = int(index.min())
        bands, valid = read(slice(first, int(index.max()) + 1))
        # float32 holds 16 bits exactly.
        dtype = np.float32 if bands.dtype.itemsize <= 2 else np.float64
        layers = np.concatenate([np.where(valid, bands, 0), valid[None]]).astype(dtype)
        sums = _weighted(layers, index - first, weight, axis=1)
        sums = _weighted(sums, *self.across.taps(0, self.across.size), axis=2)
        total = sums[-1]
        if self.down.average:
            known = total > 0
        else:
            places = self.down.nearest(top, bottom) - first, self.across.nearest(0, len(total[0]))
            known = valid[np.ix_(*places)]
        means = sums[:-1] / np.where(total > 0, total, 1)
        if bands.dtype.kind != "f":
            means = np.rint(means)
        return means.astype(bands.dtype), known


def _weighted(
    values: npt.NDArray[Any],
    index: npt.NDArray[np.intp],
    weight: npt.NDArray[np.float64],
    axis: int,
) -> npt.NDArray[Any]:
    """Weighted sums of values along an axis of (C, h, w)."""
    shape = (-1, 1) if axis == 1 else (-1,)
    weight = weight.astype(values.dtype)
    total = values.take(index[:, 0], axis) * weight[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        total += values.take(index[:, tap], axis) * weight[:, tap].reshape(shape)
    return total
