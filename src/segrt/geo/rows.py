"""The rows of a raster that the sliding window is at, each read once from the file."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.geo.area import Area
from segrt.geo.raster import Raster, fill
from segrt.slide import Box, Size

_LEAST, _MOST = 128, 512
"""Limits on the rows read at once; between them, the height of the file's blocks."""

_Group: TypeAlias = "tuple[npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]"
# Pixels; which have data; which of these are wanted.


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

    def __getitem__(self, box: Box) -> npt.NDArray[Any]:
        """The pixels of a crop; those without data are filled from the nearest with data in it."""
        parts = [(pixels, valid) for pixels, valid, _ in self._within(box[0])]
        cut = self._cut(box[0])
        pixels = np.concatenate([pixels[:, box[1]] for pixels, _ in parts])[cut]
        valid = np.concatenate([valid[:, box[1]] for _, valid in parts])[cut]
        return fill(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32), valid)

    def wanted(self, box: Box) -> npt.NDArray[np.bool_]:
        """Which pixels of a box have data and are in the area: bool."""
        parts = [wanted[:, box[1]] for _, _, wanted in self._within(box[0])]
        found: npt.NDArray[np.bool_] = np.concatenate(parts)[self._cut(box[0])]
        return found

    def _cut(self, rows: slice) -> slice:
        """Rows, counted from the first one of their first group."""
        first = rows.start // self._step * self._step
        return slice(rows.start - first, rows.stop - first)

    def _within(self, rows: slice) -> list[_Group]:
        """The groups with these rows."""
        first = rows.start // self._step
        self._groups = {key: group for key, group in self._groups.items() if key >= first}
        for key in range(first, -(-rows.stop // self._step)):
            if key not in self._groups:
                self._groups[key] = self._read(key * self._step)
        return [self._groups[key] for key in range(first, -(-rows.stop // self._step))]

    def _read(self, top: int) -> _Group:
        """A group's pixels, those with data, and those of them in the area."""
        (height, width), (full_height, full_width) = self._raster.size, self.size
        count = min(self._step, full_height - top)
        rows = slice(min(top, height - 1), min(top + count, height))
        pixels, valid = self._raster.read(rows)
        if top >= height:
            valid = np.zeros_like(valid)
        wanted = valid & self._area.covers(rows, width) if self._area else valid
        if (count, full_width) != valid.shape:
            beyond = (0, count - len(valid)), (0, full_width - width)
            pixels = np.pad(pixels, (*beyond, *((0, 0),) * (pixels.ndim - 2)))
            valid, wanted = np.pad(valid, beyond), np.pad(wanted, beyond)
        return pixels, valid, wanted
