"""The part of a scene that polygons of a vector file cover."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from segrt.errors import InputError, MissingExtraError
from segrt.geo.library import calls


class Area:
    """The polygons of a file, in the coordinates of a raster.

    A pixel is in the area if its centre is in a polygon.

    Attributes:
        digest: SHA-256 of the polygons.
    """

    def __init__(self, file: str | os.PathLike[str], crs: Any, transform: Any) -> None:
        """Read the polygons of all layers.

        Args:
            file: a vector file of any format that GDAL reads, in any coordinate system.
            crs: that of the raster; None if it has none. Then the file must have none either.
            transform: from pixels to coordinates of the raster.

        Raises:
            InputError: the file can't be read or holds no polygon, or only one of the two has a
                coordinate system.
            MissingExtraError: pyogrio or shapely is not installed.
        """
        self._file, self._transform = os.fspath(file), transform
        self._shapes = _polygons(self._file, crs)
        self.digest = hashlib.sha256(repr(self._shapes).encode()).hexdigest()

    def covers(self, rows: slice, width: int) -> npt.NDArray[np.bool_]:
        """Which pixels of some rows are in the area: bool (rows, width)."""
        with calls(self._file):
            from rasterio.features import geometry_mask
            from rasterio.windows import Window, transform

            height = rows.stop - rows.start
            inside = geometry_mask(
                self._shapes,
                (height, width),
                transform(Window(0, rows.start, width, height), self._transform),
                invert=True,
            )
        return np.asarray(inside, np.bool_)


def _polygons(file: str, crs: Any) -> list[Any]:
    try:
        import pyogrio.raw
        import shapely
    except ImportError:
        raise MissingExtraError(
            "an area of interest needs pyogrio and shapely: run  pip install 'segrt[geo]'"
        ) from None
    try:
        layers = pyogrio.list_layers(file)[:, 0]
        read = [pyogrio.raw.read(file, layer=layer, columns=[]) for layer in layers]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from None
    shapes: list[Any] = []
    for meta, _, geometries, _ in read:
        found = shapely.from_wkb(geometries[geometries != None])  # noqa: E711
        parts = shapely.get_parts(found)
        polygons = parts[shapely.get_type_id(parts) == 3]
        polygons = polygons[~shapely.is_empty(polygons)]
        if not len(polygons):
            continue
        if (crs is None) != (meta["crs"] is None):
            has, lacks = ("the scene", file) if crs else (file, "the scene")
            raise InputError(
                f"{has} has a coordinate system and {lacks} has none: give both one, or neither"
            )
        shapes += _moved(file, polygons, meta["crs"], crs)
    if not shapes:
        raise InputError(f"{file} holds no polygon: give a file with the area of interest")
    return shapes


def _moved(file: str, polygons: Any, before: Any, after: Any) -> list[Any]:
    """Polygons in another coordinate system, as GeoJSON geometries."""
    import shapely

    if after is None:
        return [shapely.geometry.mapping(polygon) for polygon in polygons]
    with calls(file):
        from rasterio.crs import CRS
        from rasterio.warp import transform_geom

        source = CRS.from_user_input(before)
        if source != after:
            # Straight edges may be curves in other coordinates.
            left, low, right, high = shapely.total_bounds(polygons)
            step = max(right - left, high - low) / 200
            polygons = shapely.segmentize(polygons, step) if step > 0 else polygons
        shapes = [shapely.geometry.mapping(polygon) for polygon in polygons]
        return shapes if source == after else list(transform_geom(source, after, shapes))
