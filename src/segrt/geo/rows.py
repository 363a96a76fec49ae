"""The rows of a raster that the sliding window is at, each read once from the file."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.geo.area import Area
from segrt.geo.raster import Raster, fill
from segrt.slide import Box, Size

_LEAST, _MOST = 128, 512
"""Limits on the rows read at once; between them, the height of the file's blocks."""

_Group: TypeAlias = "tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]"
# Pixels, and which have data.


class Rows:
    """A raster as the lazy image of a sliding window: `segrt.slide.Lazy`.

    Rows are read in groups that begin at the same rows whatever was read before, so that a resumed
    job gets the same pixels. A group is forgotten when a crop begins below it.

    Example:
        >>> rows = Rows(raster)
        >>> rows[slice(0, 1024), slice(768, 1792)].shape
        (1024, 1024, 3)

    Attributes:
        size: (height, width), at least `least`: beyond the raster there is no data.
    """

    def __init__(self, raster: Raster, area: Area | None = None, least: Size = (1, 1)) -> None:
        """Read nothing yet.

        Args:
            raster: what to read.
            area: the part whose labels are wanted; None for all.
            least: the size of a crop, for a network that takes no other.
        """
        self._raster, self._area = raster, area
        height, width = raster.size
        self.size = max(height, least[0]), max(width, least[1])
        self._step = min(max(raster.block_height, _LEAST), _MOST)
        self._groups = dict[int, _Group]()
        self._inside = lru_cache(maxsize=2)(self._covered)  # of the rows of windows, and of strips

    def __getitem__(self, box: Box) -> npt.NDArray[Any]:
        """The pixels of a crop; those without data are filled from the nearest with data in it."""
        groups = self._within(box[0])
        pixels = self._joined(box, [pixels for pixels, _ in groups])
        valid = self._joined(box, [valid for _, valid in groups])
        return fill(pixels, valid)

    def wanted(self, box: Box) -> npt.NDArray[np.bool_]:
        """Which pixels of a box have data and are in the area: bool."""
        inside = self._inside(box[0].start, box[0].stop)
        if inside is not None and not inside[:, box[1]].any():  # then nothing needs to be read
            return inside[:, box[1]]
        valid: npt.NDArray[np.bool_] = self._joined(box, [part for _, part in self._within(box[0])])
        return valid if inside is None else valid & inside[:, box[1]]

    def _covered(self, top: int, bottom: int) -> npt.NDArray[np.bool_] | None:
        """Which pixels of some rows are in the area; None if all are."""
        if self._area is None:
            return None
        inside = np.zeros((bottom - top, self.size[1]), np.bool_)
        height, width = self._raster.size
        if top < height:
            rows = slice(top, min(bottom, height))
            inside[: rows.stop - top, :width] = self._area.covers(rows, width)
        return inside

    def _joined(self, box: Box, parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """A box of the rows of consecutive groups."""
        first = box[0].start // self._step * self._step
        rows = slice(box[0].start - first, box[0].stop - first)
        return np.concatenate([part[:, box[1]] for part in parts])[rows]

    def _within(self, rows: slice) -> list[_Group]:
        """The groups with these rows."""
        first, end = rows.start // self._step, -(-rows.stop // self._step)
        self._groups = {key: group for key, group in self._groups.items() if key >= first}
        for key in range(first, end):
            if key not in self._groups:
                self._groups[key] = self._read(key * self._step)
        return [self._groups[key] for key in range(first, end)]

    def _read(self, top: int) -> _Group:
        (height, width), (full_height, full_width) = self._raster.size, self.size
        count = min(self._step, full_height - top)
        rows = slice(min(top, height - 1), min(top + count, height))
        pixels, valid = self._raster.read(rows)
        if top >= height:
            valid = np.zeros_like(valid)
        if (count, full_width) != valid.shape:
            beyond = (0, count - len(valid)), (0, full_width - width)
            pixels = np.pad(pixels, (*beyond, *((0, 0),) * (pixels.ndim - 2)))
            valid = np.pad(valid, beyond)
        return pixels, valid
