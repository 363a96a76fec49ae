"""Writes the regions of a label raster as polygons: GeoPackage, GeoJSON or GeoParquet."""

from __future__ import annotations

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from segrt.errors import ConfigError, InputError, MissingExtraError
from segrt.files import replacing
from segrt.geo import library
from segrt.geo.library import calls
from segrt.geo.outlines import NOTHING, Regions, Strip, regions
from segrt.geo.output import PREFIX
from segrt.types import shown

log = logging.getLogger("segrt")

Progress: TypeAlias = Callable[[int, int], None]
"""Progress callback: rows done, and the total."""

SUFFIXES = (".gpkg", ".geojson", ".parquet")
"""The formats of polygons, by the suffix of the file."""

_STRIP = 2**20  # pixels, of which noise takes half a kilobyte each
_BATCH = 50_000  # polygons written at once
_SPACING = 256  # pixels at most, and
_FAR = 4e6  # metres: a longer straight line may be a curve in degrees
_STEP = 0.5  # degrees, whose chord is a millionth shorter than a parallel
_ROUNDING = 1e-9  # degrees
_DISTORTION = 0.01  # of areas, by a projection, that is worth a warning

_Floats = NDArray[np.float64]


def polygons(
    labels: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    scores: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    min_area: float = 0.0,
    wgs84: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a polygon for each connected region of a label raster, along the edges of its pixels.

    Pixels are connected if they share an edge; regions may have any size. The polygons are valid
    and don't overlap, and neighbours have the same corners along their common border. Together they
    cover all pixels with a label; pixels without data are in none.

    Each polygon has the attributes `class_id`, `class_name`, `area_m2` and `perimeter_m` (with the
    outlines of its holes), and `score`, the mean of its pixels, if there are scores. Areas and
    perimeters are those in the projection of the raster; a warning says if that enlarges or reduces
    areas by more than 1%. In degrees they are those on the ellipsoid. In a raster without a
    coordinate system they are in units of its coordinates, or pixels, and called `area` and
    `perimeter`.

    Example:
        >>> segrt.geo.polygons("labels.tif", "labels.gpkg", min_area=5)
        1284

    Args:
        labels: a raster with one band of class ids, as written by `segment`.
        out: the file to write, which ends in .gpkg, .geojson or .parquet (GeoParquet 1.1). It
            appears when it is complete; one of this name is replaced.
        scores: a raster of the same size with one band: the score of each pixel.
        class_names: the name of each class id; None for those in the label raster, or `class_7`.
        min_area: smaller regions are left out, in square metres (without a coordinate system: in
            units of its coordinates). Nothing takes their place.
        wgs84: whether to convert the coordinates to longitude and latitude in WGS 84, as GeoJSON
            by RFC 7946 has them, rather than keep those of the raster. GeoJSON in other coordinate
            systems has a member `crs`, as in GeoJSON of 2008, which GDAL and QGIS read.
        progress: called after each strip of rows.

    Returns:
        int: the number of polygons.

    Raises:
        ConfigError: an option is invalid, or `out` is one of the rasters.
        InputError: a raster can't be read or doesn't hold class ids, the scores don't fit, or the
            coordinates can't be converted.
        MissingExtraError: rasterio, pyogrio, pyproj, shapely or pyarrow is not installed.
        OSError: the disk is full, or `out` can't be written.
    """
    target = Path(out)
    check_output(target, min_area)
    for raster in (labels, scores):
        if raster is not None:
            library.refuse_source(target, library.files_of(raster))
    columns = _Columns(has_scores=scores is not None)
    with calls(os.fspath(labels)) as rasterio, rasterio.open(labels) as source:
        _check_labels(source)
        place = Place.of(source)
        if class_names is None:
            class_names = _names_in(source)
        if wgs84 and not place.is_on_earth:
            raise ConfigError(
                f"{os.fspath(labels)} has no coordinate system: its polygons can't be in WGS 84"
            )
        columns.unit = ("_m2", "_m") if place.is_on_earth else ("", "")
        _warn(place, source)
        spacing = place.spacing if wgs84 and not place.in_degrees else 0
        suffix = target.suffix.lower()
        with replacing(target, suffix) as temporary:
            with _WRITERS[suffix](temporary, target.stem, place, columns, wgs84) as writer:
                strips = _strips(source, place, scores, progress)
                for found in regions(strips, min_area=min_area, spacing=spacing):
                    writer.add(found, class_names)
            return writer.written


def check_output(target: Path, min_area: object = 0.0) -> None:
    """Refuse a file that can't be written, before anything is done.

    Raises:
        ConfigError: its suffix is none of `SUFFIXES`, or `min_area` is no area.
        MissingExtraError: a package for this format is not installed.
    """
    is_number = isinstance(min_area, (int, float)) and not isinstance(min_area, bool)
    if not (is_number and 0 <= min_area < np.inf):  # type: ignore[operator]
        raise ConfigError(f"min_area {shown(min_area)} is not valid: give square metres, from 0")
    library.name_of(target)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"polygons can't be written to {target.name!a}: use a name that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    for package in ("pyproj", "shapely", _WRITERS[suffix].package):
        if find_spec(package) is None:
            extra = "parquet" if package == "pyarrow" else "geo"
            raise MissingExtraError(
                f"polygons in {target.name!a} need {package}: run  pip install 'segrt[{extra}]'"
            )


def _warn(place: Place, source: Any) -> None:
    factor = place.enlargement(source.width, source.height)
    if abs(factor - 1) > _DISTORTION:
        log.warning(
            "%s: areas here are %.3g times as large in %s as on the ground, and those of the "
            "polygons are too: for true ones, reproject the scene, such as to UTM",
            source.name,
            factor,
            place.crs.name,
        )


def _check_labels(source: Any) -> None:
    if source.count != 1 or np.dtype(source.dtypes[0]).kind not in "iu":
        raise InputError(
            f"{source.name} is no label raster: it has {source.count} bands of type "
            f"{source.dtypes[0]}, rather than one of integers"
        )


def _names_in(source: Any) -> list[str]:
    """The class names in an open label raster; none if it is from elsewhere."""
    try:
        names = orjson.loads(source.tags().get(f"{PREFIX}CLASSES", "[]"))
    except orjson.JSONDecodeError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


@dataclass(frozen=True)
class Place:
    """Where a raster is, and the units it is measured in.

    Attributes:
        crs: a pyproj.CRS; None if the raster has none.
        transform: a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + e * row + f.
        unit: metres, or degrees, of a unit of the coordinates.
    """

    crs: Any
    transform: tuple[float, float, float, float, float, float]
    unit: float = 1.0

    @classmethod
    def of(cls, source: Any) -> Place:
        """That of an open raster."""
        transform = tuple(source.transform)[:6]
        if source.crs is None:
            return cls(None, transform)
        import pyproj

        crs = pyproj.CRS.from_wkt(source.crs.to_wkt())
        if not crs.axis_info:
            return cls(crs, transform)
        unit = crs.axis_info[0].unit_conversion_factor  # metres, or radians
        return cls(crs, transform, float(np.rad2deg(unit)) if crs.is_geographic else unit)

    @property
    def is_on_earth(self) -> bool:
        """Whether coordinates have a place, and so metres; those of a local system may not."""
        return self.crs is not None and bool(self.crs.is_geographic or self.crs.is_projected)

    @property
    def in_degrees(self) -> bool:
        """Whether coordinates are longitude and latitude."""
        return self.crs is not None and bool(self.crs.is_geographic)

    @property
    def determinant(self) -> float:
        """The area of a pixel in units of the coordinates; negative if north is up."""
        a, b, _, d, e, _ = self.transform
        return a * e - b * d

    @property
    def spacing(self) -> int:
        """Pixels between points of a straight line that may be a curve in degrees."""
        a, b, _, d, e, _ = self.transform
        metres = max(np.hypot(a, d), np.hypot(b, e)) * self.unit
        return max(1, min(_SPACING, int(_FAR / metres)))

    def move(self, points: NDArray[Any]) -> tuple[_Floats, _Floats]:
        """The coordinates x and y of corners of pixels (N, 2)."""
        a, b, c, d, e, f = self.transform
        column, row = points.T.astype(np.float64)
        return a * column + b * row + c, d * column + e * row + f

    def areas(self, top: int, height: int, width: int) -> _Floats:
        """The area of pixels, float64 (height, 1) or (height, width), in square metres.

        On the ellipsoid it is that of a small cell at the latitude of its centre: M N cos(latitude)
        for a square of one radian, where M and N are the radii of curvature.
        """
        _, _, _, d, e, f = self.transform
        if not self.in_degrees:
            return np.full((height, 1), abs(self.determinant) * self.unit**2)
        rows = np.arange(top, top + height)[:, None] + 0.5
        columns = np.arange(width if d else 1) + 0.5
        latitude = np.deg2rad((d * columns + e * rows + f) * self.unit)
        ellipsoid = self.crs.get_geod()
        flat = 1 - ellipsoid.es * np.sin(latitude) ** 2
        square = ellipsoid.a**2 * (1 - ellipsoid.es) / flat**2 * np.cos(latitude)
        areas: _Floats = abs(self.determinant) * np.deg2rad(self.unit) ** 2 * square
        return areas

    def lengths(self, x: _Floats, y: _Floats) -> _Floats:
        """The lengths of the lines between successive points, in metres."""
        across, down = np.diff(x), np.diff(y)
        if not self.in_degrees:
            return np.hypot(across, down) * self.unit
        # A line on the map, such as a parallel, is longer than the shortest way: go in steps.
        steps = np.ceil(np.maximum(np.abs(across), np.abs(down)) * self.unit / _STEP)
        steps = np.maximum(steps, 1).astype(np.int64)
        line = np.repeat(np.arange(len(steps)), steps)
        first = np.cumsum(steps) - steps
        at = (np.arange(len(line)) - first[line]) / steps[line]
        to = at + 1 / steps[line]
        x, y, across, down = (v * self.unit for v in (x[line], y[line], across[line], down[line]))
        ends = x + at * across, y + at * down, x + to * across, y + to * down
        metres: _Floats = self.crs.get_geod().inv(*ends)[2]
        return np.add.reduceat(metres, first) if len(first) else metres

    def enlargement(self, width: int, height: int) -> float:
        """How much larger areas are in the projection, at the centre of the raster."""
        if self.crs is None or not self.crs.is_projected:
            return 1.0
        import pyproj

        x, y = self.move(np.array([[width / 2, height / 2]]))
        try:
            projection = pyproj.Proj(self.crs)
            longitude, latitude = projection(x[0], y[0], inverse=True)
            factors = projection.get_factors(longitude, latitude)
        except pyproj.exceptions.ProjError:  # PROJ can't say
            return 1.0
        return float(factors.areal_scale)


def _strips(
    source: Any,
    place: Place,
    scores: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> Iterator[Strip]:
    """Read the rasters from top to bottom."""
    if scores is None:
        yield from _read(source, None, place, progress)
        return
    with calls(os.fspath(scores)) as rasterio, rasterio.open(scores) as scored:
        ours, theirs = source.transform, scored.transform
        same = scored.shape == source.shape and theirs.almost_equals(ours, precision=1e-9)
        if not same or scored.count != 1:
            raise InputError(
                f"{scored.name} doesn't fit {source.name}: scores must be one band of "
                f"{source.width} x {source.height} pixels in the same place"
            )
        yield from _read(source, scored, place, progress)


def _read(source: Any, scored: Any, place: Place, progress: Progress | None) -> Iterator[Strip]:
    height, width = source.shape
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        window = ((top, top + count), (0, width))
        values = source.read(1, window=window)
        known = source.read_masks(1, window=window) > 0
        labels = np.where(known, values.astype(np.int64), NOTHING)
        if labels.min() < NOTHING or labels.max() > 65_535 or (labels[known] < 0).any():
            raise InputError(
                f"{source.name} is no label raster: class ids are from 0 to 65535, and it has "
                f"{values[known].min()} to {values[known].max()}"
            )
        means = None
        if scored is not None:
            means = scored.read(1, window=window).astype(np.float32)
            means = means * np.float32(scored.scales[0]) + np.float32(scored.offsets[0])
            means[scored.read_masks(1, window=window) == 0] = np.nan
        yield Strip(labels.astype(np.int32), place.areas(top, count, width), means)
        if progress is not None:
            progress(top + count, height)


@dataclass
class _Columns:
    """The attributes of the polygons.

    Attributes:
        has_scores: whether there is the column `score`.
        unit: endings of `area` and `perimeter`.
    """

    has_scores: bool
    unit: tuple[str, str] = ("", "")

    @property
    def names(self) -> list[str]:
        area, length = self.unit
        score = ["score"] if self.has_scores else []
        return ["class_id", "class_name", *score, f"area{area}", f"perimeter{length}"]


class _Writer(ABC):
    """Writes polygons in batches.

    Attributes:
        package: what it is written with.
        written: their number so far.
    """

    package: ClassVar[str]

    def __init__(
        self, file: Path, layer: str, place: Place, columns: _Columns, wgs84: bool
    ) -> None:
        self.file, self.layer, self.columns = file, layer, columns.names
        self.written = 0
        self.crs = place.crs
        self._place, self._has_scores = place, columns.has_scores
        self._convert: Any = None
        if wgs84:
            import pyproj

            self.crs = pyproj.CRS.from_epsg(4326)
            try:
                self._convert = pyproj.Transformer.from_crs(place.crs, self.crs, always_xy=True)
            except pyproj.exceptions.ProjError:
                raise InputError(
                    f"{place.crs.name} can't be converted to WGS 84: write the polygons without it"
                ) from None
        self._waiting: list[tuple[Any, list[NDArray[Any]]]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, error: object, *rest: object) -> None:
        try:
            if error is None:
                self._flush(last=True)
        except BaseException:
            self.abandon()
            raise
        if error is None:
            self.close()
        else:
            self.abandon()

    @abstractmethod
    def write(self, geometries: Any, values: list[NDArray[Any]]) -> None:
        """Write polygons of shapely with the values of each column. May be none, once."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Close what is open of a file that is deleted next."""

    def add(self, found: Regions, class_names: Sequence[str]) -> None:
        """Write regions, now or later."""
        if len(found.labels):
            self._waiting.append(self._shaped(found, class_names))
        if sum(len(geometries) for geometries, _ in self._waiting) >= _BATCH:
            self._flush()

    def _flush(self, last: bool = False) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            geometries = np.concatenate([batch[0] for batch in waiting])
            values = [np.concatenate(parts) for parts in zip(*(b[1] for b in waiting), strict=True)]
            self.write(geometries, values)
            self.written += len(geometries)
        elif last and not self.written:
            empty: list[NDArray[Any]] = [np.empty(0, np.float64) for _ in self.columns]
            empty[:2] = np.empty(0, np.int32), np.empty(0, object)
            self.write(np.empty(0, object), empty)

    def _shaped(self, found: Regions, names: Sequence[str]) -> tuple[Any, list[NDArray[Any]]]:
        """Polygons, whose exteriors are counterclockwise, and the values of each column."""
        import shapely

        starts, ends = found.rings[:-1], found.rings[1:]
        lengths = ends - starts + 1
        closed = np.append(0, np.cumsum(lengths))
        step = np.arange(closed[-1]) - np.repeat(closed[:-1], lengths)
        backwards = self._place.determinant < 0
        index = (
            np.repeat(ends - 1, lengths) - step
            if backwards
            else (np.repeat(starts, lengths) + step)
        )
        index[closed[1:] - 1] = index[closed[:-1]]
        x, y = self._place.move(found.points[index])

        of_regions = closed[found.owners]
        metres = np.append(self._place.lengths(x, y), 0)
        metres[closed[1:] - 1] = 0  # from one ring to the next
        perimeters = np.add.reduceat(metres, of_regions[:-1])
        if self._convert is not None:
            x, y = self._to_degrees(x, y, closed[1:-1] - 1)
        geometries = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, np.stack([x, y], axis=1), (closed, found.owners)
        )
        present, which = np.unique(found.labels, return_inverse=True)
        texts = [names[c] if c < len(names) else f"class_{c}" for c in present.tolist()]
        score = [found.scores] if self._has_scores else []
        named = np.array(texts, object)[which]
        return geometries, [found.labels.astype(np.int32), named, *score, found.areas, perimeters]

    def _to_degrees(self, x: _Floats, y: _Floats, between: NDArray[np.int64]) -> Any:
        """Longitude and latitude; `between` are the lines from one ring to the next."""
        x, y = self._convert.transform(x, y)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError(
                "some coordinates have no longitude and latitude: write the polygons without WGS 84"
            )
        jumps = np.abs(np.diff(x))
        jumps[between] = 0
        # Degrees that were there before do not jump; those of a projection lie close together.
        jumped = not self._place.in_degrees and (jumps > 180).any()
        if jumped or np.abs(x).max() > 180 + _ROUNDING:
            raise InputError(
                "the polygons cross the meridian of 180 degrees: write them without WGS 84"
            )
        return np.clip(x, -180, 180), y


class _GeoPackage(_Writer):
    """With pyogrio, which appends a batch to the file at a time."""

    package = "pyogrio"

    def write(self, geometries: Any, values: list[NDArray[Any]]) -> None:
        import pyogrio.raw
        import shapely

        if not self.written:
            self.file.unlink()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            try:
                pyogrio.raw.write(
                    self.file,
                    shapely.to_wkb(geometries),
                    values,
                    self.columns,
                    layer=self.layer,
                    driver="GPKG",
                    geometry_type="Polygon",
                    crs=None if self.crs is None else self.crs.to_wkt(),
                    append=bool(self.written),
                )
            except RuntimeError as error:  # of pyogrio.errors
                raise OSError(f"{self.layer}.gpkg can't be written: {error}") from None

    def close(self) -> None:
        """Each batch has been written."""

    def abandon(self) -> None:
        """Nothing is open."""


class _GeoJson(_Writer):
    """GeoJSON text, a feature a line: GDAL would collect all features to append some."""

    package = "shapely"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._file = self.file.open("wb")
        head: dict[str, Any] = {"type": "FeatureCollection", "name": self.layer}
        if (name := self._crs_name()) is not None:
            head["crs"] = {"type": "name", "properties": {"name": name}}
        self._file.write(orjson.dumps(head)[:-1] + b',"features":[')

    def _crs_name(self) -> str | None:
        """The name of the coordinate system; none for that of RFC 7946."""
        if self.crs is None:
            return _PLANE_WKT
        authority = self.crs.to_authority(min_confidence=100)
        if authority in (("EPSG", "4326"), ("OGC", "CRS84")):
            return None
        return "urn:ogc:def:crs:{}::{}".format(*authority) if authority else self.crs.to_wkt()

    def write(self, geometries: Any, values: list[NDArray[Any]]) -> None:
        import shapely

        columns = [column.tolist() for column in values]
        parts = []
        for geometry, *row in zip(shapely.to_geojson(geometries), *columns, strict=True):
            properties = orjson.dumps(dict(zip(self.columns, row, strict=True)))
            parts.append(
                b'{"type":"Feature","properties":%b,"geometry":%b}'
                % (properties, geometry.encode())
            )
        if parts:
            self._file.write(b",\n" if self.written else b"\n")
            self._file.write(b",\n".join(parts))

    def close(self) -> None:
        self._file.write(b"\n]}\n")
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


class _GeoParquet(_Writer):
    """GeoParquet 1.1, https://geoparquet.org/releases/v1.1.0/: pyogrio's GDAL lacks Parquet."""

    package = "pyarrow"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._writer: Any = None

    def write(self, geometries: Any, values: list[NDArray[Any]]) -> None:
        import pyarrow
        import pyarrow.parquet
        import shapely

        wkb = pyarrow.array(shapely.to_wkb(geometries), pyarrow.binary())
        arrays = [pyarrow.array(column, from_pandas=True) for column in values]
        arrays[1] = arrays[1].cast(pyarrow.string())
        table = pyarrow.table([*arrays, wkb], names=[*self.columns, "geometry"])
        table = table.replace_schema_metadata({"geo": self._metadata()})
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self.file, table.schema)
        self._writer.write_table(table)

    def _metadata(self) -> bytes:
        column = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None if self.crs is None else self.crs.to_json_dict(),
            "orientation": "counterclockwise",
        }
        return orjson.dumps(
            {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": column},
            }
        )

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()


# RFC 7946 knows degrees only; GDAL reads a crs of its predecessor, by name.
_PLANE_WKT = 'LOCAL_CS["unknown",UNIT["unit",1],AXIS["x",EAST],AXIS["y",NORTH]]'


_WRITERS: dict[str, type[_Writer]] = {
    ".gpkg": _GeoPackage,
    ".geojson": _GeoJson,
    ".parquet": _GeoParquet,
}
