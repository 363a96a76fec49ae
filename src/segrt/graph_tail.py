"""How an ONNX graph ends, and whether it is quantised: what its operators say about it.

Only as much of a graph is read as that takes, without the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from segrt.protobuf import fields, mapped

# Field numbers, from onnx.proto.
GRAPH = 7  # of ModelProto
NODE, _INITIALIZER, OUTPUT = 1, 5, 12  # of GraphProto
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4  # of NodeProto

# They change neither the order of the values nor their range.
_NEUTRAL = {
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "QuantizeLinear",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Upsample",
}

# They may make values of probabilities that are neither these nor logits.
_ARITHMETIC = {
    "Add",
    "Clip",
    "Concat",
    "Div",
    "Max",
    "Mean",
    "Min",
    "Mul",
    "Neg",
    "Sub",
    "Sum",
}

_QUANTIZE = b"QuantizeLinear"
_INT8 = 3  # of TensorProto.DataType
_DATA_TYPE, _NAME = 2, 8  # of TensorProto

PROBABILITIES = {"Softmax", "Sigmoid", "HardSigmoid"}
"""Operators whose results are probabilities."""

LOGITS = {
    "Add",
    "BatchNormalization",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "FusedConv",
    "Gemm",
    "LogSoftmax",
    "MatMul",
    "Mul",
    "Sub",
}
"""Operators whose results are logits, as far as can be known."""

_SQUASHING = PROBABILITIES | {"Erf", "Exp", "Softplus", "Softsign", "Tanh"}


class _Node(NamedTuple):
    """An operator."""

    op_type: str
    inputs: list[str]
    outputs: list[str]


class Tail(NamedTuple):
    """The operator that gives an output its meaning.

    Attributes:
        op_type: such as "ArgMax"; empty if it is not found.
        input: name of its first input.
        squashed: the operator that makes its values neither logits nor probabilities, such as the
            Sigmoid in 255 * Sigmoid(x); empty if there is none.
    """

    op_type: str
    input: str
    squashed: str = ""


def tail(model: memoryview, output: str) -> Tail:
    """Find the operator behind an output, looking through casts, resizes and the like.

    Example:
        >>> tail(memoryview(Path("model.onnx").read_bytes()), "output").op_type
        'ArgMax'

    Args:
        model: the content of an `.onnx` file.
        output: name of the output.
    """
    made_by: dict[str, _Node] = {}
    try:
        graphs = [value for number, _, value in fields(model) if number == GRAPH]
        for graph in graphs:
            for number, _, value in fields(graph):
                if number == NODE:
                    node = _node(value)
                    made_by |= dict.fromkeys(node.outputs, node)
    except (ValueError, IndexError):
        return Tail("", "")
    for _ in range(len(made_by) + 1):
        if output not in made_by:
            break
        op_type, inputs, _ = made_by[output]
        first = next(iter(inputs), "")
        if op_type not in _NEUTRAL:
            squashed = "" if op_type in PROBABILITIES else _squashed(output, made_by)
            return Tail(op_type, first, squashed)
        output = first
    return Tail("", "")


def _squashed(output: str, made_by: dict[str, _Node]) -> str:
    """The first operator behind an output, through arithmetic, that squashes its values."""
    waiting, seen = [output], set[str]()
    while waiting:
        name = waiting.pop(0)
        op_type, inputs, _ = made_by.get(name, _Node("", [], []))
        if op_type in _SQUASHING:
            return op_type
        if op_type in _ARITHMETIC | _NEUTRAL and name not in seen:
            seen.add(name)
            waiting += inputs
    return ""


Rounded: TypeAlias = Literal["", "uint8", "int8"]
"""What the values of a network are rounded to: unsigned or signed, or nothing."""


def rounded(file: Path) -> Rounded:
    """Whether a network is quantised, and how: it rounds tensors, as `segrt quantize` writes it.

    Weights alone that are stored in 8 bits don't count: the arithmetic is that of floats.

    Example:
        >>> rounded(Path("model.int8.onnx"))
        'uint8'

    Args:
        file: an `.onnx` file; a damaged one is not quantised.
    """
    try:
        graphs = [value for number, _, value in fields(mapped(file)) if number == GRAPH]
        nodes = (value for graph in graphs for number, _, value in fields(graph) if number == NODE)
        # Most nodes need no closer look, which halves the time.
        likely = (node for node in nodes if _QUANTIZE in bytes(node))
        found = [node for node in map(_node, likely) if node.op_type == _QUANTIZE.decode()]
        if not found:
            return ""
        zeros = {node.inputs[2] for node in found if len(node.inputs) > 2}
        return "uint8" if zeros.isdisjoint(_signed(graphs)) else "int8"
    except (ValueError, IndexError):
        return ""


def _signed(graphs: list[memoryview]) -> Iterator[str]:
    """The names of the constants of type int8."""
    for graph in graphs:
        for number, _, value in fields(graph):
            if number == _INITIALIZER:
                parts = {number: part for number, _, part in fields(value)}
                if bytes(parts.get(_DATA_TYPE, b"")) == bytes([_INT8]):
                    yield bytes(parts[_NAME]).decode()


def _node(node: memoryview) -> _Node:
    op_type, inputs, outputs = "", list[str](), list[str]()
    for number, _, value in fields(node):
        if number == _OP_TYPE:
            op_type = bytes(value).decode()
        elif number == _INPUT:
            inputs.append(bytes(value).decode())
        elif number == _OUTPUT:
            outputs.append(bytes(value).decode())
    return _Node(op_type, inputs, outputs)
