"""As much of the protocol buffer wire format as `.onnx` files need, without the `onnx` package.

See https://protobuf.dev/programming-guides/encoding/. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}  # wire type: bytes of the value


def mapped(file: Path) -> memoryview:
    """The content of a file, mapped into memory.

    Raises:
        OSError: the file can't be read.
    """
    with file.open("rb") as opened:
        if not opened.seek(0, 2):
            return memoryview(b"")  # an empty file can't be mapped
        # Never closed: an error's traceback may still refer to parts of it.
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield the number, all bytes and the value of each field of a message.

    Example:
        >>> [(number, bytes(value)) for number, _, value in fields(memoryview(field(7, b"ab")))]
        [(7, b'ab')]

    Raises:
        ValueError: the message is damaged.
        IndexError: the message is truncated.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, at = _varint(message, at)
            end = at + length
        elif kind == 0:
            _, end = _varint(message, at)
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            raise ValueError(f"unknown wire type {kind}")
        if end > len(message):
            raise IndexError("the message ends inside a field")
        yield tag >> 3, message[start:end], message[at:end]
        at = end


def field(number: int, value: bytes) -> bytes:
    """Encode a field with a value of variable length: a text, bytes or another message."""
    return head(number, len(value)) + value


def head(number: int, length: int) -> bytes:
    """Encode what precedes a value of `length` bytes."""
    return encode(number << 3 | LENGTH_DELIMITED) + encode(length)


def encode(number: int) -> bytes:
    """Encode a number as a varint."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Decode a varint; returns the number and the offset after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a varint of more than 64 bits")
