"""Ends the graph at the network's own logits.

PaddleSeg models upsample their logits to the input's size before the argmax, which costs more than
a small network on large maps. segrt does both in one step, see `segrt.postprocess`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from segrt.errors import ExportError
from segrt.metadata import Upsample
from segrt_export.count import Shape, input_shape, shapes
from segrt_export.graph import Index, attributes, prune

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_PROBES = ((129, 71), (96, 160))
"""(height, width): one of them odd."""
_EVEN_PROBES = ((128, 256), (96, 160))
"""For networks that only accept multiples of 32."""
_CONVENTIONS = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


@dataclass(frozen=True)
class Tail:
    """The result of `cut_tail`.

    Attributes:
        output: the new output of the graph.
        upsample: the interpolation that followed the logits; None if there was none.
        classes: number of classes, 2 for one channel; None if the graph does not tell.
        cut: whether the graph was changed.
    """

    output: Literal["logits", "probabilities", "labels"]
    upsample: Upsample | None = None
    classes: int | None = None
    cut: bool = True


def cut_tail(model: ModelProto) -> Tail:
    """Remove [Resize ->] [Softmax or Sigmoid ->] [ArgMax ->] from the end of a graph, in place.

    The Resize is only removed if it is bilinear and its output has the height and width of the
    graph's image input, which is checked by running the graph for two sizes, or for the size that
    the input has. A Sigmoid is only removed from a single channel.

    Returns:
        Tail: what the runtime must do instead.

    Raises:
        ExportError: a Softmax or ArgMax of a single channel, which is the same for all images.
    """
    graph = model.graph
    index = Index(graph)
    known = _shapes(model)
    is_float = graph.output[0].type.tensor_type.elem_type in _FLOATS
    end = _find_end(index, known, graph.output[0].name)
    if end.is_stuck or not (is_float or end.is_labels):
        return Tail("labels", cut=False)
    logits, upsample = end.logits, None
    node = index.producers.get(logits)
    if node is not None and node.op_type == "Resize":
        upsample = _upsample(model, node)
        logits = node.input[0] if upsample is not None else logits
    channels = _channels(known, logits)
    classes = 2 if channels == 1 else channels
    if logits == graph.output[0].name:
        return Tail(_meaning(index, logits), None, classes, cut=False)
    if end.is_cast:
        last = helper.make_node("Cast", [logits], ["logits"], name="logits", to=TensorProto.FLOAT)
    else:
        last = helper.make_node("Identity", [logits], ["logits"], name="logits")
    meaning = _meaning(index, logits)
    graph.node.append(last)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None] * 4))
    prune(graph)
    return Tail(meaning, upsample, classes)


@dataclass
class _End:
    """The tensor before the last operators of a graph.

    Attributes:
        logits: its name.
        is_labels: whether an ArgMax follows.
        is_stuck: whether an ArgMax follows that is not over the channels.
        is_cast: whether it is converted to float32.
    """

    logits: str
    is_labels: bool = False
    is_stuck: bool = False
    is_cast: bool = False


def _find_end(index: Index, known: Mapping[str, Shape], output: str) -> _End:
    """Follow the operators that don't change which class wins back from the output."""
    end = _End(output)
    while (node := index.producers.get(end.logits)) is not None:
        options = attributes(node)
        channels = _channels(known, node.input[0]) if node.input else None
        if node.op_type in ("ArgMax", "Softmax"):
            if options.get("axis", 0 if node.op_type == "ArgMax" else -1) not in (1, -3):
                end.is_stuck = node.op_type == "ArgMax"
                break
            if channels == 1:
                raise ExportError(
                    f"the model ends in {node.op_type} over a single channel, which is the same for"
                    " every image: export it from PaddleSeg with --output_op none"
                )
            end.is_labels |= node.op_type == "ArgMax"
        elif node.op_type == "Cast":
            end.is_cast |= options["to"] == TensorProto.FLOAT
        elif node.op_type == "Squeeze":
            axes = index.constant(node.input[1]) if len(node.input) > 1 else None
            if axes is None or axes.tolist() not in ([1], [-3]):
                break
        elif node.op_type != "Identity" and (node.op_type != "Sigmoid" or channels != 1):
            break
        end.logits = node.input[0]
    return end


def _meaning(index: Index, name: str) -> Literal["logits", "probabilities"]:
    """Whether the values of a tensor are logits, or come from a Softmax or Sigmoid."""
    node = index.producers.get(name)
    while node is not None and node.op_type in ("Identity", "Cast", "Resize", "Squeeze"):
        node = index.producers.get(node.input[0])
    is_squashed = node is not None and node.op_type in ("Softmax", "Sigmoid")
    return "probabilities" if is_squashed else "logits"


def _channels(known: Mapping[str, Shape], name: str) -> int | None:
    shape = known.get(name, ())
    return shape[1] if len(shape) == 4 else None


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes by tensor name, as far as they can be inferred."""
    try:
        return shapes(model, _PROBES[1])
    except Exception:  # the inference of onnx raises various types on networks of users
        return {}


def _upsample(model: ModelProto, resize: NodeProto) -> Upsample | None:
    options = attributes(resize)
    convention = options.get("coordinate_transformation_mode", "half_pixel")
    if options.get("mode") != "linear" or convention not in _CONVENTIONS:
        return None
    session = _session(model, resize.input[0], resize.output[0])
    for probes in (_PROBES, _EVEN_PROBES):
        strides = []
        for size in probes:
            image = np.zeros(input_shape(model, size), np.float32)
            try:
                low, high = (
                    array.shape
                    for array in session.run(None, {session.get_inputs()[0].name: image})
                )
            except Exception:  # ONNX Runtime's errors have no common type
                break
            if high[2:] != image.shape[2:] or high[:2] != low[:2]:
                return None
            strides.append(round(image.shape[2] / low[2]))
        if len(strides) == len(probes):
            return Upsample(stride=strides[-1], align_corners=_CONVENTIONS[convention])
    return None


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
