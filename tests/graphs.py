"""Tiny ONNX graphs for tests of the graph passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]


class Net:
    """A graph builder; tensors are numbered, weights are random with a fixed seed."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}
        self.random = np.random.default_rng(seed)

    def const(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.random.standard_normal(shape))

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def conv(self, x: str, channels: int, out: int, *, bias: bool = True, **attributes: Any) -> str:
        kernel = attributes.get("kernel_shape", [1, 1])
        group = attributes.get("group", 1)
        biases = [self.weight(out)] if bias else []
        return self.add(
            "Conv", x, self.weight(out, channels // group, *kernel), *biases, **attributes
        )

    def sizes(self, like: str, channels: int) -> str:
        """The shape of `like` with a different number of channels."""
        shape = self.add("Shape", like)
        batch = self.add("Slice", shape, self.const([0], np.int64), self.const([1], np.int64))
        size = self.add("Slice", shape, self.const([2], np.int64), self.const([4], np.int64))
        return self.add("Concat", batch, self.const([channels], np.int64), size, axis=0)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """A model with an image input `x`, N x 3 x H x W."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: onnx.ModelProto, x: Floats) -> list[Floats]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Floats] = session.run(None, {"x": x})
    return outputs


def images(batch: int, height: int, width: int) -> Floats:
    return np.random.default_rng(9).standard_normal((batch, 3, height, width)).astype(np.float32)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def pixel_network(
    path: Path,
    weight: npt.ArrayLike = ((0, 0, 0), (1, 0, 0)),
    bias: npt.ArrayLike = (0, 0),
    *,
    tail: Sequence[tuple[str, dict[str, Any]]] = (),
    dtype: int = TensorProto.FLOAT,
    shape: Sequence[str | int] = ("N", 3, "H", "W"),
    output: int = TensorProto.FLOAT,
    extra: Sequence[tuple[str, str]] = (),
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a network from elsewhere: a 1 x 1 convolution of the image, then the nodes of `tail`.

    By default class 1 wins where the normalised red is positive. If the last dimension is the
    number of weights, the input is N x H x W x C. `extra` lists further outputs, each with the
    tensor it repeats: "t0" is the result of the convolution.
    """
    weights, biases = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
    nodes, last = [], "input"
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["cast"], to=TensorProto.FLOAT))
        last = "cast"
    if shape[-1] == weights.shape[1]:
        nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
        last = "first"
    nodes.append(helper.make_node("Conv", [last, "w", "b"], ["t0"]))
    last = "t0"
    for number, (op_type, attributes) in enumerate(tail, 1):
        nodes.append(helper.make_node(op_type, [last], [f"t{number}"], **attributes))
        last = f"t{number}"
    named = [("output", last), *extra]
    nodes += [helper.make_node("Identity", [source], [name]) for name, source in named]
    kinds = [output, *[TensorProto.FLOAT] * len(extra)]
    outputs = zip(named, kinds, strict=True)
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("input", dtype, list(shape))],
        [helper.make_tensor_value_info(name, kind, None) for (name, _), kind in outputs],
        [
            numpy_helper.from_array(weights.reshape(len(biases), -1, 1, 1), "w"),
            numpy_helper.from_array(biases, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata is not None:
        helper.set_model_props(model, {"segrt": json.dumps(metadata)})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
