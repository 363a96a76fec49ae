from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import write_colour_model
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import slide_logits, upsample

import segrt
from segrt import SegResult
from segrt.errors import ConfigError
from segrt.postprocess import Upsampled
from segrt.slide import Window, parse_window, run_window, starts, whole
from segrt.sources import Source

Image = npt.NDArray[np.uint8]
CLASSES = 4


def _crop_logits(
    image: npt.NDArray[np.float32], rows: slice, columns: slice
) -> npt.NDArray[np.float32]:
    """A network whose output depends on the crop, like one with a limited view at its edges."""
    crop = image[:, rows, columns]
    _, height, width = crop.shape
    y, x = np.arange(height)[:, None], np.arange(width)
    return np.asarray(crop * (1 + np.sin(y) * np.cos(x)), np.float32)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_logits_are_the_mean_over_all_crops(data: st.DataObject) -> None:
    sides = st.integers(1, 40)
    size, crop = data.draw(st.tuples(sides, sides)), data.draw(st.tuples(sides, sides))
    stride = data.draw(st.tuples(st.integers(1, crop[0]), st.integers(1, crop[1])))
    image = np.random.default_rng(0).standard_normal((CLASSES, *size)).astype(np.float32)

    def infer(boxes: list[tuple[slice, slice]]) -> Iterator[Upsampled]:
        assert len(boxes) <= 3
        for rows, columns in boxes:
            logits = _crop_logits(image, rows, columns)
            yield Upsampled(logits, logits.shape[1:])

    seen: list[tuple[int, int]] = []
    strips = run_window(
        size,
        Window(crop, stride),
        infer,
        batch_size=3,
        with_scores=True,
        progress=lambda *step: seen.append(step),
    )
    labels, scores = whole(size, strips, True)
    mean = slide_logits(lambda *box: _crop_logits(image, *box), size, crop, stride)
    top = np.sort(mean, axis=0)[-2:]
    assert (labels == mean.argmax(0))[top[1] - top[0] > 1e-5].all()
    assert scores is not None
    np.testing.assert_allclose(scores, np.exp(mean.max(0)) / np.exp(mean).sum(0), rtol=1e-4)
    assert (
        seen[-1][0]
        == seen[-1][1]
        == len(starts(size[0], crop[0], stride[0])) * len(starts(size[1], crop[1], stride[1]))
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_strips_do_not_depend_on_where_a_call_begins_nor_on_crops_that_do_not_count(
    data: st.DataObject,
) -> None:
    sides = st.integers(1, 40)
    size, crop = data.draw(st.tuples(sides, sides)), data.draw(st.tuples(sides, sides))
    stride = data.draw(st.tuples(st.integers(1, crop[0]), st.integers(1, crop[1])))
    image = np.random.default_rng(0).standard_normal((CLASSES, *size)).astype(np.float32)
    window, counts = Window(crop, stride), np.random.default_rng(1).random(size) < 0.01
    boxes_run = list[tuple[slice, slice]]()

    def infer(boxes: list[tuple[slice, slice]]) -> Iterator[Upsampled]:
        for rows, columns in boxes:
            boxes_run.append((rows, columns))
            logits = _crop_logits(image, rows, columns)
            yield Upsampled(logits, logits.shape[1:])

    def infer_some(boxes: list[tuple[slice, slice]]) -> Iterator[Upsampled | None]:
        for box in boxes:
            yield next(infer([box])) if counts[box].any() else None

    full = list(run_window(size, window, infer, with_scores=True))
    tops = starts(size[0], crop[0], stride[0])
    assert [strip.top for strip in full] == tops
    done = data.draw(st.integers(0, len(tops)))
    boxes_run.clear()
    rest = list(run_window(size, window, infer, with_scores=True, done=done))
    assert [strip.top for strip in rest] == tops[done:]
    assert all(rows.stop > tops[done] for rows, _ in boxes_run)
    for before, after in zip(full[done:], rest, strict=True):
        np.testing.assert_array_equal(before.labels, after.labels)
        np.testing.assert_array_equal(before.scores, after.scores)
    some, _ = whole(size, run_window(size, window, infer_some), False)
    every, _ = whole(size, iter(full), False)
    np.testing.assert_array_equal(some[counts], every[counts])


def test_crop_positions_equal_paddleseg() -> None:
    assert starts(2048, 1024, 768) == [0, 768, 1024]
    assert starts(1024, 1024, 768) == [0]
    assert starts(500, 1024, 768) == [0]
    assert starts(1025, 1024, 768) == [0, 1]


@pytest.mark.parametrize(
    ("value", "window"),
    [
        ({"crop": 8, "stride": 4}, Window((8, 8), (4, 4))),
        ({"crop": [8, 6], "stride": (4, 3)}, Window((8, 6), (4, 3))),
        ("8,4", Window((8, 8), (4, 4))),
        (" 8, 6 ,4,3", Window((8, 6), (4, 3))),
        (Window((8, 8), (4, 4)), Window((8, 8), (4, 4))),
        (True, True),
        ("model", True),
        (False, False),
        (None, False),
    ],
)
def test_windows_are_parsed(value: object, window: Window | bool) -> None:
    assert parse_window(value) == window


@pytest.mark.parametrize(
    "value",
    [
        "8",
        "a,b",
        "1,2,3",
        {"crop": 8},
        {"crop": 8, "stride": 9},
        {"crop": 8, "stride": 0},
        {"crop": "8", "stride": 8},
        5,
    ],
)
def test_invalid_windows(value: object) -> None:
    with pytest.raises(ConfigError, match="slide"):
        parse_window(value)


def _labels(pipeline: segrt.Pipeline, image: Source, **options: Any) -> npt.NDArray[np.int32]:
    (result,) = pipeline.predict(image, **options)
    assert isinstance(result, SegResult)
    return result.labels


def test_real_photos_equal_a_float64_reference(camvid: Path) -> None:
    """The reference is PaddleSeg's method: all logits at full size, in float64."""
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    for photo in sorted((camvid / "images").iterdir())[:2]:
        (whole,) = pipeline.predict(photo)
        assert isinstance(whole, SegResult)
        size = whole.image.shape[:2]
        crop, stride = (256, 320), (192, 200)

        def logits(
            rows: slice, columns: slice, image: Image = whole.image
        ) -> npt.NDArray[np.float64]:
            part = image[rows, columns]
            batch = np.empty((1, 3, *part.shape[:2]), np.float32)
            pipeline.transforms.write(part, batch[0])
            output = pipeline.session.run(batch)
            align_corners = (
                pipeline.session.meta.upsample is not None
                and pipeline.session.meta.upsample.align_corners
            )
            full: npt.NDArray[np.float64] = upsample(output, part.shape[:2], align_corners)[0]
            return full

        expected = slide_logits(logits, size, crop, stride).argmax(0)
        for batch_size in (1, 4):
            window = {"crop": crop, "stride": stride}
            labels = _labels(pipeline, whole.image, slide=window, batch_size=batch_size)
            assert (labels == expected).mean() >= 0.9999
        assert (whole.labels == expected).mean() < 0.9999  # the window does make a difference


def test_single_crop_equals_the_whole_image(colour_model: Path, tiles: Image) -> None:
    pipeline = segrt.create_pipeline(model_dir=colour_model)
    window = {"crop": 500, "stride": 500}
    np.testing.assert_array_equal(_labels(pipeline, tiles, slide=window), _labels(pipeline, tiles))


def test_slide_with_target_size_and_scores(
    colour_model: Path, tiles: Image, tile_labels: Image
) -> None:
    pipeline = segrt.create_pipeline(model_dir=colour_model)
    (result,) = pipeline.predict(tiles, (128, 192), slide={"crop": 64, "stride": 48}, scores=True)
    assert isinstance(result, SegResult)
    assert result.labels.shape == tiles.shape[:2]
    assert (result.labels == tile_labels).mean() > 0.95
    assert result.scores is not None
    assert result.scores.shape == tiles.shape[:2]


def test_sources_of_the_window(colour_model: Path, tmp_path: Path, tiles: Image) -> None:
    seen: list[tuple[int, int]] = []

    def crops(pipeline: segrt.Pipeline, **options: Any) -> int:
        seen.clear()
        _labels(pipeline, tiles, progress=lambda *step: seen.append(step), **options)
        return seen[-1][1] if seen else 0

    config = {"SubModules": {"SemanticSegmentation": {"slide": {"crop": 32, "stride": 32}}}}
    plain = segrt.create_pipeline(model_dir=colour_model)
    sliding = segrt.create_pipeline(config=config, model_dir=colour_model)
    assert crops(plain) == 0
    assert crops(plain, slide="32,32") == 6
    assert crops(sliding) == 6
    assert crops(sliding, slide=False) == 0
    assert crops(sliding, slide="64,64") == 2
    with pytest.raises(ConfigError, match=r"model_zoo\.yaml gives colours no sliding window"):
        plain.predict(tiles, slide=True)
    plain.model_name = "SegFormer-B0"
    assert crops(plain, slide=True) == 1
    ends_in_labels = segrt.create_pipeline(
        model_dir=write_colour_model(tmp_path / "l.onnx", labels=True)
    )
    with pytest.raises(ConfigError, match="ends in labels"):
        ends_in_labels.predict(tiles, slide="32,32")


def test_memory_mapped_images_are_read_crop_by_crop(colour_model: Path, tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (512, 768, 3))
    mapped[:, 300:, 1] = 200
    labels = _labels(segrt.create_pipeline(model_dir=colour_model), mapped, slide="128,96")
    assert (labels[:, 304:] == 1).all()


@pytest.mark.parametrize(
    "value",
    [
        {"crop": 10**400, "stride": 1},
        {"crop": 10**5000, "stride": 10**5000},
        {"crop": 65_536, "stride": 1},
        {"crop": 64, "stride": -(10**5000)},
        "9" * 5000 + ",1",
    ],
    ids=range(5),
)
def test_huge_windows_are_one_short_line(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_window(value)
    assert len(str(caught.value)) < 300
