"""Georeferenced TIFFs among plain inputs. What TIFFs hold is tested in test_field_files.py."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segrt.errors import InputError, TooLargeError
from segrt.formats import GEOTAGS
from segrt.frame import Frame, SegFailure
from segrt.palette import voc_palette
from segrt.reading import Reading
from segrt.result import SegResult, Timings
from segrt.sources import frames

# Pixels of half a metre in UTM zone 33, as GDAL writes it.
UTM: dict[int, tuple[float, ...] | str] = {
    33550: (0.5, 0.5, 0.0),
    33922: (0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0),
    34735: (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633),
    34737: "WGS 84 / UTM zone 33N|WGS 84|",
}
# Rotated by 90 degrees.
TURNED = {
    34264: (0.0, 0.5, 0.0, 5e5, 0.5, 0.0, 0.0, 5.4e6, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 1.0),
    34735: UTM[34735],
}


def extra(tags: dict[int, Any]) -> list[tuple[Any, ...]]:
    """Tags as tifffile takes them."""
    return [
        (number, GEOTAGS.get(number, 2), len(value), value, True) for number, value in tags.items()
    ]


def tiff(tags: dict[int, Any], shape: tuple[int, ...] = (6, 8, 3), **options: Any) -> bytes:
    """A TIFF with further tags."""
    file = io.BytesIO()
    options.setdefault("photometric", "rgb")
    pixels = np.zeros(shape, options.pop("dtype", np.uint8))
    tifffile.imwrite(file, pixels, extratags=extra(tags), **options)
    return file.getvalue()


def segmented(frame: Any) -> SegResult:
    """A result with the labels 0, 1, 0, 1, ..."""
    assert isinstance(frame, Frame), frame.error
    labels = np.arange(frame.image[..., 0].size, dtype=np.int32).reshape(frame.image.shape[:2]) % 2
    return SegResult(
        labels=labels,
        image=frame.image,
        input_path=frame.input_path,
        page_index=frame.page_index,
        class_names=("a", "b"),
        palette=voc_palette(),
        model_name="m",
        provider="CPUExecutionProvider",
        precision="fp32",
        timings=Timings(1.0, 2.0, 3.0),
        stem="ortho",
        geotags=frame.geotags,
    )


@pytest.mark.parametrize("tags", [UTM, TURNED], ids=["north up", "rotated"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_label_pictures_are_where_the_source_is(
    tmp_path: Path, tags: dict[int, Any], compression: str | None
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs segrt[geo]")
    source = tmp_path / "ortho.tif"
    source.write_bytes(tiff(tags | {42113: "0"}, compression=compression))
    result = segmented(next(frames(source)))

    result.save_to_img(tmp_path / "out")
    result.save_to_img(tmp_path / "x.TIFF")

    for saved in (tmp_path / "out" / "ortho_res.tif", tmp_path / "x.TIFF"):
        with rasterio.open(source) as before, rasterio.open(saved) as after:
            assert after.transform == before.transform
            assert after.crs == before.crs
            assert after.crs.to_epsg() == 32633
            assert after.nodata is None  # it says which values of the source are no data
            picture = np.moveaxis(after.read(), 0, 2)
        assert np.array_equal(picture, np.asarray(result.img["res"]))


def test_other_formats_are_as_before(tmp_path: Path) -> None:
    here, there = (segmented(next(frames(tiff(tags)))) for tags in (UTM, {}))
    for name in ("x.png", "x.webp"):
        here.save_to_img(tmp_path / "here" / name)
        there.save_to_img(tmp_path / "there" / name)
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_each_page_has_its_own_place() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for tags in (UTM, {}, TURNED):
            pixels = np.zeros((6, 8, 3), np.uint8)
            writer.write(pixels, photometric="rgb", extratags=extra(tags), metadata=None)

    found = [frame.geotags for frame in frames(file.getvalue()) if isinstance(frame, Frame)]

    assert found == [UTM, None, TURNED]


def test_overviews_are_no_images() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for side, kind in ((8, 0), (4, 1)):  # the image and an overview
            writer.write(
                np.zeros((side, side, 3), np.uint8),
                photometric="rgb",
                subfiletype=kind,
                extratags=extra(UTM),
                metadata=None,
            )
        writer.write(np.ones((8, 8), np.bool_), photometric="mask", subfiletype=4, metadata=None)

    [frame] = frames(file.getvalue())

    assert isinstance(frame, Frame)
    assert frame.image.shape == (8, 8, 3)
    assert frame.geotags == UTM


@pytest.mark.parametrize(
    "tags",
    [
        UTM | {33550: (0.5, float("nan"), 0.0)},
        UTM | {33922: (0.0,) * 6000},
    ],
    ids=["not finite", "too many values"],
)
def test_a_damaged_place_is_none(tags: dict[int, Any]) -> None:
    [frame] = frames(tiff(tags))

    assert isinstance(frame, Frame)
    assert frame.geotags is None


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ([(33550, 3, 3, (1, 1, 0), True)], (6, 8, 3)),
        ([*extra(UTM), (274, 3, 1, 6, True)], (8, 6, 3)),
    ],
    ids=["of another type", "turned upright"],
)
def test_a_place_that_does_not_fit_is_none(tags: list[Any], shape: tuple[int, ...]) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), photometric="rgb", extratags=tags)

    [frame] = frames(file.getvalue())

    assert isinstance(frame, Frame)
    assert frame.image.shape == shape
    assert frame.geotags is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tiff(UTM, (4, 4), photometric="minisblack", dtype=np.int16),
            r"\(1 band of 16 bits, signed, .*\); or use segrt geo",
        ),
        (
            tiff(UTM, (5, 4, 4), photometric="minisblack", planarconfig="separate"),
            r"which of its 5 bands are red, green and blue \(5 bands of 8 bits.* segrt geo",
        ),
    ],
)
def test_errors_point_to_segrt_geo(content: bytes, message: str) -> None:
    [failure] = frames(content)

    assert isinstance(failure, SegFailure)
    with pytest.raises(InputError, match=message):
        raise failure.error


def test_so_does_that_of_a_large_one() -> None:
    [failure] = frames(tiff(UTM), Reading(max_pixels=10))
    [other] = frames(tiff({}), Reading(max_pixels=10))

    assert isinstance(failure, SegFailure)
    assert isinstance(failure.error, TooLargeError)
    assert "segrt geo" in str(failure.error)
    assert isinstance(other, SegFailure)
    assert "segrt geo" not in str(other.error)
