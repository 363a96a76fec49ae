"""The part of a scene that polygons of a vector file cover."""

from __future__ import annotations

import hashlib
import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.errors import InputError, MissingExtraError
from segrt.geo.library import calls, name_of

_Bounds: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top."""


class Area:
    """The polygons of a file, in the coordinates of a raster.

    A pixel is in the area if its centre is in a polygon.

    Attributes:
        digest: SHA-256 of the polygons.
    """

    def __init__(
        self, file: str | os.PathLike[str], crs: Any, transform: Any, size: tuple[int, int]
    ) -> None:
        """Read the polygons of all layers.

        Args:
            file: a vector file of any format that GDAL reads, in any coordinate system.
            crs: that of the raster; None if it has none. Then the file must have none either.
            transform: from pixels to coordinates of the raster.
            size: (height, width) of the raster.

        Raises:
            InputError: the file can't be read or holds no polygon, or only one of the two has a
                coordinate system.
            MissingExtraError: pyogrio or shapely is not installed.
        """
        self._file, self._transform = name_of(file), transform
        t, corners = transform, [(column, row) for row in (0, size[0]) for column in (0, size[1])]
        x = [t.a * column + t.b * row + t.c for column, row in corners]
        y = [t.d * column + t.e * row + t.f for column, row in corners]
        self._shapes = _polygons(self._file, crs, (min(x), min(y), max(x), max(y)))
        self.digest = hashlib.sha256(repr(self._shapes).encode()).hexdigest()

    def covers(self, rows: slice, width: int) -> npt.NDArray[np.bool_]:
        """Which pixels of some rows are in the area: bool (rows, width)."""
        with calls(self._file):
            from rasterio.features import geometry_mask
            from rasterio.windows import Window, transform

            height = rows.stop - rows.start
            if not self._shapes:  # all are elsewhere
                return np.zeros((height, width), np.bool_)
            inside = geometry_mask(
                self._shapes,
                (height, width),
                transform(Window(0, rows.start, width, height), self._transform),
                invert=True,
            )
        return np.asarray(inside, np.bool_)


def _polygons(file: str, crs: Any, bounds: _Bounds) -> list[Any]:
    """The polygons of a file that may meet the bounds, as GeoJSON geometries."""
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
    is_empty = True
    for meta, _, geometries, _ in read:
        if geometries is None:  # a table
            continue
        try:
            polygons = _polygons_in(shapely.force_2d(shapely.from_wkb(geometries)))
        except shapely.errors.ShapelyError as error:
            raise InputError(f"{file}: {error}") from None
        if not len(polygons):
            continue
        if not np.isfinite(shapely.get_coordinates(polygons)).all():
            raise InputError(f"{file}: a polygon has coordinates that are not numbers")
        is_empty = False
        if (crs is None) != (meta["crs"] is None):
            has, lacks = ("the scene", file) if crs else (file, "the scene")
            raise InputError(
                f"{has} has a coordinate system and {lacks} has none: give both one, or neither"
            )
        shapes += _moved(file, polygons, meta["crs"], crs, bounds)
    if is_empty:
        raise InputError(f"{file} holds no polygon: give a file with the area of interest")
    return shapes


def _moved(file: str, polygons: Any, before: Any, after: Any, bounds: _Bounds) -> list[Any]:
    """Polygons in another coordinate system, as GeoJSON geometries, as far as they are near."""
    import shapely

    if after is None:
        return [shapely.geometry.mapping(polygon) for polygon in polygons]
    with calls(file):
        from rasterio.crs import CRS
        from rasterio.warp import transform_geom

        source = CRS.from_user_input(before)
        if source == after:
            return [shapely.geometry.mapping(polygon) for polygon in polygons]
        # A projection may have no place, or a wrong one, for what is far away.
        near = [shapely.box(*part) for part in _around(after, source, bounds)]
        invalid = ~shapely.is_valid(polygons)
        polygons[invalid] = shapely.make_valid(polygons[invalid])
        parts = _polygons_in(shapely.intersection(polygons, shapely.union_all(near)))
        if not len(parts):
            return []
        # Straight edges may be curves in other coordinates.
        left, low, right, high = shapely.total_bounds(parts)
        parts = shapely.segmentize(parts, max(right - left, high - low) / 200)
        shapes = [shapely.geometry.mapping(part) for part in parts]
        return list(transform_geom(source, after, shapes))


def _polygons_in(geometries: Any) -> Any:
    """The polygons among geometries and in their collections, and in collections of these."""
    import shapely

    while (shapely.get_type_id(geometries) > 3).any():
        geometries = shapely.get_parts(geometries)
    is_polygon = shapely.get_type_id(geometries) == 3
    return geometries[is_polygon & ~shapely.is_empty(geometries)]


def _around(crs: Any, other: Any, bounds: _Bounds) -> list[_Bounds]:
    """The bounds in another coordinate system, with a margin; two if they cross 180 degrees.

    Raises:
        InputError: they are outside of its domain.
    """
    from rasterio.warp import transform_bounds

    left, low, right, high = transform_bounds(crs, other, *bounds)
    if not np.isfinite((left, low, right, high)).all():
        raise InputError(f"the scene has no place in the coordinate system {other.to_string()}")
    wide = left > right
    margin = max(360 - left + right if wide else right - left, high - low) / 20
    low, high = low - margin, high + margin
    if wide:
        return [(left - margin, low, 180, high), (-180, low, right + margin, high)]
    return [(left - margin, low, right + margin, high)]
