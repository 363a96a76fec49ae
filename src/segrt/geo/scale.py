"""The values of a raster as the pixels 0 to 255 of a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError
from segrt.types import shown

PERCENTILES = 2, 98
"""The values that "percentile" takes to 0 and 255, of each band by itself."""

Percentile: TypeAlias = Literal["percentile"]
Limits: TypeAlias = tuple[float, float]
ScaleLike: TypeAlias = "str | tuple[float, float] | None"
"""What `parse_scale` takes."""


@dataclass(frozen=True)
class Scale:
    """A linear scale of each band: its low value becomes 0, its high value 255.

    Values beyond them become 0 and 255; all are rounded to the nearest integer.

    Example:
        >>> Scale(((0, 1000),)).apply(np.array([[[0, 500, 2000]]], np.uint16)).tolist()
        [[[0, 128, 255]]]

    Attributes:
        limits: (low, high) of each band.
    """

    limits: tuple[Limits, ...]

    def apply(self, bands: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Scale bands (C, H, W) of any real type to uint8."""
        scaled = np.empty(bands.shape, np.uint8)
        for band, (low, high), out in zip(bands, self.limits, scaled, strict=True):
            if band.dtype.kind in "iu" and band.dtype.itemsize <= 2:  # by a table of all values
                info = np.iinfo(band.dtype)
                table = _linear(np.arange(info.min, info.max + 1), low, high)
                np.take(table, band.astype(np.int32) - info.min, out=out)
            else:
                out[:] = _linear(band, low, high)
        return scaled


def _linear(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    with np.errstate(invalid="ignore", over="ignore"):
        pixels = (values.astype(np.float64) - low) * (255 / (high - low))
        pixels = np.nan_to_num(pixels, nan=0)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def parse_scale(value: object) -> Limits | Percentile | None:
    """Parse "LOW,HIGH", a pair of numbers, or "percentile".

    Example:
        >>> parse_scale("0,3000")
        (0.0, 3000.0)

    Raises:
        ConfigError: it is anything else, or HIGH is not above LOW.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value.strip().lower() == "percentile":
            return "percentile"
        number = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?\s*"
        pair = value.split(",") if re.fullmatch(f"{number},{number}", value.lower()) else []
    else:
        pair = list(value) if isinstance(value, (list, tuple)) else []
    numeric = all(isinstance(x, (str, int, float)) and not isinstance(x, bool) for x in pair)
    if len(pair) == 2 and numeric:
        low, high = float(pair[0]), float(pair[1])
        if np.isfinite([low, high]).all() and low < high:
            return low, high
    raise ConfigError(
        f"scale {shown(value)} is not valid: use LOW,HIGH, two numbers of which the first is the "
        "lower one, or percentile"
    )


def measured(bands: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> tuple[Limits, ...]:
    """The `PERCENTILES` of each band.

    Args:
        bands: (C, H, W), of any real type.
        valid: (H, W), the pixels with data.
    """
    limits = []
    for band in bands:
        values = band[valid]
        low, high = np.percentile(values, PERCENTILES).tolist() if values.size else (0.0, 1.0)
        limits.append((low, high if high > low else low + 1))
    return tuple(limits)
