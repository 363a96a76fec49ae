from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from conftest import SHARED, write_colour_model
from graphs import Net, images, run
from onnx import TensorProto, helper, numpy_helper, shape_inference
from PIL import Image

import segrt
from segrt import half_graph
from segrt.metadata import KEY

BUNDLED = Path(segrt.__file__).with_name("models") / "PP-LiteSeg-T_camvid" / "model.onnx"


def _half(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(model, folder / "m.onnx")
    return onnx.load_from_string(half_graph.read(folder / "m.onnx"))


def _weights(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}


def test_weights_and_arithmetic_are_half_and_the_interface_is_not(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.add("Relu", net.conv("x", 3, 5, kernel_shape=[3, 3])))
    half = _half(model, tmp_path)
    assert _weights(half) == {TensorProto.FLOAT16}
    for mine, theirs in ((half.graph.input, model.graph.input), (half.graph.output,) * 2):
        assert [t.name for t in mine] == [t.name for t in theirs]
        assert {t.type.tensor_type.elem_type for t in mine} == {TensorProto.FLOAT}
    x = images(2, 7, 9)
    got, expected = run(half, x)[0], run(model, x)[0]
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()


def test_sizes_are_counted_in_full(tmp_path: Path) -> None:
    """4,097 columns resized by scales that the graph computes: float16 would make it 4,096."""
    net = Net()
    shape = net.add("Cast", net.add("Shape", "x"), to=TensorProto.FLOAT)
    pooled = net.add("AveragePool", "x", kernel_shape=[2, 1], strides=[2, 1])
    scales = net.add("Div", shape, net.add("Cast", net.add("Shape", pooled), to=TensorProto.FLOAT))
    model = net.model(net.add("Resize", pooled, net.const([]), scales, mode="nearest"))
    x = images(1, 4, 4097)
    (got,) = run(_half(model, tmp_path), x)
    assert got.shape == x.shape
    np.testing.assert_allclose(got, run(model, x)[0], atol=2e-3)


def test_resize_with_empty_constants(tmp_path: Path) -> None:
    """paddle2onnx passes one empty constant as the region and as the scales."""
    net = Net()
    empty = net.const([])
    size = net.const([1, 3, 8, 10], np.int64)
    model = net.model(net.add("Resize", "x", empty, empty, size, mode="linear"))
    x = images(1, 4, 5)
    (got,) = run(_half(model, tmp_path), x)
    np.testing.assert_allclose(got, run(model, x)[0], atol=2e-3)


def test_values_beyond_the_range_stay_finite(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.add("Mul", "x", net.const(1e6)))
    assert np.isfinite(run(_half(model, tmp_path), np.full((1, 3, 2, 2), 0.5, np.float32))[0]).all()


def test_labels_of_argmax_stay_integers(tmp_path: Path) -> None:
    file = write_colour_model(tmp_path / "m.onnx", labels=True)
    x = images(1, 8, 8)
    (got,) = run(onnx.load_from_string(half_graph.read(file)), x)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, run(onnx.load(file), x)[0])


def test_metadata_is_kept_and_the_module_path_too(tmp_path: Path) -> None:
    path = [*sys.path]
    model = onnx.load_from_string(half_graph.read(write_colour_model(tmp_path / "m.onnx")))
    assert [entry.key for entry in model.metadata_props] == [KEY]
    assert sys.path == path
    with half_graph.import_path():
        importlib.import_module("onnxruntime.quantization")  # needs that path
    assert sys.path == path


def test_weights_in_another_file(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.conv("x", 3, 64, kernel_shape=[3, 3]))
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    x = images(1, 7, 9)
    half = onnx.load_from_string(half_graph.read(tmp_path / "m.onnx"))
    np.testing.assert_allclose(
        run(half, x)[0], run(onnx.load(tmp_path / "m.onnx"), x)[0], atol=0.05
    )


def _rounded(file: Path) -> onnx.ModelProto:
    """The model in float32, but with all that the half graph stores in float16 rounded to it.

    ONNX Runtime's CPU provider computes most of a float16 graph in float32, and leaves out the
    rounding between two such operators; casts that are part of a graph it keeps.
    """
    model = shape_inference.infer_shapes(onnx.load(file))
    graph, nodes = model.graph, []
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    pixels, renamed = {tensor.name for tensor in graph.input}, dict[str, str]()
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 0:
            half = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    for node in graph.node:
        of_pixels = node.op_type != "Shape" and not pixels.isdisjoint(node.input)
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        pixels.update(node.output if of_pixels else [])
        for name in node.output if of_pixels else []:
            if types.get(name) == TensorProto.FLOAT:
                renamed[name] = f"{name} rounded"
                pixels.add(renamed[name])
                nodes += [
                    helper.make_node("Cast", [name], [f"{name} half"], to=TensorProto.FLOAT16),
                    helper.make_node(
                        "Cast", [f"{name} half"], [renamed[name]], to=TensorProto.FLOAT
                    ),
                ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _logits(model: onnx.ModelProto, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return logits


@pytest.mark.skipif(not (SHARED / "camvid_mini").is_dir(), reason="needs ../shared/camvid_mini")
@pytest.mark.parametrize("name", ["bundled", "segformer"])
def test_labels_of_real_photos(name: str) -> None:
    segformer = SHARED / "models" / "segformer-b0-camvid" / "model.onnx"
    file = BUNDLED if name == "bundled" else segformer
    models = onnx.load(file), onnx.load_from_string(half_graph.read(file)), _rounded(file)
    for photo in sorted((SHARED / "camvid_mini" / "images").iterdir())[::10]:
        pixels = np.asarray(Image.open(photo).convert("RGB"), np.float32) / 127.5 - 1
        batch = pixels.transpose(2, 0, 1)[None]
        expected, half, rounded = (_logits(model, batch) for model in models)
        for got in (half, rounded):
            assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.995
