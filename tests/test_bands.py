"""Networks that take bands rather than pictures, from the array to the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from graphs import pixel_network
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import segrt
from segrt import tuning
from segrt.bench.contender import SegrtContender
from segrt.errors import ConfigError, InputError, ModelError
from segrt.web import site

BANDS = ("red", "green", "blue", "nir")
WEIGHT = ((0, 0, 0, 0), (-1, 0, 0, 1), (1, 1, -1, -1))
METADATA = {
    "name": "land",
    "bands": BANDS,
    "class_names": ["bare", "plants", "water"],
    "transforms": [{"type": "Normalize", "scale": 1e-4, "mean": [0.1, 0.1, 0.1, 0.3], "std": 0.2}],
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> segrt.Pipeline:
    file = tmp_path_factory.mktemp("land") / "land.onnx"
    pixel_network(file, WEIGHT, (0, 0, 0), shape=("N", 4, "H", "W"), metadata=METADATA)
    return segrt.create_pipeline(model_dir=file)


def scene(height: int, width: int, dtype: Any = np.uint16, seed: int = 0) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256 if dtype == np.uint8 else 10_000, (height, width, 4)).astype(dtype)


def reference(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The logits (3, H, W) in float64."""
    normalised = (image.astype(np.float64) * 1e-4 - [0.1, 0.1, 0.1, 0.3]) / 0.2
    return np.asarray(np.einsum("hwc,kc->khw", normalised, np.asarray(WEIGHT, np.float64)))


def check(labels: npt.NDArray[np.int32], image: npt.NDArray[Any]) -> None:
    logits = reference(image)
    chosen = np.take_along_axis(logits, labels[None].astype(np.int64), axis=0)[0]
    assert (chosen >= logits.max(axis=0) - 1e-5).all()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_labels_are_those_of_a_float64_reference(
    pipeline: segrt.Pipeline, data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
    height, width = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    image = scene(height, width, dtype, data.draw(st.integers(0, 99)))
    whole = pipeline.segment(image, scores=True)
    check(whole.labels, image)
    assert whole.image is image or np.shares_memory(whole.image, image)
    crop = data.draw(st.integers(3, 20))
    slid = pipeline.segment(image, slide=f"{crop},{data.draw(st.integers(1, crop))}", scores=True)
    check(slid.labels, image)  # each pixel is classified alone
    assert slid.scores is not None
    assert whole.scores is not None
    np.testing.assert_allclose(slid.scores, whole.scores, atol=1e-5)


def test_images_of_a_batch_keep_their_order(pipeline: segrt.Pipeline) -> None:
    images = [scene(6, 9, seed=seed) for seed in range(5)] + [scene(4, 4)]
    results = list(pipeline.predict(images, batch_size=4))
    for result, image in zip(results, images, strict=True):
        check(result.labels, image)


def test_what_the_model_does_not_take_fails_in_its_position(
    pipeline: segrt.Pipeline, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 6)).save(photo)
    good = scene(6, 8)
    inputs: list[Any] = [
        good,
        photo,
        Image.new("RGBA", (8, 6)),
        good[:, :, :3],
        good.astype(float),
        good,
    ]
    results = list(pipeline.predict(inputs, on_error="yield"))
    for result in (results[0], results[-1]):
        assert isinstance(result, segrt.SegResult)
        check(result.labels, good)
    messages = [str(result.error) for result in results[1:-1]]
    refusal = (
        "is a picture, and land takes 4 bands (red, green, blue, nir): run segrt geo on GeoTIFFs, "
        "or pass arrays of shape (H, W, 4)"
    )
    assert messages[:2] == [f"{photo} {refusal}", f"this {refusal}"]
    assert "(6, 8, 3) is not an image for this model: it must be (H, W, 4)" in messages[2]
    assert "float64" in messages[3]
    with pytest.raises(InputError, match="is a picture"):
        pipeline.segment(photo)
    with pytest.raises(InputError, match="is a picture"):
        pipeline.segment(photo, slide="4,4")


def test_bands_are_resized(pipeline: segrt.Pipeline) -> None:
    image = np.full((10, 30, 4), 1000, np.uint16)
    image[:, 15:, 3] = 9000
    result = pipeline.segment(image, target_size=(20, 60))
    check(result.labels, image)


def test_result_shows_and_saves(pipeline: segrt.Pipeline, tmp_path: Path) -> None:
    image = scene(40, 60, np.uint8)
    result = pipeline.segment(image)
    assert result.bands == BANDS
    np.testing.assert_array_equal(result.picture, image[:, :, 2::-1])
    shown = np.asarray(result.overlay(alpha=0, legend=False))
    np.testing.assert_array_equal(shown, image[:, :, :3])
    assert result.save_overlay(tmp_path).is_file()
    assert result.save_to_img(tmp_path)[0].is_file()
    assert "<img" in result._repr_html_()
    np.testing.assert_array_equal(result["input_img"], image)
    result["input_img"] = image // 2
    np.testing.assert_array_equal(result.image, image // 2)
    with pytest.raises(ConfigError, match=r"assign .* type uint8, red, green, blue, nir"):
        result["input_img"] = image[:, :, :3]


def test_what_takes_pictures_refuses_such_a_model(pipeline: segrt.Pipeline) -> None:
    app = pytest.importorskip("segrt.serve.app", reason="needs segrt[serve]")
    from segrt.serve.settings import Settings

    file, refusal = pipeline.session.file, r"land takes 4 bands \(red, green, blue, nir\), no pict"
    with pytest.raises(ModelError, match=f"{refusal}ures: it can't be served"):
        app.create_app(pipeline, Settings())
    with pytest.raises(ModelError, match=f"{refusal}ures: it can't run on a page"):
        site.check(file, pipeline.session.description)
    with pytest.raises(ModelError, match=f"{refusal}ures: segrt tune measures with photos"):
        tuning.tune_model(str(file), "20x30", None, "cpu", 1, 0.99, lambda done, total: None)
    with pytest.raises(ModelError, match=f"{refusal}ures: segrt-bench measures with photos"):
        SegrtContender([], None, {"model_dir": file, "device": "cpu"})


def test_tuning_takes_arrays(pipeline: segrt.Pipeline) -> None:
    session = pipeline.session
    images = [scene(20, 30), scene(20, 30, seed=1)]
    [measured] = tuning.tune(session.file, [session.plan], session.plan, images, (20, 30), rounds=1)
    assert (measured.agreement, measured.rejected) == (1, "")
    with pytest.raises(InputError, match=r"is a picture|not an image for this model"):
        tuning.tune(session.file, [], session.plan, [images[0][:, :, :3]], (20, 30))
