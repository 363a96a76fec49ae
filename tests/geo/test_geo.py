"""Georeferenced rasters: labels, grid and pixels without data of every kind of scene."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import COLOURS, write_colour_model

import segrt
import segrt.geo
from segrt import cli
from segrt.errors import ConfigError, InputError
from segrt.metadata import KEY, ModelMeta

rasterio = pytest.importorskip("rasterio", reason="needs segrt[geo]")

from affine import Affine  # noqa: E402  (comes with rasterio)
from rasterio.enums import ColorInterp  # noqa: E402

Array = npt.NDArray[Any]
HEIGHT, WIDTH, CELL = 220, 300, 20
SLIDE = "64,48"
UTM = "EPSG:32633"
NORTH_UP = Affine(0.5, 0, 500_000.25, 0, -0.5, 4_000_000.75)
C, S = 0.5 * np.cos(np.radians(30)), 0.5 * np.sin(np.radians(30))
ROTATED = Affine(C, S, 500_000.25, S, -C, 4_000_000.75)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> segrt.Pipeline:
    """Classes 0, 1 and 2 are red, green and blue."""
    file = write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")
    return segrt.create_pipeline(model_dir=file, device="cpu")


@pytest.fixture(scope="module")
def truth() -> Array:
    """Cells of random classes: uint8 (HEIGHT, WIDTH)."""
    cells = np.random.default_rng(0).integers(0, 3, (HEIGHT // CELL, WIDTH // CELL))
    return cells.repeat(CELL, 0).repeat(CELL, 1).astype(np.uint8)


@pytest.fixture(scope="module")
def rgb(truth: Array) -> Array:
    """The scene: uint8 (3, HEIGHT, WIDTH), RGB, of two brightnesses so that resampling matters."""
    bands = np.full((3, HEIGHT, WIDTH), 20, np.uint8)
    for label in range(3):
        bands[label][truth == label] = 230
    return bands


@pytest.fixture(scope="module")
def expected(pipeline: segrt.Pipeline, rgb: Array) -> Array:
    """The labels of the sliding window on the array."""
    image = np.ascontiguousarray(rgb[::-1].transpose(1, 2, 0))
    return pipeline.segment(image, slide=SLIDE).labels


def write(
    file: Path,
    bands: Array,
    *,
    transform: Affine | None = NORTH_UP,
    crs: Any = UTM,
    mask: Array | None = None,
    colours: tuple[ColorInterp, ...] | None = None,
    **options: Any,
) -> Path:
    count, height, width = bands.shape
    options = (
        {"photometric": "rgb"} | options if count == 3 and bands.dtype == np.uint8 else options
    )
    with rasterio.open(
        file,
        "w",
        driver=options.pop("driver", "GTiff"),
        width=width,
        height=height,
        count=count,
        dtype=options.pop("dtype", bands.dtype.name),
        crs=crs,
        transform=transform,
        **options,
    ) as scene:
        scene.write(bands)
        if colours:
            scene.colorinterp = colours
        if mask is not None:
            scene.write_mask(mask)
    return file


def read(file: Path) -> Array:
    with rasterio.open(file) as labels:
        found: Array = labels.read(1)
        return found


def test_the_labels_and_the_grid(
    pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path
) -> None:
    scene = write(tmp_path / "scene.tif", rgb, transform=ROTATED)
    seen: list[tuple[int, int]] = []
    result = segrt.geo.segment(
        pipeline,
        scene,
        tmp_path / "out" / "labels.tif",
        slide=SLIDE,
        progress=lambda *step: seen.append(step),
    )
    assert seen[-1] == (30, 30)
    assert [file.name for file in sorted((tmp_path / "out").iterdir())] == [
        "labels.tif",
        "labels.tif.aux.xml",
    ]
    with rasterio.open(result.path) as labels:
        np.testing.assert_array_equal(labels.read(1), expected)
        assert labels.transform.almost_equals(ROTATED, precision=1e-9)
        assert labels.crs == UTM
        assert labels.nodata == 255
        assert labels.dtypes == ("uint8",)
        colours = labels.colormap(1)
        assert [colours[i][:3] for i in range(3)] == [
            tuple(c) for c in pipeline.palette[:3].tolist()
        ]
        tags = {key: json.loads(text) for key, text in labels.tags().items() if "SEGRT" in key}
    assert tags["SEGRT_MODEL"] == "colours"
    assert tags["SEGRT_CLASSES"] == list(COLOURS)
    assert tags["SEGRT_BANDS"] == [1, 2, 3]
    assert tags["SEGRT_SETTINGS"]["slide"] == {"crop": [64, 64], "stride": [48, 48]}
    names = result.path.with_name("labels.tif.aux.xml").read_text()
    assert names.index("red") < names.index("green") < names.index("blue")
    shares = np.bincount(expected.ravel()) / expected.size
    assert result.areas == pytest.approx(dict(zip(COLOURS, shares, strict=True)))
    assert list(result.areas.values()) == sorted(result.areas.values(), reverse=True)
    assert result.covered == 1


def test_it_is_a_cloud_optimised_geotiff(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    cogeo = pytest.importorskip("rio_cogeo", reason="needs rio-cogeo")
    scene = write(tmp_path / "scene.tif", np.tile(rgb, (1, 3, 3)))
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide="256,256", scores=True)
    assert result.scores
    for file in (result.path, result.scores):
        assert cogeo.cog_validate(file, strict=True) == (True, [], [])
    with rasterio.open(result.path) as labels:
        assert labels.overviews(1) == [2]
        small = labels.read(1, out_shape=(labels.height // 2, labels.width // 2))
    assert set(np.unique(small)) == {0, 1, 2}  # the mode of labels, and no mean
    image = np.ascontiguousarray(np.tile(rgb, (1, 3, 3))[::-1].transpose(1, 2, 0))
    whole = pipeline.segment(image, slide="256,256", scores=True)
    np.testing.assert_array_equal(read(result.scores), whole.scores)


Scene = Callable[[Path, Array, Array], tuple[Path, dict[str, Any]]]
"""Writes a scene, given a file, the bands and a mask; returns it with options of `segment`."""


def _epsg4326(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    transform = Affine(1e-5, 0, 15.1, 0, -1e-5, 52.3)
    return write(file, rgb, crs="EPSG:4326", transform=transform), {}


def _south_up(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, rgb, transform=Affine(0.5, 0, 500_000, 0, 0.5, 4_000_000)), {}


def _no_crs(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, rgb, crs=None, transform=Affine.identity()), {}


def _16_bit_planes(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    bands = rgb.astype(np.uint16) * 16 + 1000
    return write(file, bands, interleave="band", tiled=True, blockxsize=128, blockysize=128), {
        "scale": "1000,5080"
    }


def _signed(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, rgb.astype(np.int16) - 128), {"scale": (-128, 127)}


def _float32(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, rgb.astype(np.float32) / 255), {"scale": "0,1"}


def _more_bands(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    nothing = np.zeros_like(rgb[:1])
    return write(file, np.concatenate([nothing, rgb[::-1]])), {"bands": "4,3,2"}


def _colours_in_another_order(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    order = ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined
    bands = np.concatenate([rgb[::-1], np.zeros_like(rgb[:1])])
    return write(file, bands, photometric="minisblack", colours=order), {}


def _vrt(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    from rasterio.shutil import copy

    copy(write(file, rgb), file.with_suffix(".vrt"), driver="VRT")
    return file.with_suffix(".vrt"), {}


@pytest.mark.parametrize(
    "scene",
    [
        _epsg4326,
        _south_up,
        _no_crs,
        _16_bit_planes,
        _signed,
        _float32,
        _more_bands,
        _colours_in_another_order,
        _vrt,
    ],
)
def test_scenes(
    scene: Scene, pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path
) -> None:
    file, options = scene(tmp_path / "scene.tif", rgb, np.empty(0))
    result = segrt.geo.segment(pipeline, file, tmp_path / "l.tif", slide=SLIDE, **options)
    with rasterio.open(file) as before, rasterio.open(result.path) as after:
        assert after.transform.almost_equals(before.transform, precision=1e-12)
        assert after.crs == before.crs
        np.testing.assert_array_equal(after.read(1), expected)


def test_one_bit(pipeline: segrt.Pipeline, truth: Array, expected: Array, tmp_path: Path) -> None:
    bits = np.stack([truth == label for label in range(3)]).astype(np.uint8)
    scene = write(tmp_path / "bits.tif", bits, nbits=1)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE)
    np.testing.assert_array_equal(read(result.path), expected)


def _nodata(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, np.where(mask, rgb, 0).astype(np.uint8), nodata=0), {}


def _nodata_stated_by_the_user(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    return write(file, np.where(mask, rgb, 255).astype(np.uint8)), {"nodata": 255}


def _internal_mask(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(file, rgb, mask=mask.astype(np.uint8) * 255)
    assert not file.with_name("scene.tif.msk").exists()
    return file, {}


def _external_mask(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        write(file, rgb, mask=mask.astype(np.uint8) * 255)
    assert file.with_name("scene.tif.msk").exists()
    return file, {}


def _alpha(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    bands = np.concatenate([rgb, mask[None].astype(np.uint8) * 200])
    return write(file, bands, photometric="rgb", alpha="yes"), {}


def _nan(file: Path, rgb: Array, mask: Array) -> tuple[Path, dict[str, Any]]:
    bands = rgb.astype(np.float32)
    bands[1][~mask] = np.nan
    return write(file, bands), {"scale": "0,255"}


def _one_band_of_signed_integers(
    file: Path, rgb: Array, mask: Array
) -> tuple[Path, dict[str, Any]]:
    bands = rgb.astype(np.int16)
    bands[2][~mask] = -9999
    return write(file, bands, nodata=-9999), {"scale": "0,255"}


MASKED = [
    _nodata,
    _nodata_stated_by_the_user,
    _internal_mask,
    _external_mask,
    _alpha,
    _nan,
    _one_band_of_signed_integers,
]


@pytest.fixture(scope="module")
def mask() -> Array:
    """The pixels with data: all but a corner larger than a window, and islands."""
    mask = np.ones((HEIGHT, WIDTH), np.bool_)
    mask[:100, :140] = False
    mask[150:153, 200:260] = False
    mask[205, 7] = False
    return mask


@pytest.mark.parametrize("scene", MASKED)
def test_pixels_without_data_have_no_class_and_change_no_other(
    scene: Scene, pipeline: segrt.Pipeline, rgb: Array, truth: Array, mask: Array, tmp_path: Path
) -> None:
    file, options = scene(tmp_path / "scene.tif", rgb, mask)
    result = segrt.geo.segment(pipeline, file, tmp_path / "l.tif", slide=SLIDE, **options)
    labels = read(result.path)
    np.testing.assert_array_equal(labels == 255, ~mask)
    # Blue would be class 2 and black any: within cells, pixels next to the islands keep theirs.
    inner = mask & (np.minimum(np.arange(WIDTH) % CELL, -np.arange(1, WIDTH + 1) % CELL) > 3)
    y = np.arange(HEIGHT)[:, None]
    inner = inner & (np.minimum(y % CELL, -(y + 1) % CELL) > 3)
    np.testing.assert_array_equal(labels[inner], truth[inner])
    assert result.covered == pytest.approx(mask.mean())
    assert sum(result.areas.values()) == pytest.approx(1)


def test_windows_without_data_are_not_run(
    pipeline: segrt.Pipeline,
    rgb: Array,
    mask: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, _ = _nodata(tmp_path / "scene.tif", rgb, mask)
    runs = _counted(pipeline, monkeypatch)
    segrt.geo.segment(pipeline, file, tmp_path / "l.tif", slide=SLIDE)
    assert sum(runs) == 1 + 30 - 2  # the first warms up


def _counted(pipeline: segrt.Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that run from now on."""
    run, sizes = pipeline.session.run, list[int]()

    def counting(batch: Array) -> Array:
        sizes.append(len(batch))
        return run(batch)

    monkeypatch.setattr(pipeline.session, "run", counting)
    return sizes


def test_dark_pixels_of_one_band_have_data(
    pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path
) -> None:
    scene = write(tmp_path / "scene.tif", np.where(rgb == 20, 0, rgb).astype(np.uint8), nodata=0)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE)
    assert result.covered == 1


def test_a_scene_without_data_has_no_labels(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    scene = write(tmp_path / "scene.tif", np.zeros_like(rgb), nodata=0)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, scores=True)
    assert (read(result.path) == 255).all()
    assert result.scores
    assert np.isnan(read(result.scores)).all()
    assert (result.areas, result.covered) == ({}, 0)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_area_of_interest(
    pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path, crs: str
) -> None:
    pytest.importorskip("pyogrio", reason="needs segrt[geo]")
    from rasterio.warp import transform_geom

    corners = [
        rasterio.transform.xy(NORTH_UP, y, x, offset="ul")
        for x, y in ((100, 50), (200, 50), (200, 150), (100, 150))
    ]
    polygon = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    polygon = transform_geom(UTM, crs, polygon)
    name = f"urn:ogc:def:crs:{'OGC:1.3:CRS84' if crs == 'EPSG:4326' else 'EPSG::32633'}"
    area = tmp_path / "area.geojson"
    area.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "crs": {"type": "name", "properties": {"name": name}},
                "features": [{"type": "Feature", "properties": {}, "geometry": polygon}],
            }
        )
    )
    scene = write(tmp_path / "scene.tif", rgb)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, aoi=area)
    inside = np.zeros((HEIGHT, WIDTH), np.bool_)
    inside[50:150, 100:200] = True
    np.testing.assert_array_equal(read(result.path), np.where(inside, expected, 255))
    lacks = write(tmp_path / "lacks.tif", rgb, crs=None)
    with pytest.raises(InputError, match="has a coordinate system and the scene has none"):
        segrt.geo.segment(pipeline, lacks, tmp_path / "m.tif", slide=SLIDE, aoi=area)
    area.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InputError, match="holds no polygon"):
        segrt.geo.segment(pipeline, scene, tmp_path / "m.tif", slide=SLIDE, aoi=area)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north-up", "rotated"])
@pytest.mark.parametrize("kind", [_nodata, _alpha, _internal_mask])
def test_resolution(
    pipeline: segrt.Pipeline,
    rgb: Array,
    mask: Array,
    truth: Array,
    tmp_path: Path,
    transform: Affine,
    kind: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = write
    monkeypatch.setitem(
        globals(), "write", lambda *a, **o: written(*a, **{**o, "transform": transform})
    )
    file, _ = kind(tmp_path / "scene.tif", rgb, mask)
    result = segrt.geo.segment(pipeline, file, tmp_path / "l.tif", slide=SLIDE, resolution=1.0)
    with rasterio.open(result.path) as labels:
        assert labels.shape == (HEIGHT // 2, WIDTH // 2)
        t = transform
        doubled = Affine(2 * t.a, 2 * t.b, t.c, 2 * t.d, 2 * t.e, t.f)
        assert labels.transform.almost_equals(doubled, precision=1e-9)
        found = labels.read(1)
    parts = mask.reshape(HEIGHT // 2, 2, WIDTH // 2, 2)
    np.testing.assert_array_equal(found == 255, ~parts.any((1, 3)))
    inner = np.zeros(found.shape, np.bool_)
    half = CELL // 2
    for y in range(3, half - 3):
        for x in range(3, half - 3):
            inner[y::half, x::half] = True
    inner &= found != 255
    np.testing.assert_array_equal(found[inner], truth[::2, ::2][inner])


def test_percentiles_are_stored(pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif", rgb.astype(np.uint16) * 10)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, scale="percentile")
    with rasterio.open(result.path) as labels:
        scale = json.loads(labels.tags()["SEGRT_SCALE"])
    assert scale["limits"] == [[200, 2300]] * 3
    assert "percentile 2 to 98" in scale["rule"]


@pytest.mark.parametrize(
    ("bands", "options", "call", "message"),
    [
        (np.uint16, {}, {}, "has values of uint16 from 20 to 230, .* LOW,HIGH"),
        (np.float32, {}, {}, "has values of float32 from 20 to 230"),
        (np.complex64, {}, {"scale": "0,1"}, "has values of complex64"),
        (np.uint16, {}, {"scale": "9,1"}, r"scale '9,1' is not valid: use LOW,HIGH"),
        (np.uint8, {}, {"bands": "1,2"}, "the model takes 3 bands"),
        (
            np.uint8,
            {},
            {"bands": "1,2,9"},
            "has the bands 1 red uint8, 2 green uint8, 3 blue uint8",
        ),
        (np.uint8, {}, {"bands": "red"}, "bands"),
        (np.uint8, {}, {"resolution": 100.0}, "whose pixels are 0.5 x 0.5 metre"),
        (np.uint8, {}, {"resolution": -1.0}, "resolution -1.0 is not valid"),
        (np.uint8, {}, {"slide": "9"}, "slide '9' is not valid"),
    ],
)
def test_what_is_refused(
    pipeline: segrt.Pipeline,
    rgb: Array,
    tmp_path: Path,
    bands: Any,
    options: dict[str, Any],
    call: dict[str, Any],
    message: str,
) -> None:
    scene = write(tmp_path / "scene.tif", rgb.astype(bands), **options)
    with pytest.raises((ConfigError, InputError), match=message) as caught:
        segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", **{"slide": SLIDE, **call})
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def test_bands_without_a_meaning_are_listed(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    four = write(tmp_path / "four.tif", np.concatenate([rgb, rgb[:1]]), photometric="minisblack")
    grey = write(tmp_path / "grey.tif", rgb[:1])
    palette = write(tmp_path / "palette.tif", rgb[:1])
    with rasterio.open(palette, "r+") as scene:
        scene.write_colormap(1, {20: (255, 0, 0)})
    three = segrt.geo.segment(pipeline, grey, tmp_path / "l.tif", bands="1,1,1", slide=SLIDE)
    assert three.covered == 1
    for file, message in (
        (four, "1 gray uint8, 2 undefined uint8, .* as in bands 4,3,2"),
        (grey, "has the band 1 gray uint8, .* as in bands 1,1,1"),
        (tmp_path / "gone.tif", "gone.tif: No such file"),
        (Path(__file__), "not recognized"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            segrt.geo.segment(pipeline, file, tmp_path / "l.tif")
    with pytest.raises(InputError, match="gdal_translate -expand rgb"):
        segrt.geo.Raster(palette, bands=(1, 1, 1))
    with pytest.raises(ConfigError, match="is an input itself"):
        segrt.geo.segment(pipeline, grey, grey)
    scored = write(tmp_path / "l_scores.tif", rgb)
    with pytest.raises(ConfigError, match="is an input itself"):
        segrt.geo.segment(pipeline, scored, tmp_path / "l.tif", scores=True)
    with pytest.raises(ConfigError, match=r"ends in \.tif"):
        segrt.geo.segment(pipeline, grey, tmp_path / "l.png")


def test_scenes_without_a_grid_of_their_own(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    corners = ((0, 0, 15.0, 52.0), (0, 300, 15.1, 52.0), (220, 0, 15.0, 51.9))
    points = [rasterio.control.GroundControlPoint(*corner) for corner in corners]
    system = rasterio.crs.CRS.from_epsg(4326)
    located = write(tmp_path / "gcps.tif", rgb, crs=system, transform=None, gcps=points)
    with pytest.raises(InputError, match=r"ground control points, .* gdalwarp"):
        segrt.geo.segment(pipeline, located, tmp_path / "l.tif")
    pages = write(tmp_path / "pages.tif", rgb)
    write(tmp_path / "pages.tif", rgb, append_subdataset=True)
    with pytest.raises(InputError, match=r"holds 2 rasters: .*GTIFF_DIR:1:"):
        segrt.geo.segment(pipeline, pages, tmp_path / "l.tif")


def test_more_than_255_classes() -> None:
    from segrt.geo.output import label_type

    assert label_type(255) == (np.dtype(np.uint8), 255)
    assert label_type(256) == (np.dtype(np.uint16), 65535)
    assert label_type(65535) == (np.dtype(np.uint16), 65535)
    with pytest.raises(ConfigError, match="65536 classes"):
        label_type(65536)


def _write_model(file: Path, nodes: list[Any], shape: list[Any], classes: int, **meta: Any) -> Path:
    from onnx import TensorProto, helper, save_model

    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    output = ["N", classes, *shape[2:]]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    names = tuple(f"class {i}" for i in range(classes))
    content = ModelMeta(name="model", class_names=names, **meta).model_dump_json()
    helper.set_model_props(model, {KEY: content})
    save_model(model, str(file))
    return file


def test_a_grey_network_gets_the_grey_of_a_colour_scene(rgb: Array, tmp_path: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Concat", ["x", "n"], ["y"], axis=1),
    ]
    file = _write_model(tmp_path / "grey.onnx", nodes, ["N", 1, "H", "W"], 2)
    pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
    grey = np.where(rgb[:1] > 100, 200, 50).astype(np.uint8)  # normalised to above and below 0
    for name, bands in (("colours", grey.repeat(3, 0)), ("grey", grey)):
        scene = write(tmp_path / f"{name}.tif", bands)
        result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE)
        np.testing.assert_array_equal(read(result.path), grey[0] < 100)


@pytest.mark.parametrize("stated", ["descriptions", "colours", "nothing", "by the user"])
def test_a_network_of_bands_gets_their_values(rgb: Array, tmp_path: Path, stated: str) -> None:
    from onnx import helper
    from rasterio.enums import ColorInterp

    names = ("red", "green", "blue", "nir")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    normalize = {"type": "Normalize", "scale": 0.01, "mean": [1, 2, 3, 4], "std": [1, 2, 1, 2]}
    file = _write_model(
        tmp_path / "bands.onnx", nodes, ["N", 4, "H", "W"], 4, bands=names, transforms=[normalize]
    )
    pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
    values = np.random.default_rng(22).integers(0, 1000, (4, 90, 110), np.uint16)
    expected = pipeline.segment(values.transpose(1, 2, 0), slide="64,48").labels
    assert len(np.unique(expected)) == 4

    order = (0, 1, 2, 3) if stated == "nothing" else (2, 1, 0, 3)  # blue first
    scene = write(tmp_path / "scene.tif", values[list(order)], photometric="minisblack")
    with rasterio.open(scene, "r+") as opened:
        if stated == "descriptions":  # beside which colours don't count
            opened.descriptions = ("Blue", "Green", "Red", "NIR")
            colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            opened.colorinterp = (*colours, ColorInterp.undefined)
        elif stated == "colours":
            colours = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
            opened.colorinterp = (*colours, ColorInterp.undefined)
    numbers = (3, 2, 1, 4) if stated in ("by the user", "colours") else None
    if stated == "colours":
        with pytest.raises(ConfigError, match=r"which is nir\? Give the 4 numbers as bands"):
            segrt.geo.segment(pipeline, scene, tmp_path / "l.tif")
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", bands=numbers, slide="64,48")
    np.testing.assert_array_equal(read(result.path), expected)
    with pytest.raises(ConfigError, match="takes the values of its bands"):
        segrt.geo.segment(pipeline, scene, tmp_path / "m.tif", bands=(3, 2, 1, 4), scale="0,9")


def test_a_network_of_one_size_gets_windows_of_it(rgb: Array, truth: Array, tmp_path: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    file = _write_model(tmp_path / "fixed.onnx", nodes, [1, 3, 256, 64], 3)
    pipeline = segrt.create_pipeline(model_dir=file, device="cpu")
    scene = write(tmp_path / "scene.tif", rgb)  # 220 rows
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif")
    np.testing.assert_array_equal(read(result.path), truth)


def test_raster_is_a_source_of_predict(
    pipeline: segrt.Pipeline,
    rgb: Array,
    mask: Array,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = write(tmp_path / "scene.tif", rgb)
    with segrt.geo.Raster(scene) as raster:
        result = pipeline.segment(raster)
    assert result.input_path == str(scene)
    np.testing.assert_array_equal(result.image, rgb[::-1].transpose(1, 2, 0))
    np.testing.assert_array_equal(result.labels, pipeline.segment(result.image).labels)
    holes, _ = _nodata(tmp_path / "holes.tif", rgb, mask)
    results = pipeline.predict([segrt.geo.Raster(scene), segrt.geo.Raster(holes)])
    assert [result.stem for result in results] == ["scene", "holes"]
    assert "holes.tif: 21.5% of its pixels have no data" in caplog.text
    with pytest.raises(InputError, match="max_pixels"):
        pipeline.segment(segrt.geo.Raster(scene), max_pixels=100)
    with pytest.raises(InputError, match="no pixel with data"):
        pipeline.segment(segrt.geo.Raster(write(tmp_path / "e.tif", rgb * 0, nodata=0)))


def _killed(when: str, segment: Callable[[], object]) -> None:
    """Run in a child that kills itself: at the strip of a row, or once all are put together."""
    import rasterio.shutil

    from segrt.files import write_atomic
    from segrt.geo import output

    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    copy = rasterio.shutil.copy

    def kill_after_copy(*arguments: Any, **options: Any) -> None:
        copy(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_at_strip(path: Path, data: bytes) -> None:
        if when.isdigit() and f"-{int(when):09}" in path.name:
            path.with_name(f".segrt-torn-{path.name}").write_bytes(data[:10])
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomic(path, data)

    rasterio.shutil.copy = kill_after_copy
    setattr(output, "write_atomic", kill_at_strip)  # noqa: B010
    try:
        segment()
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("when", ["0", "96", "finish"])
def test_a_killed_job_is_resumed_to_the_same_file(
    pipeline: segrt.Pipeline,
    rgb: Array,
    mask: Array,
    tmp_path: Path,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, _ = _nodata(tmp_path / "scene.tif", rgb, mask)
    whole, target = tmp_path / "whole.tif", tmp_path / "killed.tif"
    segrt.geo.segment(pipeline, scene, whole, slide=SLIDE)
    _killed(when, lambda: segrt.geo.segment(pipeline, scene, target, slide=SLIDE))
    assert not target.exists()
    strips = [*(tmp_path / "killed.tif.part").glob("labels-*.tif")]
    assert len(strips) == {"0": 0, "96": 2}.get(when, 5)
    with pytest.raises(InputError, match="--resume goes on"):
        segrt.geo.segment(pipeline, scene, target, slide=SLIDE)
    with pytest.raises(ConfigError, match=r"begun with slide .*64.* but this call has slide .*32"):
        segrt.geo.segment(pipeline, scene, target, slide="64,32", resume=True)
    runs = _counted(pipeline, monkeypatch)
    segrt.geo.segment(pipeline, scene, target, slide=SLIDE, resume=True)
    # The first run warms up. If two strips are done, the second row of windows runs again, since
    # the third overlaps it.
    assert len(runs) == {"0": 1 + 28, "96": 1 + 24}.get(when, 0)
    assert target.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "killed.tif.part").exists()


def test_resuming_a_complete_job_does_nothing(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    scene, target = write(tmp_path / "scene.tif", rgb), tmp_path / "l.tif"
    first = segrt.geo.segment(pipeline, scene, target, slide=SLIDE)
    before = target.stat()
    assert segrt.geo.segment(pipeline, scene, target, slide=SLIDE, resume=True) == first
    assert target.stat() == before
    (tmp_path / "l_scores.tif").write_bytes(b"")
    with pytest.raises(ConfigError, match="begun with scores False, but this call has scores True"):
        segrt.geo.segment(pipeline, scene, target, slide=SLIDE, scores=True, resume=True)
    os.utime(scene, (time.time(), time.time() + 9))
    with pytest.raises(ConfigError, match="begun with scene_modified"):
        segrt.geo.segment(pipeline, scene, target, slide=SLIDE, resume=True)
    foreign = write(tmp_path / "foreign.tif", rgb[:1])
    with pytest.raises(InputError, match="not a label raster of segrt"):
        segrt.geo.segment(pipeline, scene, foreign, slide=SLIDE, resume=True)


def test_labels_do_not_depend_on_what_was_read_before(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    """Rows are read in groups that don't depend on where a job begins, resampled ones too."""
    from segrt.geo.rows import Rows

    scene = write(tmp_path / "scene.tif", np.tile(rgb, (1, 3, 1)))
    with segrt.geo.Raster(scene, resolution=0.7) as raster:
        box = slice(200, 264), slice(30, 94)
        first = Rows(raster)
        first[slice(0, 64), slice(0, 64)]
        first[slice(150, 214), slice(0, 64)]
        np.testing.assert_array_equal(first[box], Rows(raster)[box])


def test_command(
    pipeline: segrt.Pipeline,
    rgb: Array,
    expected: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(*arguments: object) -> int | str | None:
        model = "--model-dir", pipeline.session.file, "--slide", SLIDE, "--device", "cpu"
        monkeypatch.setattr(sys, "argv", ["segrt", "geo", *map(str, (*arguments, *model))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    scenes, out = tmp_path / "scenes", tmp_path / "scenes" / "out"
    (scenes / "more").mkdir(parents=True)
    write(scenes / "a.tif", rgb)
    write(scenes / "more" / "a.tif", rgb)
    (scenes / "b.tif").write_text("no raster")
    (scenes / "notes.txt").write_text("no scene")
    assert command(scenes, "-o", out) == 1
    for name in ("a_labels.tif", "a_2_labels.tif"):
        np.testing.assert_array_equal(read(out / name), expected)
    printed = capsys.readouterr()
    assert "a_labels.tif: green" in printed.out.replace("\n", " ") or "red" in printed.out
    assert "2 segmented, 1 failed" in printed.err
    assert "b.tif" in printed.err
    (scenes / "b.tif").unlink()
    assert command(scenes, "-o", out, "--resume") == 0
    assert command(scenes / "a.tif", "-o", tmp_path / "map.tif") == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), expected)
    assert command(scenes, "-o", tmp_path / "map.tif") == 2
    assert command(scenes, "-o", scenes) == 1
    assert command("-o", out) == 2
    assert command(scenes / "a.tif") == 2


def test_files_that_a_scene_is_read_from_are_not_replaced(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write(tmp_path / "scene.tif", rgb)
    before = scene.read_bytes()
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    rasterio.shutil.copy(scene, inner, driver="VRT")
    rasterio.shutil.copy(inner, outer, driver="VRT")
    for source in (inner, outer, f"GTIFF_DIR:1:{scene}", f"vrt://{scene}?bands=1,2,3"):
        with pytest.raises(ConfigError, match="is an input itself, or part of one"):
            segrt.geo.segment(pipeline, source, scene, slide=SLIDE)
    with pytest.raises(ConfigError, match="is an input itself"):
        segrt.geo.polygons(_label_vrt(tmp_path, rgb), tmp_path / "labels.gpkg")
    raster = write(tmp_path / "raster.gpkg", rgb, driver="GPKG", photometric=None)
    raster_bytes = raster.read_bytes()
    argv = ["segrt", "geo", f"GPKG:{raster}:raster", "-o", str(tmp_path / "o.tif"), "--polygons"]
    argv += [str(raster), "--model-dir", str(pipeline.session.file), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert (scene.read_bytes(), raster.read_bytes()) == (before, raster_bytes)


def _label_vrt(folder: Path, rgb: Array) -> Path:
    """A VRT whose source is called labels.gpkg."""
    labels = write(folder / "labels.gpkg", rgb[:1], driver="GTiff")
    rasterio.shutil.copy(labels, folder / "labels.vrt", driver="VRT")
    return folder / "labels.vrt"


def _box(*bounds: float) -> dict[str, Any]:
    left, low, right, high = bounds
    ring = [[left, low], [right, low], [right, high], [left, high], [left, low]]
    return {"type": "Polygon", "coordinates": [ring]}


AMERICAS, AFRICA = _box(-180, -60, -30, 70), _box(-20, -35, 55, 37)
# The scene of NORTH_UP is at 15 degrees east and 36 north.
HERE, FIJI = _box(14, 35, 16, 37), _box(-180, -20, -179, -15)
MULTI = {"type": "MultiPolygon", "coordinates": [HERE["coordinates"]]}
BOW_TIE = {"type": "Polygon", "coordinates": [[[13, 35], [16, 37], [16, 35], [13, 37], [13, 35]]]}


def _collection(*geometries: Any) -> dict[str, Any]:
    return {"type": "GeometryCollection", "geometries": [*geometries]}


@pytest.mark.parametrize(
    ("area", "covered"),
    [
        (_box(-180, -90, 180, 90), 1),
        (AMERICAS, 0),
        (AFRICA, 1),
        (_box(-82, -56, -34, 13), 0),
        (_box(100, -45, 180, 0), 0),
        (_collection(FIJI, HERE), 1),
        (_collection(_collection(FIJI, {"type": "MultiPolygon", "coordinates": []}), HERE), 1),
        (_collection(_collection(MULTI)), 1),
        (BOW_TIE, 1),
    ],
)
def test_areas_of_interest_may_be_anywhere(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path, area: dict[str, Any], covered: float
) -> None:
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps(area))
    scene = write(tmp_path / "scene.tif", rgb)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, aoi=file)
    assert result.covered == covered


def test_areas_of_interest_across_180_degrees(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    there = Affine(20_000, 0, 0, 0, -20_000, 2_200_000)
    scene = write(tmp_path / "scene.tif", rgb, crs="EPSG:3832", transform=there)  # centre at 150
    file = tmp_path / "area.geojson"
    both = _collection(_box(170, -10, 180, 10), _box(-180, -10, -170, 10))
    file.write_text(json.dumps(both))
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, aoi=file)
    columns = np.flatnonzero((read(result.path) != 255).any(0))
    # 20 degrees of 111.3 km, 20 km a pixel, without a gap.
    assert np.ptp(columns) + 1 == len(columns) == pytest.approx(20 * 111.32 / 20, abs=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "Polygon", "coordinates": [[[14, 35], [16, 35], [16, 37]]]}', "area.geojson: "),
        ('{"type": "Point", "coordinates": [14, 35]}', "holds no polygon"),
    ],
)
def test_unusable_areas_are_refused(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "area.geojson"
    file.write_text(text)
    scene = write(tmp_path / "scene.tif", rgb)
    with pytest.raises(InputError, match=message):
        segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, aoi=file)


def test_tables_beside_the_area_are_left_out(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    import pyogrio.raw
    import shapely

    file = tmp_path / "area.gpkg"
    wkb = shapely.to_wkb(np.array([shapely.box(14, 35, 16, 37)]))
    names = [np.array(["a"], object)]
    where = {"crs": "EPSG:4326", "geometry_type": "Polygon"}
    pyogrio.raw.write(file, wkb, names, ["n"], layer="a", **where)
    pyogrio.raw.write(file, None, names, ["n"], layer="layer_styles", geometry_type=None)
    assert len(pyogrio.list_layers(file)) == 2
    scene = write(tmp_path / "scene.tif", rgb)
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", slide=SLIDE, aoi=file)
    assert result.covered == 1


@pytest.mark.parametrize("missing", [-9999, np.nan])
def test_values_without_data_do_not_count_for_coarser_pixels(
    pipeline: segrt.Pipeline, rgb: Array, truth: Array, tmp_path: Path, missing: float
) -> None:
    """Red has no data in every fourth pixel."""
    bands = rgb.astype(np.int16 if missing == -9999 else np.float32)
    bands[0, ::2, ::2] = missing
    nodata = None if np.isnan(missing) else missing
    scene = write(tmp_path / "scene.tif", bands, nodata=nodata, photometric="minisblack")
    call: dict[str, Any] = {"slide": SLIDE, "scale": "0,255", "resolution": 1.0}
    result = segrt.geo.segment(pipeline, scene, tmp_path / "l.tif", **call)
    with segrt.geo.Raster(scene, scale="0,255", resolution=1.0) as raster:
        pixels, valid = raster.read(slice(0, raster.size[0]))
    assert valid.all()
    np.testing.assert_array_equal(pixels, rgb[::-1, 1::2, 1::2].transpose(1, 2, 0))
    labels = read(result.path)
    assert (labels == truth[::2, ::2]).mean() > 0.9
    assert result.covered == 1


def test_masks_beside_an_alpha_band_and_of_single_bands(
    rgb: Array, mask: Array, tmp_path: Path
) -> None:
    shown = np.concatenate([rgb, np.full_like(rgb[:1], 255)])
    both = write(tmp_path / "both.tif", shown, photometric="rgb", alpha="yes")
    aside = write(tmp_path / "mask.tif", mask[None].astype(np.uint8) * 255)
    single = write(tmp_path / "single.tif", rgb)
    own = np.stack([np.full_like(mask, True), mask, mask]).astype(np.uint8) * 255
    for file, bands, flags in ((both, read(aside)[None], 2), (single, own, 0)):
        sidecar = write(file.with_name(f"{file.name}.msk"), bands, photometric="minisblack")
        with rasterio.open(sidecar, "r+") as written:
            count = 4 if file == both else 3
            written.update_tags(**{f"INTERNAL_MASK_FLAGS_{n}": flags for n in range(1, count + 1)})
        with segrt.geo.Raster(file) as raster:
            np.testing.assert_array_equal(raster.read(slice(0, HEIGHT))[1], mask)


def test_coordinate_systems_unknown_to_geotiff_are_kept(
    pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path
) -> None:
    equal_earth = rasterio.crs.CRS.from_proj4("+proj=eqearth +datum=WGS84")
    scene = write(tmp_path / "scene.vrt", rgb, driver="GTiff", crs=None)
    scene.rename(tmp_path / "scene.tif")
    rasterio.shutil.copy(tmp_path / "scene.tif", scene, driver="VRT")
    text = scene.read_text()
    at = text.index("<GeoTransform>")
    scene.write_text(f"{text[:at]}<SRS>{equal_earth.to_wkt(version='WKT2_2019')}</SRS>{text[at:]}")
    out = tmp_path / "out"
    result = segrt.geo.segment(pipeline, scene, out / "l.tif", slide=SLIDE, scores=True)
    names = ["l.tif", "l.tif.aux.xml", "l_scores.tif", "l_scores.tif.aux.xml"]
    assert sorted(file.name for file in out.iterdir()) == names
    for file in (result.path, result.scores):
        with rasterio.open(file) as opened:
            assert opened.crs == equal_earth
    np.testing.assert_array_equal(read(result.path), expected)
    assert "<Category>red</Category>" in (out / "l.tif.aux.xml").read_text()


def test_files_beside_an_earlier_raster_are_removed(
    pipeline: segrt.Pipeline, rgb: Array, expected: Array, tmp_path: Path
) -> None:
    target = write(tmp_path / "l.tif", rgb[:1], mask=np.zeros((HEIGHT, WIDTH), np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(target, "r+") as old:
        old.build_overviews([2], rasterio.enums.Resampling.nearest)
    write(tmp_path / "l.tif.msk", rgb[:1])
    assert (tmp_path / "l.tif.ovr").is_file()
    scene = write(tmp_path / "scene.tif", rgb)
    segrt.geo.segment(pipeline, scene, target, slide=SLIDE)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["l.tif", "l.tif.aux.xml", "scene.tif"]
    with rasterio.open(target) as labels:
        np.testing.assert_array_equal(labels.read(1, masked=True), expected)


def test_a_resumed_scene_has_the_same_sources(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    file, scene, target = tmp_path / "scene.tif", tmp_path / "scene.vrt", tmp_path / "l.tif"
    rasterio.shutil.copy(write(file, rgb), scene, driver="VRT")
    segrt.geo.segment(pipeline, scene, target, slide=SLIDE)
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset/>\n")  # of a program that shows it
    segrt.geo.segment(pipeline, scene, target, slide=SLIDE, resume=True)
    write(file, rgb[::-1])
    os.utime(file, (time.time(), time.time() + 9))
    with pytest.raises(ConfigError, match="begun with scene_modified"):
        segrt.geo.segment(pipeline, scene, target, slide=SLIDE, resume=True)


def test_names_outside_utf8_are_refused(
    pipeline: segrt.Pipeline, rgb: Array, tmp_path: Path
) -> None:
    scene, odd = write(tmp_path / "scene.tif", rgb), tmp_path / os.fsdecode(b"\xff.tif")
    for source, target in ((scene, odd), (odd, tmp_path / "l.tif")):
        with pytest.raises(InputError, match=r"\\udcff\.tif' is not a name in UTF-8"):
            segrt.geo.segment(pipeline, source, target, slide=SLIDE)
    labels = write(tmp_path / "labels.tif", rgb[:1])
    with pytest.raises(InputError, match=r"not a name in UTF-8"):
        segrt.geo.polygons(labels, tmp_path / os.fsdecode(b"\xff.gpkg"))
