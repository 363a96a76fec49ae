"""Ends the graph at the network's own logits.

PaddleSeg models upsample their logits to the input's size before the argmax, which costs more than
a small network on large maps. segrt does both in one step, see `segrt.postprocess`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from segrt.metadata import Upsample
from segrt_export.graph import attributes, producers, prune

_CONVENTIONS = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


@dataclass(frozen=True)
class Tail:
    """The result of `cut_tail`.

    Attributes:
        output: the new output of the graph, "logits" or "labels".
        upsample: the interpolation that followed the logits; None if there was none.
    """

    output: str
    upsample: Upsample | None


def cut_tail(model: ModelProto) -> Tail:
    """Remove [Resize ->] [Softmax ->] [ArgMax ->] from the end of a graph, in place.

    The Resize is only removed if it is bilinear and its output has the height and width of the
    graph's image input, which is checked by running the graph for two sizes.

    Returns:
        Tail: what the runtime must do instead.
    """
    graph = model.graph
    made_by = producers(graph)
    node = _skip(made_by, graph.output[0].name)
    is_labels = False
    while node is not None:
        if node.op_type == "ArgMax" and attributes(node).get("axis", 0) == 1:
            is_labels = True
        elif node.op_type != "Softmax" or attributes(node).get("axis", -1) not in (1, -3):
            break
        last = node.input[0]
        node = _skip(made_by, last)
    else:
        node = None
    if node is None or (not is_labels and node.op_type != "Resize"):
        integer = graph.output[0].type.tensor_type.elem_type in (
            TensorProto.INT32,
            TensorProto.INT64,
        )
        return Tail("labels" if integer else "logits", None)
    logits, upsample = node.output[0], None
    if node.op_type == "Resize":
        upsample = _upsample(model, node)
        logits = node.input[0] if upsample is not None else logits
    graph.node.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", None, "h", "w"])
    )
    prune(graph)
    return Tail("logits", upsample)


def _skip(made_by: dict[str, NodeProto], name: str) -> NodeProto | None:
    """The node that computes `name`, skipping nodes that don't change which class wins."""
    node = made_by.get(name)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = made_by.get(node.input[0])
    return node


def _upsample(model: ModelProto, resize: NodeProto) -> Upsample | None:
    options = attributes(resize)
    convention = options.get("coordinate_transformation_mode", "half_pixel")
    if options.get("mode") != "linear" or convention not in _CONVENTIONS:
        return None
    session = _session(model, resize.input[0], resize.output[0])
    stride = 0
    for size in ((129, 71), (96, 160)):
        image: npt.NDArray[np.float32] = np.zeros((1, 3, *size), np.float32)
        low, high = (
            array.shape for array in session.run(None, {session.get_inputs()[0].name: image})
        )
        if tuple(high[2:]) != size or high[:2] != low[:2]:
            return None
        stride = round(size[0] / low[2])
    return Upsample(stride=stride, align_corners=_CONVENTIONS[convention])


def _session(model: ModelProto, low: str, high: str) -> Any:
    import onnxruntime as ort

    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in (low, high):
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    prune(probe.graph)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Not worth optimising for two runs on small images.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
