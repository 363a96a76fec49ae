from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segrt.errors import ExportError
from segrt.metadata import Upsample
from segrt.postprocess import labels_from_logits
from segrt_export.passes.cut_tail import Tail, cut_tail


def _network(
    tail: list[NodeProto], output: str, kind: int = TensorProto.INT64, *, stride: int = 4
) -> onnx.ModelProto:
    """Average pooling and a 1 x 1 convolution to five classes; tails read `low` and `size`."""
    weights = np.random.default_rng(3).standard_normal((5, 3, 1, 1)).astype(np.float32)
    constants: dict[str, Any] = {
        "w": weights,
        "none": np.zeros(0, np.float32),
        "2": np.array([2]),
        "4": np.array([4]),
        "0": np.array([0]),
        "other": np.array([7, 9]),
    }
    nodes = [
        helper.make_node(
            "AveragePool",
            ["x"],
            ["p"],
            kernel_shape=[stride] * 2,
            strides=[stride] * 2,
            ceil_mode=1,
        ),
        helper.make_node("Conv", ["p", "w"], ["low"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "2", "4"], ["hw"]),
        helper.make_node("Shape", ["low"], ["low_shape"]),
        helper.make_node("Slice", ["low_shape", "0", "2"], ["nc"]),
        helper.make_node("Concat", ["nc", "hw"], ["size"], axis=0),
        helper.make_node("Concat", ["nc", "other"], ["other_size"], axis=0),
    ]
    graph = helper.make_graph(
        [*nodes, *tail],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _resize(mode: str = "half_pixel", size: str = "size") -> NodeProto:
    return helper.make_node(
        "Resize",
        ["low", "none", "none", size],
        ["high"],
        mode="linear",
        coordinate_transformation_mode=mode,
    )


ARGMAX = [
    helper.make_node("ArgMax", ["high"], ["index"], axis=1, keepdims=0),
    helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.INT32),
]


def _run(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> Any:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("stride", [4, 8])
def test_upsampling_and_argmax_move_to_postprocessing(mode: str, stride: int) -> None:
    model = _network([_resize(mode), *ARGMAX], "labels", TensorProto.INT32, stride=stride)
    x = np.random.default_rng(0).standard_normal((2, 3, 53, 71)).astype(np.float32)
    expected = _run(model, x)
    tail = cut_tail(model)
    assert tail.upsample == Upsample(stride=stride, align_corners=mode == "align_corners")
    assert tail.output == "logits"
    assert {n.op_type for n in model.graph.node} == {"AveragePool", "Conv", "Identity"}
    labels, _ = labels_from_logits(
        _run(model, x), (53, 71), align_corners=tail.upsample.align_corners
    )
    assert (labels == expected).mean() > 0.9999


def test_softmax_is_removed_too() -> None:
    softmax = helper.make_node("Softmax", ["high"], ["soft"], axis=1)
    model = _network([_resize(), softmax], "soft", TensorProto.FLOAT)
    assert cut_tail(model).upsample == Upsample(stride=4)
    assert "Softmax" not in {n.op_type for n in model.graph.node}


@pytest.mark.parametrize(("mode", "size"), [("asymmetric", "size"), ("half_pixel", "other_size")])
def test_an_unsupported_upsampling_stays_in_the_graph(mode: str, size: str) -> None:
    model = _network([_resize(mode, size), *ARGMAX], "labels", TensorProto.INT32)
    tail = cut_tail(model)
    assert (tail.output, tail.upsample) == ("logits", None)
    assert "Resize" in {n.op_type for n in model.graph.node}
    assert "ArgMax" not in {n.op_type for n in model.graph.node}


def test_argmax_without_upsampling() -> None:
    argmax = helper.make_node("ArgMax", ["low"], ["labels"], axis=1, keepdims=0)
    model = _network([argmax], "labels")
    tail = cut_tail(model)
    assert (tail.output, tail.upsample) == ("logits", None)
    assert _run(model, np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 5, 2, 2)


def test_other_graphs_are_unchanged() -> None:
    other = helper.make_node("ReduceSum", ["low"], ["labels"], keepdims=0)
    model = _network([other], "labels", TensorProto.FLOAT)
    before = model.SerializeToString()
    assert cut_tail(model).output == "logits"
    assert model.SerializeToString() == before


def _one_channel(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the first of its five channels alone."""
    weights = next(i for i in model.graph.initializer if i.name == "w")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[:1], "w"))
    return model


SIGMOID = helper.make_node("Sigmoid", ["high"], ["soft"])


def test_the_sigmoid_of_one_channel_is_removed() -> None:
    model = _one_channel(_network([_resize(), SIGMOID], "soft", TensorProto.FLOAT))
    tail = cut_tail(model)
    assert tail == Tail("logits", Upsample(stride=4), 2)
    assert not {"Sigmoid", "Resize"} & {n.op_type for n in model.graph.node}


def test_the_sigmoid_of_several_channels_stays() -> None:
    model = _network([_resize(), SIGMOID], "soft", TensorProto.FLOAT)
    before = model.SerializeToString()
    assert cut_tail(model) == Tail("probabilities", None, 5, cut=False)
    assert model.SerializeToString() == before


def test_upsampled_probabilities_are_not_called_logits() -> None:
    softmax = helper.make_node("Softmax", ["low"], ["soft"], axis=1)
    resize = _resize()
    resize.input[0] = "soft"
    model = _network([softmax, resize, *ARGMAX], "labels", TensorProto.INT32)
    assert cut_tail(model) == Tail("probabilities", Upsample(stride=4), 5)


@pytest.mark.parametrize("op_type", ["ArgMax", "Softmax"])
def test_a_tail_over_one_channel_is_refused(op_type: str) -> None:
    tail = helper.make_node(op_type, ["high"], ["end"], axis=1)
    kind = TensorProto.INT64 if op_type == "ArgMax" else TensorProto.FLOAT
    model = _one_channel(_network([_resize(), tail], "end", kind))
    with pytest.raises(ExportError, match=f"ends in {op_type} over a single channel"):
        cut_tail(model)


@pytest.mark.parametrize(
    "tail",
    [
        [helper.make_node("ArgMax", ["high"], ["labels"], axis=2)],
        [
            helper.make_node("ReduceMax", ["high"], ["top"], axes=[1]),
            helper.make_node("Cast", ["top"], ["labels"], to=TensorProto.INT64),
        ],
    ],
)
def test_other_labels_stay(tail: list[NodeProto]) -> None:
    model = _network([_resize(), *tail], "labels")
    before = model.SerializeToString()
    assert cut_tail(model) == Tail("labels", cut=False)
    assert model.SerializeToString() == before


def test_the_probe_has_the_size_that_the_input_fixes() -> None:
    model = _network([_resize(), *ARGMAX], "labels", TensorProto.INT32)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value, dims[2].dim_value, dims[3].dim_value = 2, 64, 104
    assert cut_tail(model) == Tail("logits", Upsample(stride=4), 5)
