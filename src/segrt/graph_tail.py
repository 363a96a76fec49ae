"""How an ONNX graph ends, and whether it is quantised: what its operators say about it.

Only as much of a graph is read as that takes, without the `onnx` package.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

from segrt.protobuf import fields

# Field numbers, from onnx.proto.
GRAPH = 7  # of ModelProto
NODE, OUTPUT = 1, 12  # of GraphProto
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

_QUANTIZE = b"QuantizeLinear"

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


class Tail(NamedTuple):
    """The operator that gives an output its meaning.

    Attributes:
        op_type: such as "ArgMax"; empty if it is not found.
        input: name of its first input.
    """

    op_type: str
    input: str


def tail(model: memoryview, output: str) -> Tail:
    """Find the operator behind an output, looking through casts, resizes and the like.

    Example:
        >>> tail(memoryview(Path("model.onnx").read_bytes()), "output").op_type
        'ArgMax'

    Args:
        model: the content of an `.onnx` file.
        output: name of the output.
    """
    made_by: dict[str, tuple[str, str]] = {}
    try:
        graphs = [value for number, _, value in fields(model) if number == GRAPH]
        for graph in graphs:
            for number, _, node in fields(graph):
                if number == NODE:
                    made_by |= _outputs(node)
    except (ValueError, IndexError):
        return Tail("", "")
    for _ in range(len(made_by) + 1):
        if output not in made_by:
            break
        op_type, first = made_by[output]
        if op_type not in _NEUTRAL:
            return Tail(op_type, first)
        output = first
    return Tail("", "")


def is_quantised(file: Path) -> bool:
    """Whether a network is quantised: it rounds tensors to 8 bits, as `segrt quantize` writes it.

    Weights alone that are stored in 8 bits don't count: the arithmetic is that of floats.

    Example:
        >>> is_quantised(Path("model.int8.onnx"))
        True

    Args:
        file: an `.onnx` file; a damaged one is not quantised.
    """
    with file.open("rb") as opened:
        if not opened.seek(0, 2):
            return False
        # Not closed here: an error's traceback may still refer to parts of it.
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        graphs = [value for number, _, value in fields(memoryview(data)) if number == GRAPH]
        nodes = (value for graph in graphs for number, _, value in fields(graph) if number == NODE)
        # Most nodes need no closer look, which halves the time.
        likely = (node for node in nodes if _QUANTIZE in bytes(node))
        return any(
            number == _OP_TYPE and value == _QUANTIZE
            for node in likely
            for number, _, value in fields(node)
        )
    except (ValueError, IndexError):
        return False


def _outputs(node: memoryview) -> dict[str, tuple[str, str]]:
    op_type, inputs, outputs = "", list[str](), list[str]()
    for number, _, value in fields(node):
        if number == _OP_TYPE:
            op_type = bytes(value).decode()
        elif number == _INPUT:
            inputs.append(bytes(value).decode())
        elif number == _OUTPUT:
            outputs.append(bytes(value).decode())
    return dict.fromkeys(outputs, (op_type, inputs[0] if inputs else ""))
