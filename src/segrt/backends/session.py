"""A Plan and an `.onnx` file become a running session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segrt.backends.plan import Plan, plan
from segrt.errors import DeviceError, MissingExtraError, ModelError
from segrt.metadata import KEY, ModelMeta
from segrt.types import Device, Mode


def onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: no wheel of it is installed, or it can't load.
    """
    try:
        import onnxruntime as ort

        ort.get_available_providers  # noqa: B018  half-removed wheels leave an empty module behind
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(f"ONNX Runtime is not usable ({error}): run  pip install 'segrt[cpu]'") from None
    return ort


class Session:
    """One model on one execution provider. `run` may be called from several threads.

    Attributes:
        meta: what the model says of itself.
        plan: how it runs.
        provider: the provider that really runs it, read back from ONNX Runtime.
        precision: the arithmetic that it runs in.
    """

    def __init__(self, file: Path, *, device: Device | None = None, mode: Mode = Mode.NORMAL) -> None:
        """Load `file`.

        Raises:
            DeviceError: the device named can't run it.
            MissingExtraError: no ONNX Runtime is installed.
            ModelError: the file is missing, damaged, or not a model that maps one image to logits or labels.
        """
        ort = onnxruntime()
        self.plan: Plan = plan(device, mode, tuple(ort.get_available_providers()), _usable_cores())
        if not file.is_file():
            raise ModelError(f"model file {file} does not exist")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.plan.threads
        try:
            self._session = ort.InferenceSession(str(file), options, providers=[self.plan.provider])
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise ModelError(f"{file} can't be loaded by ONNX Runtime: {_first_line(error)}") from None
        self.provider: str = self._session.get_providers()[0]
        self.precision = self.plan.precision
        if self.provider != self.plan.provider:
            raise DeviceError(f"{self.plan.provider} was asked for, but ONNX Runtime runs {self.provider}")
        self._input = _image_input(self._session, file)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.meta = ModelMeta.loads(text, file=str(file)) if text else _guess_meta(self._session, file)

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Run the network.

        Args:
            batch: float32 (N, 3, H, W), RGB, normalised.

        Returns:
            np.ndarray: logits, float32 (N, C, h, w), or labels, integers (N, H, W): see `meta.output`.

        Raises:
            ModelError: ONNX Runtime fails on this input.
        """
        try:
            output: npt.NDArray[Any] = self._session.run(None, {self._input: batch})[0]
        except Exception as error:
            shape = "x".join(map(str, batch.shape))
            raise ModelError(f"the model can't run on an input of {shape}: {_first_line(error)}") from None
        return output


def _image_input(session: Any, file: Path) -> str:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4 or len(outputs) < 1:
        raise ModelError(
            f"{file} is not a segmentation model that segrt can run: it must take one float32 tensor N x 3 x H x W"
        )
    name: str = inputs[0].name
    return name


def _guess_meta(session: Any, file: Path) -> ModelMeta:
    """For an `.onnx` file that segrt-export did not make: float output means logits, integers mean labels."""
    kind: Literal["logits", "labels"] = "logits" if "float" in session.get_outputs()[0].type else "labels"
    return ModelMeta(name=file.stem, output=kind)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
