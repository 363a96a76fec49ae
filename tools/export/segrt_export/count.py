"""Tensor shapes and multiply-adds of a graph for one input size."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from segrt_export.graph import attributes

Shape = tuple[int, ...]
SIZE = (512, 1024)
"""(height, width) for which multiply-adds are compared: half the size of a Cityscapes image."""
_MAX_INTEGERS = 4096
"""Maximum size of an integer tensor that is evaluated as a part of shape arithmetic."""
_MAX_FLOATS = 4
"""Maximum size of a float tensor that is evaluated: the scales of a Resize, also if empty."""


def shapes(model: ModelProto, size: tuple[int, int] = SIZE, *, batch: int = 1) -> dict[str, Shape]:
    """The shape of every tensor of a graph with one image input.

    `onnx.shape_inference` stops at computed shapes that reach a Reshape, which is common in
    attention. This function infers node by node and evaluates the integers of shape arithmetic.

    Example:
        >>> shapes(model, (512, 1024))["logits"]
        (1, 19, 128, 256)

    Args:
        model: its nodes must be sorted topologically, as ONNX requires.
        size: (height, width) of the input, where the graph does not fix them.
        batch: batch size, likewise.

    Returns:
        dict: shape by tensor name, without tensors whose shape depends on the input's values.
    """
    inference = _Inference(model, list(input_shape(model, size, batch=batch)))
    for node in model.graph.node:
        inference.run(node)
    found = ((name, _shape(kind)) for name, kind in inference.types.items() if name)
    return {name: shape for name, shape in found if shape is not None}


def input_shape(model: ModelProto, size: tuple[int, int], *, batch: int = 1) -> Shape:
    """The shape of a batch of images that a graph accepts.

    Example:
        >>> input_shape(model_for_512x1024, (96, 160))
        (1, 3, 512, 1024)

    Args:
        model: a graph with one image input.
        size: (height, width), where the graph does not fix them.
        batch: batch size, likewise.
    """
    dims = model.graph.input[0].type.tensor_type.shape.dim
    fixed = [dim.dim_value for dim in dims] or [0] * 4
    wanted = (batch, 3, *size)  # graphs for bands fix their number
    return tuple(have if have > 0 else want for have, want in zip(fixed, wanted, strict=True))


class _Inference:
    """Infers the output types of one node after the other.

    Attributes:
        types: type by name of each tensor up to the current node.
        known: value by name of each evaluated tensor.
    """

    def __init__(self, model: ModelProto, shape: list[int]) -> None:
        self.model = model
        self.opset = {item.domain: item.version for item in model.opset_import}
        self.types: dict[str, TypeProto] = {"": TypeProto()}
        self.known: dict[str, npt.NDArray[Any]] = {}
        for initializer in model.graph.initializer:
            self.types[initializer.name] = helper.make_tensor_type_proto(
                initializer.data_type, list(initializer.dims)
            )
            is_float = initializer.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
            if prod(initializer.dims) <= (_MAX_FLOATS if is_float else _MAX_INTEGERS):
                self.known[initializer.name] = numpy_helper.to_array(initializer)
        image = model.graph.input[0]
        self.types[image.name] = helper.make_tensor_type_proto(
            image.type.tensor_type.elem_type, shape
        )

    def run(self, node: NodeProto) -> None:
        """Infer the outputs of `node`, if the types of its inputs are known."""
        inputs = [name for name in node.input if name]
        values = self._evaluate(node, inputs)
        for name, value in zip(node.output, values, strict=False):
            self.types[name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            if value.dtype.kind in "iub" and value.size <= _MAX_INTEGERS:
                self.known[name] = value
        if values or not all(name in self.types for name in inputs):
            return
        self.types.update(
            infer_node_outputs(
                defs.get_schema(node.op_type, self.opset[node.domain], node.domain),
                node,
                {name: self.types[name] for name in inputs},
                {n: numpy_helper.from_array(self.known[n]) for n in inputs if n in self.known},
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        )

    def _evaluate(self, node: NodeProto, inputs: list[str]) -> list[npt.NDArray[Any]]:
        """The values of the outputs; empty if an input is not known."""
        if node.op_type == "Shape" and (shape := _shape(self.types.get(inputs[0]))) is not None:
            options = attributes(node)
            return [np.array(shape, np.int64)[options.get("start", 0) : options.get("end")]]
        if all(name in self.known for name in inputs) and (inputs or node.op_type == "Constant"):
            outputs = ReferenceEvaluator(node, opsets=self.opset).run(None, self.known)
            return [np.asarray(value) for value in outputs]
        return []


def _shape(kind: TypeProto | None) -> Shape | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def multiply_adds(model: ModelProto, size: tuple[int, int] = SIZE) -> int:
    """Count the multiply-adds of convolutions and matrix products for one image.

    As in published figures, products with padding are included, and elementwise operations are
    not. Neither are products of weights alone, which a runtime computes once when it loads the
    model.

    Example:
        >>> multiply_adds(model, (1024, 2048)) / multiply_adds(model, (512, 1024))
        4.0

    Args:
        model: a graph with one image input.
        size: (height, width) of the image.

    Raises:
        ValueError: the shape of a convolution or product is unknown.
    """
    known = shapes(model, size)
    varying = {image.name for image in model.graph.input}
    count = 0
    for node in model.graph.node:
        if varying.intersection(node.input):
            varying.update(node.output)
            count += _multiply_adds(node, known)
    return count


def _multiply_adds(node: NodeProto, known: dict[str, Shape]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    try:
        left, right, out = known[node.input[0]], known[node.input[1]], known[node.output[0]]
    except KeyError as error:
        raise ValueError(
            f"the shape of {error} is unknown, so {node.op_type} {node.name} can't be counted"
        ) from None
    if node.op_type == "Conv":  # weight: (out, in / group, *kernel)
        return prod(out) * prod(right[1:])
    if node.op_type == "ConvTranspose":  # weight: (in, out / group, *kernel)
        return prod(left) * prod(right[1:])
    inner = left[0] if node.op_type == "Gemm" and attributes(node).get("transA") else left[-1]
    return prod(out) * inner
