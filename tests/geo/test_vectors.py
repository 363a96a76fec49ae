"""Polygons of label rasters."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_colour_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segrt import cli
from segrt.errors import ConfigError, InputError, MissingExtraError
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


def at(transform: Any, column: float, row: float) -> tuple[float, float]:
    """The coordinates of a point in pixels."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * column + b * row + c, d * column + e * row + f


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
    rows = [
        dict(zip(meta["fields"].tolist(), row, strict=True)) for row in zip(*columns, strict=True)
    ]
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
            for label, shape in zip(ids, polygons, strict=True)
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


def test_min_area_leaves_regions_out(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    out = tmp_path / "labels.gpkg"

    # In square metres: 0.75 is three pixels of half a metre.
    assert vectors.polygons(file, out, min_area=0.75) == 2

    _, rows, _ = read(out)
    assert sorted(row["area_m2"] for row in rows) == [1.0, 1.25]


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["north up", "rotated"])
def test_each_format_has_the_same_polygons(
    tmp_path: Path, suffix: str, transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_STRIP", 4)  # a row at a time
    monkeypatch.setattr(vectors, "_BATCH", 2)
    file = save(tmp_path / "labels.tif", LABELS, transform=transform)
    scores = save(
        tmp_path / "scores.tif", (LABELS + 1).astype(np.float32) / 8, transform=transform, nodata=32
    )
    out = tmp_path / f"out{suffix}"

    count = vectors.polygons(file, out, scores=scores, class_names=["a", "b", "c"])

    shapes, rows, crs = read(out)
    assert count == len(shapes) == 5
    assert crs.to_epsg() == 32633
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
    pixel = abs(transform.determinant)
    assert sum(row["area_m2"] for row in rows) == pytest.approx(13 * pixel)
    assert [row["area_m2"] for row in rows] == pytest.approx(shapely.area(shapes).tolist())
    assert [row["perimeter_m"] for row in rows] == pytest.approx(shapely.length(shapes).tolist())
    assert [row["score"] for row in rows] == [(row["class_id"] + 1) / 8 for row in rows]
    names = {0: "a", 1: "b", 2: "c", 3: "class_3"}
    assert [row["class_name"] for row in rows] == [names[row["class_id"]] for row in rows]
    for y, x in np.ndindex(LABELS.shape):
        centre = shapely.Point(at(transform, x + 0.5, y + 0.5))
        here = [
            row["class_id"]
            for row, shape in zip(rows, shapes, strict=True)
            if shape.contains(centre)
        ]
        assert here == ([LABELS[y, x]] if LABELS[y, x] != 255 else [])


def test_geojson_in_wgs84_is_that_of_rfc_7946(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", np.zeros((2, 600), np.uint8))
    out = tmp_path / "out.geojson"

    vectors.polygons(file, out, wgs84=True)

    data = json.loads(out.read_text())
    assert "crs" not in data
    [feature] = data["features"]
    [ring] = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    there = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    corners = [at(UTM, *corner) for corner in [(0, 0), (0, 2), (600, 2), (600, 0)]]
    for x, y in corners:
        expected = there.transform(x, y)
        assert min(math.dist(expected, point) for point in ring) < 1e-12
    assert len(ring) == 9  # and two points on each long side
    assert feature["properties"]["area_m2"] == 300
    assert shapely.is_ccw(shapely.LinearRing(ring))


def test_other_geojson_names_its_coordinate_system(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    vectors.polygons(file, tmp_path / "out.geojson")

    data = json.loads((tmp_path / "out.geojson").read_text())

    assert data["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"


@pytest.mark.parametrize(
    "transform",
    [
        rasterio.Affine(0.01, 0, 10, 0, -0.01, 60),
        rasterio.Affine(0.01, 0.002, 10, 0.002, -0.01, 60),
    ],
    ids=["north up", "rotated"],
)
def test_degrees_are_measured_on_the_ellipsoid(tmp_path: Path, transform: Any) -> None:
    file = save(tmp_path / "labels.tif", LABELS, crs="EPSG:4326", transform=transform)
    vectors.polygons(file, tmp_path / "out.geojson")

    shapes, rows, crs = read(tmp_path / "out.geojson")

    assert crs.to_epsg() == 4326
    assert "crs" not in json.loads((tmp_path / "out.geojson").read_text())
    ellipsoid = pyproj.Geod(ellps="WGS84")
    for shape, row in zip(shapes, rows, strict=True):
        area, perimeter = ellipsoid.geometry_area_perimeter(shape)
        assert row["area_m2"] == pytest.approx(area, rel=1e-4)
        assert row["perimeter_m"] == pytest.approx(perimeter, rel=1e-9)


def test_feet_become_metres(tmp_path: Path) -> None:
    file = save(  # in US survey feet
        tmp_path / "labels.tif",
        np.zeros((1, 2), np.uint8),
        crs="EPSG:2263",
        transform=rasterio.Affine(10, 0, 980_000, 0, -10, 200_000),
    )
    vectors.polygons(file, tmp_path / "out.gpkg")

    _, [row], _ = read(tmp_path / "out.gpkg")

    foot = 1200 / 3937
    assert row["area_m2"] == pytest.approx(200 * foot**2)
    assert row["perimeter_m"] == pytest.approx(60 * foot)


def test_a_projection_that_enlarges_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transform = rasterio.Affine(1, 0, 1_500_000, 0, -1, 8_400_000)  # at 60 degrees north
    file = save(tmp_path / "labels.tif", LABELS, crs="EPSG:3857", transform=transform)

    vectors.polygons(file, tmp_path / "out.gpkg")

    assert "areas here are 4 times as large in WGS 84 / Pseudo-Mercator" in caplog.text


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_without_coordinate_system_units_are_those_of_the_raster(
    tmp_path: Path, suffix: str
) -> None:
    file = save(tmp_path / "labels.tif", LABELS, crs=None, transform=rasterio.Affine.identity())
    out = tmp_path / f"out{suffix}"

    vectors.polygons(file, out)

    shapes, rows, crs = read(out)
    assert shapely.total_bounds(shapes).tolist() == [0, 0, 4, 4]  # pixels, y down
    assert sum(row["area"] for row in rows) == 13
    assert crs is None or not (crs.is_geographic or crs.is_projected)
    with pytest.raises(ConfigError, match=r"labels\.tif has no coordinate system"):
        vectors.polygons(file, out, wgs84=True)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_no_polygons_make_an_empty_file(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / "labels.tif", np.full((3, 3), 255, np.uint8))

    assert vectors.polygons(file, tmp_path / f"out{suffix}") == 0

    shapes, rows, crs = read(tmp_path / f"out{suffix}")
    assert (len(shapes), rows) == (0, [])
    assert crs.to_epsg() == 32633


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_what_fails_half_way_leaves_the_old_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_STRIP", 4)
    monkeypatch.setattr(vectors, "_BATCH", 1)
    file = save(tmp_path / "labels.tif", LABELS)
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"before")

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectors.polygons(file, out, progress=stop)

    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tif", out.name]
    vectors.polygons(file, out)
    assert len(read(out)[0]) == 5


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ('["sky", "road"]', {0: "sky", 1: "road", 2: "class_2", 3: "class_3"}),
        ("{", {0: "class_0", 1: "class_1", 2: "class_2", 3: "class_3"}),
        ("7", {0: "class_0", 1: "class_1", 2: "class_2", 3: "class_3"}),
    ],
)
def test_names_in_the_raster_are_used(tmp_path: Path, tag: str, names: dict[int, str]) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    with rasterio.open(file, "r+") as opened:
        opened.update_tags(SEGRT_CLASSES=tag)

    vectors.polygons(file, tmp_path / "out.gpkg")

    _, rows, _ = read(tmp_path / "out.gpkg")
    assert {row["class_id"]: row["class_name"] for row in rows} == names


def test_the_layer_has_the_name_of_the_file(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    vectors.polygons(file, tmp_path / "a b.gpkg")

    assert pyogrio.list_layers(tmp_path / "a b.gpkg").tolist() == [["a b", "Polygon"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2), np.float32), "is no label raster: it has 1 bands of type float32"),
        (np.full((2, 2), -7, np.int16), "class ids are from 0 to 65535, and it has -7 to -7"),
        (np.full((2, 2), 70_000, np.int32), "class ids are from 0 to 65535, and it has 70000"),
    ],
)
def test_other_rasters_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    file = save(tmp_path / "labels.tif", values)

    with pytest.raises(InputError, match=message):
        vectors.polygons(file, tmp_path / "out.gpkg")

    assert not (tmp_path / "out.gpkg").exists()


def test_scores_of_another_place_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    scores = save(tmp_path / "scores.tif", np.ones((4, 4), np.float32), transform=ROTATED)

    with pytest.raises(InputError, match=r"scores\.tif doesn't fit"):
        vectors.polygons(file, tmp_path / "out.gpkg", scores=scores)


def test_polygons_across_the_date_line_are_not_moved_to_wgs84(tmp_path: Path) -> None:
    transform = rasterio.Affine(1000, 0, 831_000, 0, -1000, 100_000)  # near 180 degrees, zone 60
    file = save(
        tmp_path / "labels.tif", np.zeros((2, 8), np.uint8), crs="EPSG:32660", transform=transform
    )

    with pytest.raises(InputError, match="cross the meridian of 180 degrees"):
        vectors.polygons(file, tmp_path / "out.geojson", wgs84=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "out.shp"}, r"use a name that ends in \.gpkg, \.geojson, \.parquet"),
        ({"min_area": -1}, "min_area -1 is not valid"),
        ({"min_area": "5"}, "min_area '5' is not valid"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    out = tmp_path / options.pop("out", "out.gpkg")

    with pytest.raises(ConfigError, match=message):
        vectors.polygons(file, out, **options)


def test_the_rasters_themselves_are_not_replaced(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS)
    (tmp_path / "out.gpkg").symlink_to(file)

    with pytest.raises(ConfigError, match=r"out\.gpkg is an input itself"):
        vectors.polygons(file, tmp_path / "out.gpkg")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "find_spec", lambda name: None if name == "pyarrow" else name)

    vectors.check_output(Path("out.gpkg"))
    with pytest.raises(
        MissingExtraError, match=r"need pyarrow: run  pip install 'segrt\[parquet\]'"
    ):
        vectors.polygons("labels.tif", "out.parquet")


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> int | str | None:
        options = "--model-dir", model, "--slide", "32,32", "--device", "cpu"
        monkeypatch.setattr(sys, "argv", ["segrt", "geo", *map(str, (*arguments, *options))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    model, scene = write_colour_model(tmp_path / "colours.onnx"), tmp_path / "scene.tif"
    bands = np.zeros((3, 40, 60), np.uint8)
    bands[0, :, :30] = bands[2, :, 30:] = 255  # the left half is red, the right one blue
    profile = {"driver": "GTiff", "height": 40, "width": 60, "count": 3, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": UTM, "photometric": "rgb"}
    with rasterio.open(scene, "w", **profile) as file:
        file.write(bands)

    out = tmp_path / "labels.tif"
    assert command(scene, "-o", out, "--scores", "--polygons", tmp_path / "p.geojson") == 0
    assert "p.geojson: 2 polygons" in capsys.readouterr().err.replace("\n", "")
    _, rows, _ = read(tmp_path / "p.geojson")
    assert [row["area_m2"] for row in rows] == [300, 300]
    assert all(0.5 < row["score"] <= 1 for row in rows)
    assert len({row["class_name"] for row in rows}) == 2

    # Next to each label raster.
    (tmp_path / "scenes").mkdir()
    for name in ("a.tif", "b.tif"):
        (tmp_path / "scenes" / name).write_bytes(scene.read_bytes())
    options = "-o", tmp_path / "out", "--polygons", "gpkg", "--wgs84", "--min-area", 1
    assert command(tmp_path / "scenes", *options) == 0
    for name in ("a_labels.gpkg", "b_labels.gpkg"):
        assert read(tmp_path / "out" / name)[2].to_epsg() == 4326

    assert command(tmp_path / "scenes", "-o", tmp_path / "new", "--polygons", "x.gpkg") == 2
    assert command(scene, "-o", tmp_path / "new.tif", "--polygons", "x.shp") == 2
    assert command(scene, "-o", tmp_path / "new.tif", "--min-area", 1) == 2
    area = tmp_path / "p.geojson"
    assert command(scene, "-o", tmp_path / "new.tif", "--aoi", area, "--polygons", area) == 2
    assert "p.geojson is an input itself" in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "new.tif").exists()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_a_full_disk_is_an_error(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource", reason="needs POSIX")
    noise = np.random.default_rng(0).integers(0, 3, (120, 120), dtype=np.uint8)
    file, out = save(tmp_path / "labels.tif", noise), tmp_path / f"out{suffix}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"can't be written|too large"):
            vectors.polygons(file, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert not out.exists()


@pytest.mark.parametrize(
    ("crs", "transform", "values"),
    [
        ("EPSG:4326", (1.2, 0, -180, 0, -1.2, 60), np.zeros((100, 300))),
        ("EPSG:4326", (1.2, 0, -180 + 1e-12, 0, -1.2, 60), np.zeros((100, 300))),
        ("EPSG:3857", (133_000, 0, -19_950_000, 0, -133_000, 9_000_000), np.zeros((100, 300))),
        ("EPSG:3857", (39_900, 0, -19_950_000, 0, -39_900, 900_000), np.eye(10, 1000, 800)),
    ],
)
def test_polygons_around_the_world_in_wgs84(
    crs: str, transform: tuple[float, ...], values: Any, tmp_path: Path
) -> None:
    file = save(
        tmp_path / "labels.tif",
        values.astype(np.uint8),
        crs=crs,
        transform=rasterio.Affine(*transform),
    )
    vectors.polygons(file, tmp_path / "out.gpkg", wgs84=True)
    shapes, _, _ = read(tmp_path / "out.gpkg")
    assert shapely.is_valid(shapes).all()
    left, _, right, _ = shapely.total_bounds(shapes)
    assert (left, right) == (pytest.approx(-180, abs=1), pytest.approx(180, abs=1))
    assert shapely.coverage_is_valid(shapes)


@pytest.mark.parametrize("width", [100, 200, 360])
def test_lines_in_degrees_follow_parallels(width: int, tmp_path: Path) -> None:
    there = rasterio.Affine(1, 0, -180, 0, -1, 60)
    labels = np.zeros((120, width), np.uint8)
    file = save(tmp_path / "labels.tif", labels, crs="EPSG:4326", transform=there)
    vectors.polygons(file, tmp_path / "out.gpkg")
    _, [row], _ = read(tmp_path / "out.gpkg")
    ellipsoid = pyproj.Geod(ellps="WGS84")
    curve = ellipsoid.a / math.sqrt(1 - ellipsoid.es * math.sin(math.radians(60)) ** 2)
    parallel = curve * math.cos(math.radians(60)) * math.radians(width)
    meridian = ellipsoid.inv(0, -60, 0, 60)[2]
    assert row["perimeter_m"] == pytest.approx(2 * parallel + 2 * meridian, rel=1e-5)


def test_places_that_are_not_on_earth_have_no_wgs84(tmp_path: Path) -> None:
    file = save(tmp_path / "labels.tif", LABELS, crs="IAU_2015:30110")
    assert vectors.polygons(file, tmp_path / "moon.gpkg") > 0
    with pytest.raises(InputError, match="can't be converted to WGS 84"):
        vectors.polygons(file, tmp_path / "earth.gpkg", wgs84=True)
