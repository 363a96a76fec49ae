"""Polygons of label rasters."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segrt.errors import ConfigError, InputError
from segrt.geo import outlines, vectors

rasterio = pytest.importorskip("rasterio", reason="needs segrt[geo]")
pyogrio = pytest.importorskip("pyogrio", reason="needs segrt[geo]")
pyproj = pytest.importorskip("pyproj", reason="needs segrt[geo]")
shapely = pytest.importorskip("shapely", reason="needs segrt[geo]")

UTM = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
ROTATED = rasterio.Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_400_000)

LABELS = np.array(
    [[0, 0, 1, 1], [0, 2, 1, 1], [0, 0, 2, 255], [3, 3, 255, 255]],
    np.uint8,
)


def save(path: Path, values: Any, **options: Any) -> Path:
    """A raster of one band; by default in UTM with pixels of half a metre."""
    options = {"crs": "EPSG:32633", "transform": UTM, "nodata": 255} | options
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=values.dtype,
        **options,
    ) as file:
        file.write(values, 1)
    return path


def read(path: Path) -> tuple[Any, list[dict[str, Any]], Any]:
    """Geometries, attributes and coordinate system of a file."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs segrt[parquet]")
        table = parquet.read_table(path)
        geometries = shapely.from_wkb(table["geometry"].to_pylist())
        geo = json.loads(table.schema.metadata[b"geo"])
        crs = geo["columns"]["geometry"]["crs"]
        crs = crs and pyproj.CRS.from_json_dict(crs)
        return geometries, table.drop(["geometry"]).to_pylist(), crs
    meta, _, wkb, columns = pyogrio.raw.read(path)
    rows = [dict(zip(meta["fields"].tolist(), row, strict=True)) for row in zip(*columns)]
    return shapely.from_wkb(wkb), rows, meta["crs"] and pyproj.CRS(meta["crs"])


def traced(labels: Any, rows: int, **options: Any) -> tuple[list[Any], list[int], list[float]]:
    """The regions of labels that are read in strips."""
    polygons, ids, areas = [], [], []
    cut = [labels[top : top + rows] for top in range(0, len(labels), rows)]
    strips = (outlines.Strip(part, np.ones((len(part), 1))) for part in cut)
    for found in outlines.regions(strips, **options):
        rings = np.split(found.points, found.rings[1:-1])
        for one, other in zip(found.owners[:-1], found.owners[1:], strict=True):
            polygons.append(shapely.Polygon(rings[one], rings[one + 1 : other]))
        ids += found.labels.tolist()
        areas += found.areas.tolist()
    return polygons, ids, areas


label_maps = st.tuples(st.integers(1, 10), st.integers(1, 10)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(-1, 2))
)


@settings(deadline=None)
@given(label_maps, st.integers(1, 5))
def test_regions_cover_each_pixel_with_a_label_once(labels: Any, rows: int) -> None:
    polygons, ids, areas = traced(labels, rows)

    assert all(polygon.is_valid for polygon in polygons)
    assert [polygon.area for polygon in polygons] == areas
    assert sum(areas) == (labels >= 0).sum()
    for y, x in np.ndindex(labels.shape):
        here = [
            label
            for label, shape in zip(ids, polygons)
            if shape.covers(shapely.box(x, y, x + 1, y + 1))
        ]
        assert here == ([labels[y, x]] if labels[y, x] >= 0 else [])
    # Neighbours have the same corners along their border.
    assert len(polygons) < 2 or shapely.coverage_is_valid(polygons)


@settings(deadline=None)
@given(label_maps, st.integers(1, 5))
def test_strips_leave_no_trace(labels: Any, rows: int) -> None:
    some, at_once = traced(labels, rows), traced(labels, len(labels))

    outlines_of = [
        {shapely.normalize(shape).wkt for shape in found[0]} for found in (some, at_once)
    ]
    assert outlines_of[0] == outlines_of[1]
    assert sorted(some[2]) == sorted(at_once[2])
