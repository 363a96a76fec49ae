"""Stores large weights as int8, a quarter of the file; they are still computed in float32."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segrt_export.passes.half_weights import SMALLEST


def int8_weights(model: ModelProto) -> int:
    """Replace weights by int8 initializers followed by a DequantizeLinear, in place.

    Each output channel has a scale of its own, and zero stays zero. Tensors below `SMALLEST`
    elements, and those that are not the weights of a convolution or matrix product, are left alone.

    Returns:
        int: the number of tensors stored as int8.
    """
    graph = model.graph
    axes = {node.input[1]: _axis(node) for node in graph.node if node.op_type in _LAYERS}
    rounded: list[NodeProto] = []
    for initializer in [*graph.initializer]:
        name = initializer.name
        if initializer.data_type != TensorProto.FLOAT or name not in axes:
            continue
        values = numpy_helper.to_array(initializer)
        if values.size < SMALLEST or not np.isfinite(values).all():
            continue
        axis = axes[name] % values.ndim
        others = tuple(a for a in range(values.ndim) if a != axis)
        # A channel of zeros has any scale but 0.
        largest = np.abs(values).max(others, keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        initializer.CopyFrom(
            numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8")
        )
        graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}.scale"))
        rounded.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis
            )
        )
    nodes = [*rounded, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(rounded)


_LAYERS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""The axis of the output channels in the weights of each operator."""


def _axis(node: NodeProto) -> int:
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else _LAYERS[node.op_type]
