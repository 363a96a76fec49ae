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
import mmap
from collections.abc import Iterator
from pathlib import Path

KEY = "segrt.float32"
"""Metadata key of the second graph; the value is an ONNX model in base64."""

# Field numbers, from onnx.proto.
_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER = 5  # of GraphProto
_ENTRY_KEY, _ENTRY_VALUE = 1, 2  # of StringStringEntryProto
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}  # wire type: bytes of the value


def read(file: Path) -> bytes | None:
    """Read the model with the second graph from an `.onnx` file.

    Example:
        >>> if model := second_graph.read(Path("model.onnx")):
        ...     session = onnxruntime.InferenceSession(model)

    Returns:
        bytes: an ONNX model. None if the file has no second graph, or is damaged; ONNX Runtime then
            reports the damage.
    """
    with file.open("rb") as opened:
        if not opened.seek(0, 2):
            return None
        with (
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            return assemble(view)


def assemble(model: memoryview) -> bytes | None:
    """Like `read`, for the contents of an `.onnx` file."""
    try:
        fields = list(_fields(model))
        text = next(
            (
                text
                for number, _, entry in fields
                if number == _METADATA and (text := _value(entry))
            ),
            None,
        )
        graphs = [value for number, _, value in fields if number == _GRAPH]
        if text is None or len(graphs) != 1:
            return None
        weights = [whole for number, whole, _ in _fields(graphs[0]) if number == _INITIALIZER]
        head = _varint(_GRAPH << 3 | _LENGTH_DELIMITED) + _varint(sum(map(len, weights)))
        return b"".join([base64.b64decode(text, validate=True), head, *weights])
    except (ValueError, IndexError):
        return None


def _value(entry: memoryview) -> memoryview | None:
    """The value of a metadata entry if its key is `KEY`."""
    parts = {number: value for number, _, value in _fields(entry)}
    return parts.get(_ENTRY_VALUE) if bytes(parts.get(_ENTRY_KEY, b"")) == KEY.encode() else None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield the number, all bytes and the value of each field of a message.

    Raises:
        ValueError: the message is damaged.
        IndexError: the message is truncated.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = _number(message, at)
            end = at + length
        elif kind == 0:
            _, end = _number(message, at)
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            raise ValueError(f"unknown wire type {kind}")
        if end > len(message):
            raise IndexError("the message ends inside a field")
        yield tag >> 3, message[start:end], message[at:end]
        at = end


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Decode a varint; returns the number and the offset after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a varint of more than 64 bits")


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
