"""The second graph of an exported `.onnx` file, for plans that compute in float32 on the CPU.

Some rewrites save a lot of arithmetic but need the precision of float32, or duplicate what GPU
libraries do anyway. To let one file serve all plans, `segrt-export` stores the graph with those
rewrites in the file's metadata, without the weights that both graphs share.

ONNX files are protocol buffers, and concatenating two messages merges them
(https://protobuf.dev/programming-guides/encoding/#last-one-wins), so the stored graph followed by
the file's weights is a complete model. This module reads only as much of the format as that
requires, because running models does not need the `onnx` package.
"""

from __future__ import annotations

import base64
from pathlib import Path

from segrt import external_data
from segrt.errors import ModelError
from segrt.protobuf import fields, head, mapped

KEY = "segrt.float32"
"""Metadata key of the second graph; the value is an ONNX model in base64."""

# Field numbers, from onnx.proto.
_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # of StringStringEntryProto


def read(file: Path) -> bytes | None:
    """Read the model with the second graph from an `.onnx` file.

    Example:
        >>> if model := second_graph.read(Path("model.onnx")):
        ...     session = onnxruntime.InferenceSession(model)

    Returns:
        bytes: an ONNX model, complete without other files. None if the file has no second graph, is
            damaged (ONNX Runtime then reports the damage), or keeps its weights in other files.

    Raises:
        ModelError: the second graph is damaged, or refers to other files.
    """
    return assemble(mapped(file), str(file))


def exists(file: Path) -> bool:
    """Whether an `.onnx` file has a second graph, without putting it together.

    Raises:
        ModelError: see `read`.
    """
    return _parts(mapped(file), str(file)) is not None


def assemble(model: memoryview, name: str = "the model") -> bytes | None:
    """Like `read`, for the contents of an `.onnx` file, called `name` in error messages."""
    parts = _parts(model, name)
    if parts is None:
        return None
    graph, weights = parts
    whole = b"".join([graph, head(_GRAPH, sum(map(len, weights))), *weights])
    # Given to ONNX Runtime as bytes, the model has no folder to look for other files in.
    return None if [*external_data.locations(memoryview(whole))] else whole


def _parts(model: memoryview, name: str) -> tuple[bytes, list[memoryview]] | None:
    """The second graph, and the weights of the file."""
    try:
        parts = list(fields(model))
        texts = (_value(entry) for number, _, entry in parts if number == _METADATA)
        text = next(filter(None, texts), None)
        graphs = [value for number, _, value in parts if number == _GRAPH]
        if text is None or len(graphs) != 1:
            return None
        weights = [whole for number, whole, _ in fields(graphs[0]) if number == _INITIALIZER]
    except (ValueError, IndexError):
        return None
    return _decode(text, name), weights


def _decode(text: memoryview, name: str) -> bytes:
    """The model stored as `text`, if it is sound."""
    try:
        graph = base64.b64decode(text, validate=True)
        others = sorted(external_data.locations(memoryview(graph)))
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{name} can't be loaded: its second graph ({KEY}) is damaged ({error}); export it "
            "again"
        ) from None
    if others:
        raise ModelError(
            f"{name} can't be loaded: its second graph ({KEY}) takes weights from "
            f"{others[0]!r:.200}, and only the file itself may hold them"
        )
    return graph


def _value(entry: memoryview) -> memoryview | None:
    """The value of a metadata entry if its key is `KEY`."""
    parts = {number: value for number, _, value in fields(entry)}
    return parts.get(_ENTRY_VALUE) if bytes(parts.get(_ENTRY_KEY, b"")) == KEY.encode() else None
