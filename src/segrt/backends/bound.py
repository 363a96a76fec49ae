"""Runs with tensors in the memory of a GPU, new ones for each run or kept for a CUDA graph."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segrt.backends import catalog


class Place(NamedTuple):
    """What to bind, and where.

    Attributes:
        input: name of the input.
        output: name of the output.
        device: ONNX Runtime's name of the device: "cuda" or "cpu".
        device_id: device index.
    """

    input: str
    output: str
    device: str
    device_id: int


def run(session: Any, batch: npt.NDArray[Any], place: Place) -> npt.NDArray[Any]:
    """Run a session: one copy to the GPU, one back, and no other outputs of the graph.

    Example:
        >>> logits = run(session, batch, Place("x", "logits", "cuda", 0))
    """
    tensor = catalog.onnxruntime().OrtValue.ortvalue_from_numpy(
        batch, place.device, place.device_id
    )
    binding = _bind(session, tensor, place)
    session.run_with_iobinding(binding)
    output: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return output


class Captured:
    """A session that records its first run as a CUDA graph, and replays it from then on.

    A replay reads and writes the same addresses as the recorded run, so the tensors are kept, and
    runs wait for each other. See
    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html.

    Example:
        >>> captured = Captured(session)
        >>> logits = captured.run(batch, Place("x", "logits", "cuda", 0))

    Args:
        session: a session for one input shape, with a provider option of
            `segrt.backends.plan.CUDA_GRAPH_OPTIONS`.
    """

    def __init__(self, session: Any) -> None:
        self._session, self._lock = session, Lock()
        self._bound: tuple[Any, Any] | None = None

    def run(self, batch: npt.NDArray[Any], place: Place) -> npt.NDArray[Any]:
        """Like the function `run`, for a batch of the same shape and the same place each time."""
        with self._lock:
            if self._bound is None:
                value = catalog.onnxruntime().OrtValue
                tensor = value.ortvalue_from_shape_and_type(
                    batch.shape, batch.dtype, place.device, place.device_id
                )
                self._bound = _bind(self._session, tensor, place), tensor
            binding, tensor = self._bound
            tensor.update_inplace(np.ascontiguousarray(batch))
            self._session.run_with_iobinding(binding)
            output: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
            return output


def _bind(session: Any, tensor: Any, place: Place) -> Any:
    binding = session.io_binding()
    binding.bind_ortvalue_input(place.input, tensor)
    # The first run allocates the output, which later runs of the binding overwrite.
    binding.bind_output(place.output, place.device, place.device_id)
    return binding
