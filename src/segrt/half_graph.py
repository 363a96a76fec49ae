"""Models whose weights and arithmetic are float16, for plans that run half precision on CUDA.

TensorRT rounds weights itself; CUDA computes in the types of the graph. Files store what all other
plans need, float32, so the graph is converted when it is loaded, by the converter that comes with
ONNX Runtime. It requires the package `onnx`, part of the extra `gpu`.

What stays float32:

- the input and the output, so that nothing changes for the caller;
- what is computed from the sizes of tensors rather than from pixels, such as the scales of a Resize
  or the bins of a pooling: with its 11 significant bits, float16 counts no further than 2,048;
- the operators without a float16 kernel, which ONNX Runtime lists.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read(file: Path) -> bytes:
    """Read an `.onnx` file as a model that computes in float16.

    Example:
        >>> session = onnxruntime.InferenceSession(half_graph.read(Path("model.onnx")))

    Returns:
        bytes: an ONNX model, complete without other files, with the inputs, outputs and metadata of
            the file.

    Raises:
        ImportError: the package `onnx` is not installed.
        Exception: the model can't be converted; the converter's errors have no common type.
    """
    import onnx

    with import_path():
        from onnxruntime.transformers import float16
    model = onnx.load(str(file))
    _drop_empty_inputs(model.graph)
    for number, node in enumerate(model.graph.node):
        node.name = f"node {number}"  # the converter refers to nodes by name
    half = float16.convert_float_to_float16(
        model, keep_io_types=True, node_block_list=_from_sizes(model.graph)
    )
    data: bytes = half.SerializeToString()
    return data


@contextmanager
def import_path() -> Iterator[None]:
    """Import modules of ONNX Runtime that need `onnxruntime.transformers`.

    That package adds its own folder to the module path when it is imported first, and its modules
    rely on that. The folder has modules with names such as `models`, so it does not stay there.
    """
    import onnxruntime

    path = [*sys.path]
    sys.path.append(str(Path(onnxruntime.__file__).parent / "transformers"))
    try:
        yield
    finally:
        sys.path[:] = path


def _drop_empty_inputs(graph: Any) -> None:
    """Leave out the inputs of Resize nodes that are constants without elements.

    They mean the same, but ONNX Runtime no longer recognises them once they are cast.
    """
    empty = {tensor.name for tensor in graph.initializer if not math.prod(tensor.dims)}
    for node in graph.node:
        if node.op_type == "Resize":
            node.input[:] = ["" if name in empty else name for name in node.input]


def _from_sizes(graph: Any) -> list[str]:
    """The names of the nodes that compute with constants and the sizes of tensors alone."""
    pixels = {tensor.name for tensor in graph.input}
    names = []
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and not pixels.isdisjoint(node.input):
            pixels.update(node.output)
        else:
            names.append(node.name)
    return names
