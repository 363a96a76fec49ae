from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from conftest import write_colour_model
from machines import H100, machine

import segrt
from segrt import SegFailure, SegResult
from segrt.backends import catalog
from segrt.backends.catalog import usable_cores
from segrt.backends.plan import BACKENDS, Plan
from segrt.backends.session import Session
from segrt.description import Given
from segrt.palette import distinct_palette
from segrt.sources import Source

Save = Callable[[str, npt.NDArray[np.uint8]], Path]
Image = npt.NDArray[np.uint8]


@pytest.fixture
def pipeline(colour_model: Path) -> segrt.Pipeline:
    return segrt.create_pipeline(model_dir=colour_model)


def _labels(items: Iterator[SegResult | SegFailure]) -> list[npt.NDArray[np.int32]]:
    results = list(items)
    assert all(isinstance(r, SegResult) for r in results), results
    return [r.labels for r in results if isinstance(r, SegResult)]


def test_labels_have_the_source_size(
    pipeline: segrt.Pipeline, tiles: Image, tile_labels: Image
) -> None:
    for size in (None, -1, 64, (32, 96), (128, 192), "64"):
        (labels,) = _labels(pipeline.predict(tiles, size))
        assert labels.dtype == np.int32
        assert labels.shape == tiles.shape[:2]
        assert (labels == tile_labels).mean() > 0.95, size


def test_result_reports_provider_and_precision(pipeline: segrt.Pipeline, tiles: Image) -> None:
    (result,) = pipeline.predict(tiles)
    assert isinstance(result, SegResult)
    assert result.provider == "CPUExecutionProvider"
    assert result.precision == "fp32"
    assert result.class_names == ("red", "green", "blue")
    assert set(result.areas()) == {"red", "green", "blue"}
    assert result.timings.total == pytest.approx(
        result.timings.preprocess + result.timings.run + result.timings.postprocess
    )
    assert min(result.timings.preprocess, result.timings.run, result.timings.postprocess) > 0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_batches_of_mixed_sizes_equal_single_images_in_order(
    pipeline: segrt.Pipeline, batch_size: int
) -> None:
    rng = np.random.default_rng(1)
    images = [
        rng.integers(0, 256, (h, w, 3), np.uint8)
        for h, w in [(64, 96), (33, 50), (64, 96), (40, 40), (33, 50)]
    ]
    one = _labels(pipeline.predict(images, batch_size=1))
    many = _labels(pipeline.predict(images, batch_size=batch_size))
    assert [m.shape for m in many] == [i.shape[:2] for i in images]
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_predict_runs_one_batch_and_reads_two_images_ahead(
    pipeline: segrt.Pipeline, tiles: Image
) -> None:
    taken = []

    def source() -> Iterator[Image]:
        for index in range(9):
            taken.append(index)
            yield tiles

    results = pipeline.predict(source())
    assert taken == []
    for done in (1, 2, 3):
        next(results)
        time.sleep(0.05)
        assert taken == list(range(done + 3))


def test_result_does_not_wait_for_the_next_image(pipeline: segrt.Pipeline, tiles: Image) -> None:
    requested = threading.Event()

    def source() -> Iterator[Image]:
        yield tiles
        assert requested.wait(30), "the first result waited for the second image"
        yield tiles

    results = pipeline.predict(source())
    next(results)
    requested.set()
    assert len(list(results)) == 1


def test_abandoned_call_leaves_no_threads(pipeline: segrt.Pipeline, tiles: Image) -> None:
    before = set(threading.enumerate())
    results = pipeline.predict([tiles] * 20)
    next(results)
    assert set(threading.enumerate()) > before
    results.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def _distinct(count: int) -> list[Image]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (32 + i % 3 * 8, 40, 3), np.uint8) for i in range(count)]


def test_eight_threads_share_one_pipeline(pipeline: segrt.Pipeline) -> None:
    images = _distinct(200)
    expected = _labels(pipeline.predict(images))
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda part: _labels(pipeline.predict(images[part::8])), range(8))
        for part, labels in enumerate(parts):
            for got, want in zip(labels, expected[part::8], strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"slide": "16,12"}])
def test_workers_keep_order_and_errors(
    colour_model: Path, workers: int, options: dict[str, Any]
) -> None:
    images: list[Source] = [*_distinct(30)]
    images[7:7] = [b"broken", np.zeros((4, 4, 2), np.uint8)]
    one = list(
        segrt.create_pipeline(model_dir=colour_model).predict(images, on_error="yield", **options)
    )
    many = segrt.create_pipeline(model_dir=colour_model, device="cpu", workers=workers)
    assert len(many.sessions) == workers
    assert {s.plan.threads for s in many.sessions} == {max(1, usable_cores() // workers)}
    results = list(many.predict(images, on_error="yield", **options))
    assert [type(r) for r in results] == [type(r) for r in one]
    assert [i for i, r in enumerate(results) if isinstance(r, SegFailure)] == [7, 8]
    for a, b in zip(one, results, strict=True):
        if isinstance(a, SegResult) and isinstance(b, SegResult):
            assert a.stem == b.stem
            np.testing.assert_array_equal(a.labels, b.labels)


def test_workers_run_at_the_same_time(
    colour_model: Path, tiles: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, together = (
        segrt.create_pipeline(model_dir=colour_model, workers=3),
        threading.Barrier(3, timeout=30),
    )
    run = Session.run

    def meet(session: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        together.wait()
        return run(session, batch)

    monkeypatch.setattr(Session, "run", meet)
    assert len(_labels(pipeline.predict([tiles] * 6))) == 6


def test_batches_start_in_input_order(
    pipeline: segrt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, run, ran = pipeline.transforms.write, Session.run, list[int]()

    def slow_for_the_even(image: Image, out: npt.NDArray[np.float32]) -> None:
        time.sleep(0.03 * (image.shape[0] % 8 == 0))
        write(image, out)

    def spy(session: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        ran.append(batch.shape[2])
        return run(session, batch)

    monkeypatch.setattr(
        type(pipeline.transforms), "write", lambda _, image, out: slow_for_the_even(image, out)
    )
    monkeypatch.setattr(Session, "run", spy)
    heights = [16 + 4 * i for i in range(8)]
    images: list[Source] = [np.zeros((height, 20, 3), np.uint8) for height in heights]
    images[3:3] = [b"broken"]
    assert len(list(pipeline.predict(images, on_error="yield"))) == 9
    assert ran == heights


def test_exception_in_one_batch_is_raised_without_deadlock(
    pipeline: segrt.Pipeline, tiles: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipeline.transforms), "layout", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(pipeline.predict([tiles] * 5))


def test_worker_failure_affects_only_its_batch(
    colour_model: Path, tiles: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, run = segrt.create_pipeline(model_dir=colour_model, workers=2), Session.run

    def fail(session: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if batch.shape[2] == 8:
            raise segrt.ModelError("out of memory")
        return run(session, batch)

    monkeypatch.setattr(Session, "run", fail)
    images = [tiles, tiles[:8], tiles, tiles[:8], tiles]
    kinds = [type(r) for r in pipeline.predict(images, on_error="yield")]
    assert kinds == [SegResult, SegFailure, SegResult, SegFailure, SegResult]
    assert pipeline.sessions[0] is pipeline.session


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, 65])
def test_invalid_workers(colour_model: Path, workers: Any) -> None:
    with pytest.raises(
        segrt.ConfigError, match=r"workers .* is not valid: it must be a whole number from 1 to 64"
    ):
        segrt.create_pipeline(model_dir=colour_model, workers=workers)


def test_calling_a_pipeline_is_predicting(pipeline: segrt.Pipeline, tiles: Image) -> None:
    expected = _labels(pipeline.predict(tiles, 32))
    assert np.array_equal(_labels(pipeline(tiles, 32)), expected)
    assert np.array_equal(_labels(pipeline(input=tiles, target_size=32)), expected)


def test_segment_takes_exactly_one_image(
    pipeline: segrt.Pipeline, tiles: Image, tmp_path: Path
) -> None:
    assert np.array_equal(
        pipeline.segment(tiles, 32, scores=True).labels, _labels(pipeline(tiles, 32))[0]
    )
    for inputs, message in (
        ([tiles, tiles], r"^this list gives several images: segment takes exactly one, predict"),
        ([], r"^this list gives no image: "),
    ):
        with pytest.raises(segrt.InputError, match=message):
            pipeline.segment(inputs)
    with pytest.raises(segrt.InputError, match=r"road\.png"):
        pipeline.segment(tmp_path / "road.png")
    with pytest.raises(TypeError, match="on_error"):
        pipeline.segment(tiles, on_error="yield")


def test_the_order_of_colours_is_that_of_the_array(pipeline: segrt.Pipeline, tiles: Image) -> None:
    expected = _labels(pipeline.predict(tiles))[0]
    rgb = tiles[:, :, ::-1]
    alpha = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    for image in (rgb, [rgb], alpha, rgb.astype(np.float32) / 255):
        assert np.array_equal(_labels(pipeline.predict(image, color="rgb"))[0], expected)
    assert not np.array_equal(_labels(pipeline.predict(rgb))[0], expected)
    result = pipeline.segment(rgb, color="rgb")
    assert np.array_equal(result.image, tiles)
    for same in (cv2.imencode(".png", tiles)[1].tobytes(), tiles[:, :, 0]):
        assert np.array_equal(
            _labels(pipeline.predict(same, color="rgb"))[0], _labels(pipeline.predict(same))[0]
        )
    with pytest.raises(segrt.ConfigError, match=r"^color 'RGB' is not valid: use bgr or rgb$"):
        pipeline.predict(tiles, color="RGB")  # type: ignore[call-overload]


def test_a_pickled_pipeline_is_created_again(
    colour_model: Path, tiles: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colour_model.parent)
    pipeline = segrt.create_pipeline(
        model_dir=colour_model.name, device="cpu", palette=[[9, 9, 9]] * 3
    )
    pipeline.target_size = 32
    stored = pickle.dumps(pipeline)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(stored)
    assert (again.target_size, again.palette.tolist()) == (32, [[9, 9, 9]] * 3)
    assert np.array_equal(_labels(again.predict(tiles))[0], _labels(pipeline.predict(tiles))[0])
    pipeline.close()
    with pytest.raises(segrt.ConfigError, match="closed"):
        pickle.dumps(pipeline)
    with pytest.raises(segrt.ConfigError, match="can't be pickled: create it with create_pipeline"):
        pickle.dumps(segrt.Pipeline(again.session))


def test_a_copy_shares_the_model(pipeline: segrt.Pipeline, tiles: Image) -> None:
    other = copy.copy(pipeline)
    assert other.session is pipeline.session
    other.target_size = 32
    assert pipeline.target_size is None
    pipeline.close()
    assert _labels(other.predict(tiles))


if TYPE_CHECKING:

    def _the_readme_needs_no_casts(pipeline: segrt.Pipeline, paths: list[Path]) -> None:
        for result in pipeline.predict(paths):
            result.save_to_img("output")
        for item in pipeline.predict("photos", on_error="yield"):
            item.save_to_img("output")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("topk", ""),
        ("batchsize", r" \(did you mean 'batch_size'\?\)"),
        ("targetSize", r" \(did you mean 'target_size'\?\)"),
    ],
)
def test_unknown_arguments_are_one_clear_type_error(
    pipeline: segrt.Pipeline, tiles: Image, word: str, hint: str
) -> None:
    calls: tuple[Any, ...] = pipeline.predict, pipeline
    for call in calls:
        with pytest.raises(
            TypeError,
            match=rf"^predict\(\) has no argument '{word}'{hint}: use input, target_size, device, "
            "batch_size, on_error, scores, slide, progress, color, exif, pdf_scale, max_pixels$",
        ):
            call(tiles, **{word: 1})


def test_a_closed_pipeline_is_one_clear_error(colour_model: Path, tiles: Image) -> None:
    with segrt.create_pipeline(model_dir=colour_model, device="cpu") as pipeline:
        session = weakref.ref(pipeline.session)
        assert _labels(pipeline.predict([tiles] * 2, device="cpu"))
        running = pipeline.predict([tiles] * 9, on_error="yield")
        assert isinstance(next(running), SegResult)
    for use in (
        lambda: pipeline.predict(tiles),
        lambda: pipeline(tiles, device="cpu"),
        lambda: pipeline.predict(tiles, device="gpu:0"),
        lambda: pipeline.session,
        pipeline.describe,
        pipeline.request,
    ):
        with pytest.raises(
            segrt.ConfigError, match=r"^this pipeline is closed: create another one$"
        ):
            use()
    assert isinstance(list(running)[-1], SegFailure)
    gc.collect()  # the traceback of the error
    assert session() is None
    pipeline.close()
    assert pipeline.class_names[0] == "red"


def test_predict_on_another_device_starts_it_once_or_raises(
    colour_model: Path, tiles: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Plan] = []
    build = Session.__init__

    def count(session: Session, file: Path, plan: Plan, given: Given) -> None:
        built.append(plan)
        build(session, file, replace(plan, backend=BACKENDS["cpu"], options=()), given)
        monkeypatch.setattr(session, "_session", lambda shape: (session._any, plan.provider))

    two_gpus = machine("CUDA", gpus=(H100, H100))
    monkeypatch.setattr(catalog, "read", lambda **_: two_gpus)
    monkeypatch.setattr(Session, "__init__", count)
    pipeline = segrt.create_pipeline(model_dir=colour_model, device="cpu")
    for device, started in (
        (None, 1),
        ("cpu", 1),
        ("gpu:1", 2),
        ("gpu:1", 2),
        ("gpu:0,1", 4),
        ("gpu:0,1", 4),
    ):
        providers = [
            r.provider
            for r in pipeline.predict([tiles] * 3, device=device)
            if isinstance(r, SegResult)
        ]
        assert len(built) == started
        on_gpu = device is not None and device.startswith("gpu")
        assert providers == ["CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"] * 3
    assert [(plan.device, plan.device_id) for plan in built] == [
        ("cpu", 0),
        ("gpu", 1),
        ("gpu", 0),
        ("gpu", 1),
    ]
    for device in ("npu:0", "gpu:7", "gpu:0,7", "warp"):
        with pytest.raises(segrt.DeviceError, match=device.split(",")[0]):
            pipeline.predict(tiles, device=device)
    with pytest.raises(segrt.DeviceError, match="runs on cpu alone"):
        segrt.Pipeline(pipeline.session).predict(tiles, device="gpu:0")


def test_names_follow_the_input_order_at_any_batch_size(
    pipeline: segrt.Pipeline, tiles: Image
) -> None:
    images = [tiles, tiles[:40], tiles]
    for batch_size in (1, 3):
        results = pipeline.predict(images, batch_size=batch_size)
        assert [r.stem for r in results if isinstance(r, SegResult)] == [
            "image",
            "image_2",
            "image_3",
        ]


def test_failures_are_yielded_in_input_order(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Image, tmp_path: Path
) -> None:
    good = save_image("good.png", tiles)
    inputs = [good, tmp_path / "gone.png", good]
    kinds = [type(r) for r in pipeline.predict(inputs, on_error="yield", batch_size=3)]
    assert kinds == [SegResult, SegFailure, SegResult]
    assert len(list(pipeline.predict(inputs, on_error="skip"))) == 2
    results = pipeline.predict(inputs)
    assert next(results).error is None
    with pytest.raises(segrt.InputError, match=r"gone\.png does not exist"):
        next(results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_size": 0}, "target_size 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"on_error": "x"}, "on_error 'x'"),
    ],
)
def test_invalid_arguments_raise_at_the_call(
    pipeline: segrt.Pipeline, tiles: Image, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(segrt.ConfigError, match=message):
        pipeline.predict(tiles, **options)


def test_same_names_in_one_call_do_not_overwrite(
    pipeline: segrt.Pipeline,
    save_image: Save,
    tiles: Image,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = [save_image("x/a.png", tiles), save_image("y/a.png", tiles)]
    for result in pipeline.predict(paths):
        assert isinstance(result, SegResult)
        result.save_all(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a_2_res.json",
        "a_2_res.png",
        "a_res.json",
        "a_res.png",
    ]
    assert "is saved as a_2" in caplog.text


def test_models_that_output_labels(tmp_path: Path, tiles: Image, tile_labels: Image) -> None:
    for stride, meta in ((1, False), (4, True)):
        file = write_colour_model(
            tmp_path / f"labels{stride}.onnx", stride=stride, labels=True, meta=meta
        )
        (labels,) = _labels(segrt.create_pipeline(model_dir=file).predict(tiles))
        np.testing.assert_array_equal(labels, tile_labels)


def test_onnx_file_without_metadata_has_class_numbers(tmp_path: Path, tiles: Image) -> None:
    file = write_colour_model(tmp_path / "plain.onnx", meta=False)
    (result,) = segrt.create_pipeline(model_dir=file).predict(tiles)
    assert isinstance(result, SegResult)
    assert result.class_names == ("class_0", "class_1", "class_2")
    assert result.model_name == "plain"


def test_model_dir_with_one_onnx_file(colour_model: Path, tmp_path: Path) -> None:
    assert segrt.create_pipeline(model_dir=tmp_path).model_name == "colours"
    write_colour_model(tmp_path / "second.onnx")
    with pytest.raises(segrt.ModelError, match=r"holds 2 \.onnx files: name the one"):
        segrt.create_pipeline(model_dir=tmp_path)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(segrt.ExportError, match="holds no Paddle inference model"):
        segrt.create_pipeline(model_dir=tmp_path)


def test_paddle_folder_without_the_export_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inference.json").write_text("{}")
    (tmp_path / "inference.pdiparams").write_bytes(b"")
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        segrt.ModelError, match=r"pip install 'segrt\[export\]'; or convert it elsewhere"
    ):
        segrt.create_pipeline(model_dir=tmp_path)


def test_damaged_and_missing_models(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(segrt.ModelError, match="can't be loaded"):
        segrt.create_pipeline(model_dir=tmp_path / "bad.onnx")
    with pytest.raises(segrt.ModelError, match="does not exist"):
        segrt.create_pipeline(model_dir=tmp_path / "gone.onnx")
    with pytest.raises(segrt.ModelError, match="unknown model"):
        segrt.create_pipeline(model_name="PP-LiteSeg-X")


def test_missing_device_raises() -> None:
    with pytest.raises(segrt.DeviceError, match="npu:0"):
        segrt.create_pipeline("semantic_segmentation", device="npu:0")


def test_bundled_model_is_the_default() -> None:
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    assert pipeline.model_name == "PP-LiteSeg-T_camvid"
    sample = Path(segrt.__file__).with_name("models") / "sample.png"
    (result,) = pipeline.predict(sample)
    assert isinstance(result, SegResult)
    areas = result.areas()
    assert {"Sky", "Road", "Building"} <= set(areas)
    assert areas["Road"] > 0.1


def test_config_and_arguments() -> None:
    config = {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": {"target_size": "None"}},
    }
    assert segrt.create_pipeline(config=config).target_size is None
    module = {"target_size": [64, 32], "batch_size": 3}
    config["SubModules"]["SemanticSegmentation"] = module  # type: ignore[index]
    pipeline = segrt.create_pipeline("semantic_segmentation", config=config)
    assert (pipeline.target_size, pipeline.batch_size) == ((64, 32), 3)
    with pytest.raises(segrt.ConfigError, match="disagree"):
        segrt.create_pipeline("other", config=config)
    with pytest.raises(segrt.ConfigError, match="disagree"):
        segrt.create_pipeline("semantic_segmentation", use_hpip=True, mode="normal")


def test_mode_device_and_hpi_config_from_arguments_and_yaml(colour_model: Path) -> None:
    module = {"SubModules": {"SemanticSegmentation": {"model_dir": str(colour_model)}}}
    fast = {
        "pipeline_name": "semantic_segmentation",
        "hpi_config": {"backend": "cpu", "threads": 1},
        **module,
    }
    for switch in ({"mode": "high-performance"}, {"use_hpip": True}):
        assert segrt.create_pipeline(config=fast | switch).session.plan.threads == 1
    segrt.create_pipeline(config=fast)  # normal mode ignores the setting
    with pytest.raises(segrt.ConfigError, match="backend 'warp'"):
        segrt.create_pipeline(config=fast | {"use_hpip": True}, hpi_config={"backend": "warp"})
    with pytest.raises(segrt.ConfigError, match="says nothing in normal mode"):
        segrt.create_pipeline(model_dir=colour_model, hpi_config={"backend": "cpu"})
    with pytest.raises(segrt.DeviceError, match="npu:0"):
        segrt.create_pipeline(config=fast | {"device": "npu:0"})
    assert (
        segrt.create_pipeline(config=fast | {"device": "npu:0"}, device="cpu").session.plan.device
        == "cpu"
    )
    with pytest.raises(segrt.ConfigError, match="unknown mode 'quick'"):
        segrt.create_pipeline(config=fast | {"mode": "quick"})


def test_bf16_keeps_the_labels_of_real_photos(camvid: Path) -> None:
    try:
        hpi = {"backend": "openvino", "precision": "bf16"}
        fast = segrt.create_pipeline(
            "semantic_segmentation", mode="high-performance", hpi_config=hpi
        )
    except segrt.DeviceError as error:
        pytest.skip(str(error))
    plain = segrt.create_pipeline("semantic_segmentation", device="cpu")
    photos = sorted((camvid / "images").iterdir())[::8]
    same = [
        np.mean(a == b)
        for a, b in zip(_labels(fast.predict(photos)), _labels(plain.predict(photos)), strict=True)
    ]
    assert np.mean(same) >= 0.99


def test_miou_on_real_photos_equals_the_model_card(camvid: Path) -> None:
    from PIL import Image as Pillow

    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    confusion = np.zeros((11, 11), np.int64)
    for result in pipeline.predict(camvid / "images", -1):
        assert isinstance(result, SegResult)
        assert result.input_path
        truth = np.asarray(Pillow.open(camvid / "labels" / Path(result.input_path).name)).astype(
            np.int64
        )
        valid = truth < 11
        confusion += np.bincount(truth[valid] * 11 + result.labels[valid], minlength=121).reshape(
            11, 11
        )
    hits = np.diag(confusion)
    miou = 100 * (hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean()
    assert miou == pytest.approx(55.68, abs=0.1)
    assert 100 * hits.sum() / confusion.sum() == pytest.approx(85.82, abs=0.1)


def test_scores(pipeline: segrt.Pipeline, tiles: Image, tmp_path: Path) -> None:
    plain, scored = next(pipeline.predict(tiles)), next(pipeline.predict(tiles, scores=True))
    assert isinstance(plain, SegResult)
    assert isinstance(scored, SegResult)
    assert plain.scores is None
    assert scored.scores is not None
    assert scored.scores.shape == tiles.shape[:2]
    assert scored.scores.dtype == np.float32
    assert 1 / 3 <= scored.scores.min() <= scored.scores.max() <= 1
    np.testing.assert_array_equal(scored.labels, plain.labels)
    ends_in_labels = write_colour_model(tmp_path / "labels.onnx", labels=True)
    with pytest.raises(segrt.ConfigError, match="ends in labels: it has no scores"):
        segrt.create_pipeline(model_dir=ends_in_labels).predict(tiles, scores=True)


def test_palettes(colour_model: Path, tiles: Image) -> None:
    def first(**options: Any) -> list[int]:
        (result,) = segrt.create_pipeline(model_dir=colour_model, **options).predict(tiles)
        assert isinstance(result, SegResult)
        return list(result.img["res"].getpixel((0, 0)))  # type: ignore[arg-type]

    assert first() == [128, 0, 0]
    with pytest.raises(segrt.ConfigError, match="'cityscapes' goes by class name, and has none"):
        first(palette="cityscapes")
    assert first(palette="cityscapes", class_names=["Sky", "b", "c"]) == [70, 130, 180]
    pipeline = segrt.create_pipeline(model_dir=colour_model)
    assert pipeline.palette[0].tolist() == distinct_palette(1)[0].tolist()
    own = [[9, 8, 7]] * 3
    assert first(palette=own) == [9, 8, 7]
    config = {"SubModules": {"SemanticSegmentation": {"palette": own}}}
    assert first(config=config) == [9, 8, 7]
    assert first(config=config, palette="voc") == [128, 0, 0]
    with pytest.raises(
        segrt.ConfigError, match="the palette has 2 colours, but colours has 3 classes"
    ):
        first(palette=own[:2])


@pytest.mark.parametrize("error", [MemoryError("no 40 GiB"), MemoryError(), cv2.error("no memory")])
def test_running_out_of_memory_fails_one_input(
    pipeline: segrt.Pipeline, tiles: Image, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    batch = type(pipeline.transforms).batch

    def limited(self: Any, images: Any) -> Any:
        if images[0].shape[:2] == (32, 32):
            raise error
        return batch(self, images)

    monkeypatch.setattr(type(pipeline.transforms), "batch", limited)
    images = [tiles, np.ascontiguousarray(tiles[:32, :32]), tiles]
    first, failed, last = pipeline.predict(images, on_error="yield")
    assert isinstance(failed, SegFailure)
    assert isinstance(failed.error, segrt.TooLargeError)
    assert "32 x 32" in str(failed.error)
    assert isinstance(first, SegResult)
    assert isinstance(last, SegResult)


@pytest.mark.parametrize("batch_size", [0, 4097, 10**9, 10**400, 10**5000], ids=range(5))
def test_huge_batches_are_refused(pipeline: segrt.Pipeline, batch_size: int) -> None:
    with pytest.raises(segrt.ConfigError, match="from 1 to 4096"):
        pipeline.request(batch_size=batch_size)


def test_without_arguments_the_bundled_model_runs() -> None:
    assert segrt.create_pipeline().model_name == "PP-LiteSeg-T_camvid"


@pytest.mark.parametrize("device", [0, "", False])
def test_devices_that_are_no_names_are_refused(colour_model: Path, device: Any) -> None:
    with pytest.raises(segrt.DeviceError, match="unknown device"):
        segrt.create_pipeline(model_dir=colour_model, device=device)
