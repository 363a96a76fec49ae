"""A georeferenced raster as a picture: bands, values, pixels without data, and its grid."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segrt.arrays import BAND_DTYPES
from segrt.errors import ConfigError, InputError
from segrt.frame import Frame
from segrt.geo.library import calls, name_of
from segrt.geo.resampling import Axis, Grid
from segrt.geo.scale import Scale, ScaleLike, measured, parse_scale
from segrt.reading import Reading
from segrt.types import shown

log = logging.getLogger("segrt")

_SAMPLES = 1024
"""Pixels on the longer side of the decimated read from which percentiles are measured."""

_ROWS = 1024
"""Rows read at once when a whole raster becomes a frame."""

_FURTHEST = 100
"""Limit on how much coarser or finer than the raster's the pixels of `resolution` may be."""


class Raster:
    """A raster that rasterio reads: a file, a VRT, or a remote one (`/vsicurl/https://...`).

    `pipeline.predict(Raster("a.tif"))` segments it as a whole, in memory; `segrt.geo.segment` by
    windows, which keeps its georeference and its pixels without data.

    A pixel has no data where the mask of the raster or of a selected band, or the alpha band, is 0,
    where a selected band is NaN or infinite, and where the selected bands have the nodata value:
    all of them in rasters of unsigned integers, where 0 is also the value of a dark pixel, any of
    them in others. Such pixels get the values of the nearest pixel with data.

    Example:
        >>> with segrt.geo.Raster("scene.tif", bands=(4, 3, 2), scale="percentile") as raster:
        ...     print(raster.size, raster.crs, raster.scale)
        ...     result = pipeline.segment(raster, slide="1024,768")

    Attributes:
        path: as given.
        bands: the numbers, from 1, of the bands that are red, green and blue; or of the only one.
        dtype: the type of these bands.
        scale: the low and high value of each band, which become 0 and 255; None for values that
            are used as they are.
        size: (height, width) of the grid.
        transform: from (column, row) to coordinates, an `affine.Affine`.
        crs: coordinate system, a `rasterio.crs.CRS`; None if the raster has none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bands: Sequence[int] | str | None = None,
        scale: ScaleLike = None,
        nodata: float | None = None,
        resolution: float | None = None,
        channels: int = 3,
        takes: Sequence[str] = (),
    ) -> None:
        """Open a raster, and decide how it becomes a picture. No pixels are read yet.

        Args:
            path: what rasterio opens.
            bands: numbers, from 1, of red, green and blue, as (4, 3, 2) or "4,3,2". None for those
                whose colour interpretation says so, or for the only three apart from alpha. For a
                model that takes bands, None is those whose descriptions or colour interpretations
                are the names of its bands; or, if none are, all apart from alpha in their order.
            scale: (low, high) or "LOW,HIGH", which become 0 and 255 in all bands; or "percentile",
                the 2nd and 98th percentile of each band, measured on at most 1024 x 1024 pixels.
                None for bands of 8 bits, which are used as they are, or fewer.
            nodata: value of pixels without data; None for the one the raster states, if any.
            resolution: size of a pixel in units of the coordinate system; None for the raster's
                own. Coarser pixels are averages of those with data, finer ones bilinear.
            channels: of the network's input: 3, or 1 for a grey one.
            takes: the names of the bands that the model takes, `pipeline.session.meta.bands`:
                values are used as they are. Empty for a model that takes pictures.

        Raises:
            ConfigError: there is no such band, no band is named where there is a choice, or the
                scale is missing or invalid.
            InputError: the raster can't be read, or is none that can be segmented.
            MissingExtraError: rasterio is not installed.
        """
        self.path = name_of(path)
        self._channels, self._takes, self._nodata = channels, tuple(takes), nodata
        wanted = parse_scale(scale)
        if wanted is not None and takes:
            raise ConfigError(
                f"scale {shown(scale)} is not valid: the model takes the values of its bands "
                f"({', '.join(takes)}) as they are"
            )
        with calls(self.path) as rasterio:
            self._source = rasterio.open(self.path)
            try:
                _check(self.path, self._source)
                self.bands = _bands(self.path, self._source, bands, channels, self._takes)
                self.dtype = _dtype(self.path, self._source, self.bands)
                self._grid, self.transform = self._at(resolution)
                self.size: tuple[int, int] = self._source.shape
                if self._grid is not None:
                    self.size = self._grid.down.size, self._grid.across.size
                self.crs = self._source.crs
                self._scale = self._scaling(wanted)
            except BaseException:
                self._source.close()
                raise
        self.scale = self._scale and self._scale.limits

    def __enter__(self) -> Raster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with calls(self.path):
            self._source.close()

    @property
    def block_height(self) -> int:
        """Rows of the grid that the blocks cover in which the file is stored."""
        rows = self._source.block_shapes[self.bands[0] - 1][0]
        return int(rows / self._grid.down.factor if self._grid else rows)

    def read(self, rows: slice) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read rows at full width.

        Args:
            rows: within the height of the grid.

        Returns:
            pixels: uint8 (rows, W, 3), BGR, or (rows, W), grey; for a model that takes bands,
                (rows, W, C) in the order of `bands`, uint8, uint16, int16 or float32.
                Those without data have any value.
            valid: bool (rows, W), the pixels with data.

        Raises:
            InputError: they can't be read.
        """
        with calls(self.path):
            grid = self._grid
            bands, valid = grid.read(rows, self._rows) if grid else self._rows(rows)
        if self._takes:
            dtype = self.dtype if self.dtype in BAND_DTYPES else np.dtype(np.float32)
            return np.ascontiguousarray(bands.transpose(1, 2, 0), dtype), valid
        if self._scale:
            bands = self._scale.apply(bands)
        if len(bands) == 1:
            return bands[0], valid
        pixels = cv2.merge(list(bands[::-1]))
        if self._channels == 1:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        return pixels, valid

    def read_frame(self, reading: Reading) -> Frame:
        """Read the whole raster, for `segrt.sources`.

        Pixels without data get the values of the nearest pixel with data, and a warning says how
        many there are: a `SegResult` has a class for each pixel.

        Raises:
            InputError: it can't be read, or has no pixel with data.
            TooLargeError: it has more pixels than `reading` allows.
        """
        height, width = self.size
        reading.check(width, height)
        if self._takes or self._channels != 3:
            raise InputError(f"{self.path}: only a raster of three bands becomes a picture")
        image = np.empty((height, width, 3), np.uint8)
        valid = np.empty((height, width), np.bool_)
        for top in range(0, height, _ROWS):
            rows = slice(top, min(top + _ROWS, height))
            image[rows], valid[rows] = self.read(rows)
        if missing := valid.size - int(np.count_nonzero(valid)):
            if missing == valid.size:
                raise InputError(f"{self.path} has no pixel with data")
            log.warning(
                "%s: %.1f%% of its pixels have no data, and a class nevertheless: "
                "segrt.geo.segment leaves them out",
                self.path,
                100 * missing / valid.size,
            )
        return Frame(fill(image, valid), self.path)

    def _at(self, resolution: float | None) -> tuple[Grid | None, Any]:
        """The grid of a resolution, None for that of the raster, and its transform."""
        source = self._source
        t = source.transform
        if resolution is None:
            return None, t
        across, down = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
        if not (isinstance(resolution, (int, float)) and 0 < resolution < math.inf):
            raise ConfigError(f"resolution {shown(resolution)} is not valid: give a size above 0")
        factors = resolution / across, resolution / down
        if max(*factors, *(1 / factor for factor in factors)) > _FURTHEST:
            unit = source.crs.linear_units if source.crs else "units of its transform"
            unit = "degrees" if source.crs and source.crs.is_geographic else unit
            raise ConfigError(
                f"resolution {resolution:g} is not valid for {self.path}, whose pixels are "
                f"{across:g} x {down:g} {unit}: give one within a factor of {_FURTHEST}"
            )
        average = max(factors) > 1
        grid = Grid(
            Axis(source.height, factors[1], average), Axis(source.width, factors[0], average)
        )
        x, y = factors
        return grid, type(t)(t.a * x, t.b * y, t.c, t.d * x, t.e * y, t.f)

    def _rows(self, rows: slice) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Rows of the raster itself; see `_read`."""
        return self._read(window=((rows.start, rows.stop), (0, self._source.width)))

    def _read(
        self, shape: tuple[int, ...] | None = None, **options: Any
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The selected bands (C, h, w), and the pixels with data."""
        source = self._source
        several = shape and (len(self.bands), *shape)
        bands = source.read(list(self.bands), out_shape=several, **options)
        options["out_shape"] = shape
        valid = np.ones(bands.shape[1:], np.bool_)
        if (alpha := _alpha(source)) is not None:
            valid &= source.read(alpha, **options) > 0
        for band in _masked(source, self.bands):
            valid &= source.read_masks(band, **options) > 0
        stated = [source.nodatavals[band - 1] for band in self.bands]
        values = stated if self._nodata is None else [self._nodata] * len(bands)
        equal = [band == value for band, value in zip(bands, values, strict=True)]  # None: False
        valid &= ~(np.all(equal, 0) if bands.dtype.kind == "u" else np.any(equal, 0))
        if bands.dtype.kind == "f":
            valid &= np.isfinite(bands).all(0)
        return bands, valid

    def _scaling(self, wanted: Any) -> Scale | None:
        if self._takes:
            return None
        count = len(self.bands)
        if isinstance(wanted, tuple):
            return Scale((wanted,) * count)
        bits = min(_bits(self._source, band) for band in self.bands)
        if wanted is None and self.dtype == np.uint8:
            return None if bits == 8 else Scale(((0, 2**bits - 1),) * count)
        samples, valid = self._sampled()
        if wanted == "percentile":
            return Scale(measured(samples, valid))
        values = samples[:, valid]
        span = f" from {values.min():g} to {values.max():g}" if values.size else ""
        raise ConfigError(
            f"{self.path} has values of {self.dtype}{span}, and the model takes 0 to 255: set the "
            "scale to LOW,HIGH, the values that become 0 and 255, or to percentile"
        )

    def _sampled(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Every n-th pixel of the selected bands, and which of these have data."""
        from rasterio.enums import Resampling

        share = min(1, _SAMPLES / max(self._source.shape))
        shape = tuple(math.ceil(side * share) for side in self._source.shape)
        return self._read(shape, resampling=Resampling.nearest)


def fill(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Give pixels without data the values of the nearest pixel with data.

    Args:
        pixels: (H, W, ...).
        valid: (H, W), the pixels with data, at least one; distances are those of
            `cv2.distanceTransform` with a mask of 5 x 5.

    Returns:
        np.ndarray: `pixels` itself if all have data.
    """
    if valid.all():
        return pixels
    _, nearest = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at = np.zeros(int(nearest.max()) + 1, np.intp)
    at[nearest[valid]] = np.flatnonzero(valid)
    flat = pixels.reshape(valid.size, *pixels.shape[2:])
    filled = flat.copy()
    empty = ~valid.ravel()
    filled[empty] = flat[at[nearest.ravel()[empty]]]
    return filled.reshape(pixels.shape)


def _check(path: str, source: Any) -> None:
    """Refuse what has no pixels of its own, or no plain grid."""
    if source.subdatasets:
        names = ", ".join(source.subdatasets[:3])
        raise InputError(
            f"{path} holds {len(source.subdatasets)} rasters: give one of them, as in {names}"
        )
    if not source.count:
        raise InputError(f"{path} has no bands")
    if source.transform.is_identity and (source.gcps[0] or source.rpcs):
        kind = "ground control points" if source.gcps[0] else "a camera model (RPC)"
        raise InputError(
            f"{path} is located by {kind}, not by a grid: run  gdalwarp {path} warped.tif  first"
        )


def _alpha(source: Any) -> int | None:
    from rasterio.enums import ColorInterp

    found = [i for i, kind in enumerate(source.colorinterp, 1) if kind == ColorInterp.alpha]
    return found[0] if found else None


def _masked(source: Any, bands: Sequence[int]) -> list[int]:
    """The bands with a mask of their own, or one of them if the raster has a mask."""
    from rasterio.enums import MaskFlags

    flags = [source.mask_flag_enums[band - 1] for band in bands]
    derived = MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha
    own = [band for band, of in zip(bands, flags, strict=True) if not set(derived) & set(of)]
    return own[:1] if all(MaskFlags.per_dataset in of for of in flags) else own


def _bands(
    path: str,
    source: Any,
    given: Sequence[int] | str | None,
    channels: int,
    takes: tuple[str, ...],
) -> tuple[int, ...]:
    """The bands to read, in the order of the model, or red first."""
    from rasterio.enums import ColorInterp

    kinds = source.colorinterp
    listed = ", ".join(
        f"{i} {kind.name} {dtype}"
        for i, (kind, dtype) in enumerate(zip(kinds, source.dtypes, strict=True), 1)
    )
    has = f"{path} has {'the band' if source.count == 1 else 'the bands'} {listed}"
    if given is not None:
        if isinstance(given, str):
            numbers = re.fullmatch(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*", given)
            given = [int(number) for number in given.split(",")] if numbers else [0]
        chosen = tuple(given)
        if not all(type(i) is int and 1 <= i <= source.count for i in chosen):
            raise ConfigError(f"bands {shown(chosen)} is not valid: {has}")
        if len(chosen) not in {channels, 3 if channels == 1 else channels}:
            those = "1 band, or red, green and blue" if channels == 1 else f"{channels} bands"
            raise ConfigError(f"bands {shown(chosen)} is not valid: the model takes {those}; {has}")
    else:
        colours = ColorInterp.red, ColorInterp.green, ColorInterp.blue
        others = tuple(i for i, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha)
        if takes and (named := _named(source, takes)):
            if len(named) < len(takes):
                missing = ", ".join(name for name in takes if name not in named)
                raise ConfigError(
                    f"{has}, and the model takes {', '.join(takes)}: which is {missing}? Give the "
                    f"{len(takes)} numbers as bands"
                )
            chosen = tuple(named.values())
        elif all(kinds.count(colour) == 1 for colour in colours) and channels in (1, 3):
            chosen = tuple(kinds.index(colour) + 1 for colour in colours)
        elif len(others) in {channels, 3 if channels == 1 else channels}:
            chosen = others
        else:
            raise ConfigError(
                f"{has}, and the model takes {channels}: name them in its order, red first, as in "
                f"bands {','.join(['1'] * channels) if source.count == 1 else '4,3,2'}"
            )
    if ColorInterp.palette in [kinds[i - 1] for i in chosen]:
        raise InputError(
            f"{path} has the colours of a palette: run  gdal_translate -expand rgb {path} rgb.tif"
        )
    return chosen


def _named(source: Any, takes: Sequence[str]) -> dict[str, int]:
    """The number of each band of a model that the raster names, by its name.

    Descriptions are the words of whoever made the raster; programs add colour interpretations.
    """
    for texts in (source.descriptions, [kind.name for kind in source.colorinterp]):
        lower = [(text or "").strip().lower() for text in texts]
        known = {name: lower.index(name.lower()) + 1 for name in takes if name.lower() in lower}
        if known:
            return known
    return {}


def _dtype(path: str, source: Any, bands: Sequence[int]) -> np.dtype[Any]:
    names = {source.dtypes[band - 1] for band in bands}
    if len(names) > 1:
        raise InputError(f"{path}: its bands are of several types, {', '.join(sorted(names))}")
    (name,) = names
    if name.startswith("complex"):
        raise InputError(f"{path} has values of {name}: convert it to real numbers first")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _bits(source: Any, band: int) -> int:
    """The bits of each value: fewer than its type has in a raster of 1 bit, say."""
    own = int(np.dtype(source.dtypes[band - 1]).itemsize) * 8
    return min(own, int(source.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", own)))
