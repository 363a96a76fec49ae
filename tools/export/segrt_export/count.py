"""Shapes and multiply-adds of a graph at one size of input."""

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
"""(height, width) at which networks are compared: half of a Cityscapes photo."""
_SMALL = 4096
"""Elements up to which an integer tensor counts as part of shape arithmetic, and is computed."""
_SCALES = 4
"""Elements up to which a real one may be the scales of a Resize; with none, it says that it has sizes."""


def shapes(model: ModelProto, size: tuple[int, int] = SIZE, *, batch: int = 1) -> dict[str, Shape]:
    """The shape of every tensor of a graph with one image input of free size.

    `onnx.shape_inference` stops where a shape goes through a Reshape, as it often does in attention. So the nodes are
    taken one by one here, and the integers from which shapes are made are computed on the way.

    Args:
        model: its nodes are sorted, as ONNX demands.
        size: (height, width) of the input.
        batch: images at once.

    Returns:
        dict: shape by name; a tensor whose shape depends on more than the input's is left out.
    """
    graph = model.graph
    opset = {item.domain: item.version for item in model.opset_import}
    imports = list(model.opset_import)
    types: dict[str, TypeProto] = {"": TypeProto()}
    known: dict[str, npt.NDArray[Any]] = {}
    for initializer in graph.initializer:
        types[initializer.name] = helper.make_tensor_type_proto(
            initializer.data_type, list(initializer.dims)
        )
        is_real = initializer.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        if prod(initializer.dims) <= (_SCALES if is_real else _SMALL):
            known[initializer.name] = numpy_helper.to_array(initializer)
    image = graph.input[0]
    types[image.name] = helper.make_tensor_type_proto(
        image.type.tensor_type.elem_type, [batch, 3, *size]
    )
    for node in graph.node:
        inputs = [name for name in node.input if name]
        made: list[npt.NDArray[Any]] = []
        if node.op_type == "Shape" and _shape(types.get(inputs[0])) is not None:
            options = attributes(node)
            whole = np.array(_shape(types[inputs[0]]), np.int64)
            made = [whole[options.get("start", 0) : options.get("end")]]
        elif all(name in known for name in inputs) and (inputs or node.op_type == "Constant"):
            made = [
                np.asarray(value)
                for value in ReferenceEvaluator(node, opsets=opset).run(None, known)
            ]
        for name, value in zip(node.output, made, strict=False):
            types[name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            if value.dtype.kind in "iub" and value.size <= _SMALL:
                known[name] = value
        if made or not all(name in types for name in inputs):
            continue
        data = {name: numpy_helper.from_array(known[name]) for name in inputs if name in known}
        schema = defs.get_schema(node.op_type, opset[node.domain], node.domain)
        kinds = {name: types[name] for name in inputs}
        types.update(
            infer_node_outputs(
                schema, node, kinds, data, opset_imports=imports, ir_version=model.ir_version
            )
        )
    found = ((name, _shape(kind)) for name, kind in types.items() if name)
    return {name: shape for name, shape in found if shape is not None}


def _shape(kind: TypeProto | None) -> Shape | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def multiply_adds(model: ModelProto, size: tuple[int, int] = SIZE) -> int:
    """Multiply-adds of the convolutions and matrix products of a graph for one image.

    Products with padding count, as they do in published figures; whatever is linear in the number of elements does
    not, nor what depends on weights alone, which a runtime computes when it loads.

    Args:
        model: a graph with one image input.
        size: (height, width) of the image.

    Raises:
        ValueError: the shape of a convolution or product can't be told.
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
            f"the shape of {error} is not known, so {node.op_type} {node.name} can't be counted"
        ) from None
    if node.op_type == "Conv":  # weight: (out, in / group, *kernel)
        return prod(out) * prod(right[1:])
    if node.op_type == "ConvTranspose":  # weight: (in, out / group, *kernel)
        return prod(left) * prod(right[1:])
    inner = left[0] if node.op_type == "Gemm" and attributes(node).get("transA") else left[-1]
    return prod(out) * inner
