"""Tensors of `.onnx` files whose data is in another file.

A model can name any file of the machine as the data of a weight, and labels would spell its
content. Recent versions of ONNX Runtime refuse files outside the model's folder, but 1.23 reads
them, and a model passed as bytes has no folder: its paths are relative to the current directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segrt.errors import ModelError
from segrt.protobuf import fields, mapped

# The fields of each message that lead to tensors: number to type of message, from onnx.proto.
_PATHS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "external_data"},
}
_LARGE = 1 << 16
"""Bytes from which on a message is parsed rather than searched."""

_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_IN_MEMORY = "_MEM_ADDR_"  # ONNX Runtime takes such "files" for addresses in its own memory


def check(file: Path) -> None:
    """Refuse a model that reads files outside its folder.

    Example:
        >>> external_data.check(Path("model.onnx"))

    Raises:
        ModelError: the file can't be read, is damaged, or names a file outside its folder.
    """
    try:
        model = mapped(file)
        named = set(locations(model))
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}") from None
    except (ValueError, IndexError):
        raise damaged(file) from None
    if not model:
        raise damaged(file)
    for location in named:
        if problem := _problem(location, file):
            raise ModelError(f"{file} takes weights from {location!r:.200}, {problem}")


def damaged(file: Path) -> ModelError:
    """The error for a file that is not an ONNX model, or only the beginning of one.

    Example:
        >>> raise damaged(Path("model.onnx"))
    """
    return ModelError(
        f"{file} can't be loaded: it is not an ONNX model, or it is truncated or damaged: "
        f"{file.stat().st_size} bytes; download it again"
    )


def locations(model: memoryview) -> Iterator[str]:
    """Yield the paths in a model at which ONNX Runtime would read weights.

    Args:
        model: the content of an `.onnx` file.

    Raises:
        ValueError: the model is damaged.
        IndexError: it is truncated.
    """
    messages = [("ModelProto", model)]
    while messages:
        kind, message = messages.pop()
        for number, _, value in fields(message):
            inner = _PATHS[kind].get(number)
            if inner == "external_data":
                entry = {key: text for key, _, text in fields(value)}
                if bytes(entry.get(_KEY, b"")) == b"location":
                    yield bytes(entry.get(_VALUE, b"")).decode()
            # Parsing every node would take a quarter of the time that loading the model takes.
            elif inner and (len(value) > _LARGE or b"location" in bytes(value)):
                messages.append((inner, value))


def _problem(location: str, file: Path) -> str:
    """Why a model must not read the file it names; empty if it may."""
    outside = "which is not in the folder of the model: segrt reads no other files"
    try:
        target = (file.parent / location).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, or links that form a loop
        return outside
    # Download caches store models as links: the weights may be beside the link, or its target.
    folders = {file.parent.resolve(), file.resolve().parent}
    if _IN_MEMORY in location or folders.isdisjoint(target.parents):
        return outside
    return "" if target.is_file() else "which does not exist"
