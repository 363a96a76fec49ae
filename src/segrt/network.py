"""The form of a network's input and output, recognised from its graph when it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import external_data, graph_tail
from segrt.errors import ModelError
from segrt.metadata import MAX_BANDS, MAX_CLASSES, ModelMeta
from segrt.protobuf import field, mapped

log = logging.getLogger("segrt")

Form: TypeAlias = Literal["logits", "probabilities", "labels"]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_INTEGERS = {f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)}

# Fewer columns than this are channels.
_FEWEST = 16

# (height, width) at which networks from elsewhere are tried.
_PROBES = ((128, 192), (256, 384), (512, 768))


@dataclass(frozen=True)
class Input:
    """The image input of a network.

    Attributes:
        name: name of the tensor.
        dtype: float32, float16, float64 or uint8.
        channels: 3, 1 for grey images, or the number of bands.
        channels_last: whether it is N x H x W x C.
        dims: (batch, height, width); None where any is accepted.
    """

    name: str
    dtype: npt.DTypeLike
    channels: int = 3
    channels_last: bool = False
    dims: tuple[int | None, int | None, int | None] = (None, None, None)


@dataclass(frozen=True)
class Output:
    """The output of a network that becomes labels.

    Attributes:
        name: name of the tensor.
        channels: channels of logits or probabilities; None for labels.
        channels_last: whether it is N x h x w x C.
        unscored: why there are no scores, though the labels are known; empty if there are.
    """

    name: str
    channels: int | None
    channels_last: bool = False
    unscored: str = ""


def image_input(inputs: Sequence[Any], file: Path, bands: int = 0) -> Input:
    """The image input of a network, from ONNX Runtime's description of its inputs.

    Args:
        inputs: the description.
        file: the file, for messages.
        bands: the number of channels, if it is known. Otherwise the axis of the channels is the
            one with 3 or 1 channels, or the smaller of the second and the last, and channels of
            unknown number are 3.

    Raises:
        ModelError: it takes anything but one image, or not that number of channels.
    """
    shown = "; ".join(f"{node.name} {node.type} {_shape(node.shape)}" for node in inputs)
    refusal = ModelError(
        f"{file} takes {shown or 'nothing'}: segrt runs networks with one input, N x C x H x W or "
        "N x H x W x C, of float32, float16, float64 or uint8"
    )
    if len(inputs) != 1 or inputs[0].type not in _DTYPES or len(inputs[0].shape) != 4:
        raise refusal
    node = inputs[0]
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in node.shape]
    channels_last = _are_channels_last(dims[1], dims[3], (bands,) if bands else (1, 3))
    batch, height, width = (dims[0], *dims[1:3]) if channels_last else (dims[0], *dims[2:])
    channels = (dims[3] if channels_last else dims[1]) or bands or 3
    if bands and channels != bands:
        raise ModelError(
            f"{file} takes {channels} channels ({shown}), but {bands} bands are named: name each "
            "channel, in order"
        )
    if channels > MAX_BANDS:
        raise refusal
    return Input(node.name, _DTYPES[node.type], channels, channels_last, (batch, height, width))


def _are_channels_last(second: int | None, last: int | None, expected: Sequence[int]) -> bool:
    """Whether the channels are the last of four dimensions rather than the second."""
    if second in expected or last in expected:
        return second not in expected
    if second is None:
        return last is not None and last < _FEWEST  # channels rather than a width
    return last is not None and last < second


def _shape(dims: Sequence[Any]) -> str:
    return "x".join(str(dim) if dim is not None else "?" for dim in dims)


def stated(
    outputs: Sequence[Any], meta: ModelMeta, file: Path, wanted: str | None
) -> tuple[Output, Form, int | None]:
    """The output of a file with segrt's metadata, its form, and the number of its channels.

    Args:
        outputs: ONNX Runtime's description of the outputs.
        meta: the metadata.
        file: the file.
        wanted: name of the output to use; None for the first.

    Raises:
        ModelError: the metadata contradicts the graph.
    """
    node = outputs[0]
    integer = node.type in _INTEGERS
    if integer == (meta.output != "labels") or (not integer and node.type not in _DTYPES):
        raise ModelError(f"{file} gives {node.type}, but its metadata says {meta.output}")
    if wanted not in (None, node.name):
        raise ModelError(f"{file} has no output {wanted!r}: it has {node.name}")
    shape = node.shape or []
    channels = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else None
    if integer:
        return Output(node.name, None), meta.output, len(meta.class_names) or None
    return Output(node.name, channels), meta.output, channels


def recognised(
    file: Path, node: Input, outputs: Sequence[Any], wanted: str | None, names: Sequence[str]
) -> tuple[Output, Form, int | None]:
    """The output of a file from elsewhere, its form, and the number of its channels or classes.

    They are known from its shape when the network runs, and from how its graph ends.

    Args:
        file: the file.
        node: its input.
        outputs: ONNX Runtime's description of the outputs.
        wanted: name of the output to use; None if there is only one that can become labels.
        names: class names, to tell outputs apart.

    Raises:
        ModelError: no output can become labels, several can, or the network does not run.
    """
    model = mapped(file)
    tails = {out.name: graph_tail.tail(model, out.name) for out in outputs}
    inner = {name: t.input for name, t in tails.items() if t.op_type == "ArgMax" and t.input}
    size, shapes = _probe(file, model, node, [out.name for out in outputs], inner)
    forms = [(out, _form(out, tails[out.name], shapes[out.name], size)) for out in outputs]
    found = [(out, *form) for out, form in forms if form]
    listed = "; ".join(f"{out.name} {out.type} {_shape(shapes[out.name])}" for out in outputs)
    if wanted is not None:
        found = [entry for entry in found if entry[0].name == wanted]
    if not found:
        what = f"no output {wanted!r}" if wanted else "no output"
        raise ModelError(
            f"{file} has {what} that can become labels: for an image of {size[0]} x {size[1]} it "
            f"gives {listed}, where logits N x C x h x w or labels N x H x W are needed"
        )
    if _differ(found):
        found = [entry for entry in found if names and entry[1].channels == len(names)] or found
    if _differ(found):
        choices = ", ".join(entry[0].name for entry in found)
        raise ModelError(
            f"{file} has several outputs that can become labels ({listed}): set output to one of "
            f"{choices}"
        )
    out, output, form = found[0]
    if len(found) > 1:
        others = ", ".join(entry[0].name for entry in found[1:])
        text = "%s has several outputs of one shape: %s is used, not %s; set output to change it"
        log.warning(text, file, out.name, others)
    tail = tails[out.name]
    made_by = " of ".join(dict.fromkeys(filter(None, (tail.op_type, tail.squashed))))
    if output.channels == 1 and made_by not in graph_tail.LOGITS | graph_tail.PROBABILITIES:
        raise ModelError(
            f"{file} ends in one channel, computed by {made_by or 'an unknown operator'}: "
            "segrt can't tell whether it is a logit or a probability; end the network with a "
            "convolution or a Sigmoid"
        )
    if form == "labels":
        return output, form, _argmax_channels(shapes.get(tail.input), tail, out)
    if tail.squashed:
        why = f"it ends in {made_by}, which gives neither logits nor probabilities"
        output = replace(output, unscored=why)
    return output, form, output.channels


def _differ(found: Sequence[tuple[Any, Output, Form]]) -> bool:
    return len({(entry[1].channels, entry[2]) for entry in found}) > 1


def _argmax_channels(shape: Sequence[int] | None, tail: graph_tail.Tail, out: Any) -> int | None:
    if tail.op_type != "ArgMax":
        return 2 if out.type == "tensor(bool)" else None
    return shape[1] if shape is not None and len(shape) == 4 else None


def _form(
    out: Any, tail: graph_tail.Tail, shape: Sequence[int], size: tuple[int, int]
) -> tuple[Output, Form] | None:
    """What an output is; None if it can't be labels or become labels."""
    labels = out.type in _INTEGERS or out.type == "tensor(bool)" or tail.op_type == "ArgMax"
    if labels:
        if len(shape) == 4 and 1 in (shape[1], shape[3]):
            shape = [shape[0], *(shape[2:] if shape[1] == 1 else shape[1:3])]
        fits = len(shape) == 3 and _like(shape[1:], size)
        return (Output(out.name, None), "labels") if fits else None
    form: Form = "probabilities" if tail.op_type in graph_tail.PROBABILITIES else "logits"
    if len(shape) == 3 and _like(shape[1:], size):
        return Output(out.name, 1), form
    if len(shape) != 4 or out.type not in _DTYPES:
        return None
    first, last = _like(shape[2:], size), _like(shape[1:3], size)
    if first and shape[1] <= MAX_CLASSES:
        return Output(out.name, int(shape[1])), form
    if last and shape[3] <= MAX_CLASSES:
        return Output(out.name, int(shape[3]), channels_last=True), form
    return None


def _like(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether (h, w) is `size` at some scale of at most 1, up to rounding."""
    (h, w), (height, width) = shape, size
    if h < 2 or w < 2 or h > height or w > width:
        return (h, w) == size
    # One of the sides of the smaller map may be rounded up or down.
    return abs(h / height - w / width) <= max(1 / height, 1 / width) + 1e-9


def _probe(
    file: Path, model: memoryview, node: Input, names: Sequence[str], inner: Mapping[str, str]
) -> tuple[tuple[int, int], dict[str, list[int]]]:
    """Run the network on a small black image: the size, and the shape of each output.

    `inner` names further tensors whose shapes are wanted, by output.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    extra = sorted(set(inner.values()) - set(names))
    reason = ""
    try:
        if extra and not any(external_data.locations(model)):
            parts = [
                field(graph_tail.OUTPUT, field(1, name.encode())) for name in extra
            ]  # concatenated messages are merged
            content: bytes | str = bytes(model) + field(graph_tail.GRAPH, b"".join(parts))
        else:
            content, extra = str(file), []
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        wanted = [*names, *extra]
    except Exception as error:  # onnxruntime has its own class per status code
        raise ModelError(f"{file} can't be loaded by ONNX Runtime: {first_line(error)}") from None
    batch, height, width = node.dims
    sizes = dict.fromkeys((height or h, width or w) for h, w in _PROBES)
    for size in sizes:
        shape = [batch or 1, *size, node.channels]
        if not node.channels_last:
            shape = [shape[0], shape[3], *size]
        image: npt.NDArray[Any] = np.zeros(shape, node.dtype)
        try:
            arrays = session.run(wanted, {node.name: image})
        except Exception as error:  # as above
            reason = first_line(error)
            continue
        return size, {n: list(a.shape) for n, a in zip(wanted, arrays, strict=True)}
    tried = ", ".join(f"{h} x {w}" for h, w in sizes)
    raise ModelError(f"{file} can't run on an image of {tried}: {reason}")


def first_line(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, of at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def prepare(batch: npt.NDArray[np.float32], node: Input) -> npt.NDArray[Any]:
    """Bring a batch, float32 (N, C, H, W), into the form of the input."""
    if node.dtype != np.float32:
        values = np.rint(batch) if node.dtype == np.uint8 else batch
        batch = values.astype(node.dtype)
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1)) if node.channels_last else batch


def standard(output: npt.NDArray[Any], described: Output, form: Form) -> npt.NDArray[Any]:
    """Bring an output into the standard form.

    Returns:
        np.ndarray: labels, integers (N, H, W); or logits or probabilities (N, C, h, w) with a
            channel for each class. A single channel becomes two: 0 and the logit, whose softmax is
            the logit's sigmoid, or the two probabilities.
    """
    if form == "labels":
        if output.ndim == 4 and 1 in (output.shape[1], output.shape[3]):
            output = output[:, 0] if output.shape[1] == 1 else output[..., 0]
        return np.rint(output).astype(np.int64) if output.dtype.kind in "fb" else output
    if output.ndim == 3 and described.channels == 1:
        output = output[:, None]
    if described.channels_last and output.ndim == 4:
        output = output.transpose(0, 3, 1, 2)
    if described.channels == 1 and output.ndim == 4:
        other = 1 - output if form == "probabilities" else np.zeros_like(output)
        output = np.concatenate([other, output], axis=1)
    return output
