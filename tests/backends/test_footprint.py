from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from graphs import pixel_network
from onnx import TensorProto, helper

import segrt
from segrt.backends import cache
from segrt.backends.footprint import STRIDE, UNKNOWN, WORKSPACE, Footprint, measure
from segrt.backends.memory import BUDGET

BUNDLED = Path(segrt.__file__).with_name("models") / "PP-LiteSeg-T_camvid" / "model.onnx"


def _save(nodes: list[onnx.NodeProto], file: Path, **initializers: npt.NDArray[Any]) -> Path:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [onnx.numpy_helper.from_array(a, name) for name, a in initializers.items()]
    graph = helper.make_graph(nodes, "g", [image], [output], constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    return file


def test_tensors_are_counted_from_when_they_are_made_until_they_are_last_read(
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["a", "a"], ["b"], axis=1),  # x is not needed any more
        helper.make_node("Relu", ["b"], ["c"]),  # nor a
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    footprint = measure(_save(nodes, tmp_path / "m.onnx"))
    # At the peak, b and c (or c and y), of 6 channels each.
    expected = 2 * 6 * 4 * 64 * 96
    need = footprint.bytes_for((1, 3, 64, 96)) - WORKSPACE
    assert need == pytest.approx(1.15 * expected, rel=1e-4)
    assert footprint.bytes_for((2, 3, 64, 96)) - WORKSPACE == pytest.approx(2 * need, rel=1e-4)


def _attention(file: Path, stride: int) -> Path:
    """A model in which every token, of stride x stride pixels, attends to every other."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Reshape", ["p", "tokens"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["b", "a"], ["y"]),
    ]
    return _save(nodes, file, tokens=np.array([0, 3, -1], np.int64))


@pytest.mark.parametrize("stride", [8, 2])  # with stride 2, only the smallest size is run
def test_attention_is_quadratic(tmp_path: Path, stride: int) -> None:
    footprint = measure(_attention(tmp_path / "m.onnx", stride))
    tokens = 2048 * 1024 // stride**2
    need = footprint.bytes_for((1, 3, 2048, 1024)) - WORKSPACE
    assert need == pytest.approx(1.15 * 4 * tokens**2, rel=0.01)


def test_a_side_of_one_pixel_counts_as_the_stride() -> None:
    footprint = Footprint(((0.0, 1.0, 0.0),))
    assert footprint.bytes_for((1, 3, 1000, 1)) == footprint.bytes_for((1, 3, 1024, STRIDE))


def test_a_model_that_cannot_be_measured_has_an_upper_bound(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"no model")
    assert measure(file) is UNKNOWN


def test_the_bundled_model_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path))
    footprint = cache.footprint(BUNDLED)
    assert 20 << 20 < footprint.bytes_for((1, 3, 512, 1024)) < 300 << 20
    monkeypatch.setattr(cache, "measure", lambda file: UNKNOWN)
    assert cache.footprint(BUNDLED) == footprint
    (file,) = (tmp_path / "footprints").iterdir()
    file.write_text("{")
    assert cache.footprint(BUNDLED) is UNKNOWN


def test_batches_are_split_and_images_refused_by_the_budget(
    colour_model: Path, tiles: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = segrt.create_pipeline(model_dir=colour_model)
    expected = [r.labels for r in pipeline.predict([tiles] * 5) if isinstance(r, segrt.SegResult)]
    batches: list[int] = []
    run = type(pipeline.session).run

    def count(session: object, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        batches.append(len(batch))
        return run(session, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(type(pipeline.session), "run", count)
    one = pipeline.session._need((1, 3, *tiles.shape[:2]), exact=True)
    monkeypatch.setattr(BUDGET, "capacity", lambda: 2 * one + 1)
    labels = [
        r.labels
        for r in pipeline.predict([tiles] * 5, batch_size=5)
        if isinstance(r, segrt.SegResult)
    ]
    assert batches == [2, 2, 1]
    np.testing.assert_array_equal(labels, expected)
    monkeypatch.setattr(BUDGET, "capacity", lambda: one - 1)
    (failure,) = pipeline.predict(tiles, on_error="yield")
    assert isinstance(failure, segrt.SegFailure)
    assert isinstance(failure.error, segrt.TooLargeError)
    with pytest.raises(segrt.TooLargeError, match="--max-memory"):
        next(pipeline.predict(tiles, slide="64,64"))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 64, 96), TensorProto.FLOAT),
        ((2, 3, 64, 96), TensorProto.FLOAT),
        (("N", 3, 64, "W"), TensorProto.FLOAT),
        (("N", "H", "W", 3), TensorProto.FLOAT),
        (("N", 3, "H", "W"), TensorProto.FLOAT16),
        (("N", 3, "H", "W"), TensorProto.UINT8),
    ],
)
def test_every_form_of_input_is_measured(tmp_path: Path, shape: Any, dtype: int) -> None:
    found = measure(pixel_network(tmp_path / "m.onnx", shape=shape, dtype=dtype))
    assert found != UNKNOWN
    # The image and two channels of logits, float32, and what goes before them.
    assert 5 * 4 * 64 * 96 < found.bytes_for((1, 3, 64, 96)) - WORKSPACE < 20 * 4 * 64 * 96
