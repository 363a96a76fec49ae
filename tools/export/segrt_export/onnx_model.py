"""An ONNX model of another exporter, such as optimum, mmdeploy or torch.onnx, to be optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, version_converter

from segrt import external_data, files
from segrt.description import NOTHING, Description, describe
from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt.network import prepare, standard
from segrt.postprocess import labels_from_logits, resize_labels
from segrt_export.graph import prune
from segrt_export.requirements import require

OPSETS = range(14, 20)
"""The operator sets for which the passes are written; others are converted to `OPSET`."""
OPSET = 17


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model, with what is known of it.

    Example:
        >>> OnnxModel.open(Path("segformer/model.onnx")).description.meta.class_names

    Attributes:
        file: the `.onnx` file.
        name: name of the model and of its exported file.
        description: as found when it was opened.
    """

    file: Path
    name: str
    description: Description

    @classmethod
    def open(cls, file: Path, config: Path | None = None) -> OnnxModel:
        """Find out what a model needs and gives.

        Args:
            file: the `.onnx` file.
            config: a configuration to use instead of those next to the file.

        Raises:
            ExportError: nothing says how images are prepared, or the model was exported by segrt.
            ModelError: segrt can't run the model, or its configurations contradict each other.
            MissingExtraError: onnxruntime is not installed.
        """
        require("onnxruntime")
        import onnxruntime as ort

        external_data.check(file)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has its own class per status code
            raise ExportError(f"{file} can't be loaded: {str(error).splitlines()[0]}") from None
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text:
            raise ExportError(f"{file} comes from segrt-export: export the original again")
        described = describe(
            file, session.get_inputs(), session.get_outputs(), None, NOTHING, config
        )
        if described.origins["transforms"] == "default":
            raise ExportError(
                f"{file} does not say how images are prepared: put its configuration next to it, or"
                " specify one with --config"
            )
        return cls(file, described.meta.name, described)

    @property
    def meta(self) -> ModelMeta:
        """What the exported file states; names that nobody gave are left out."""
        meta = self.description.meta
        named = self.description.origins["class_names"] != "default"
        return meta if named else meta.model_copy(update={"class_names": ()})

    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the file."""
        return {self.file.name: files.sha256(self.file)}

    def load(self) -> ModelProto:
        """The model, with the one output that becomes labels, and channels first.

        Raises:
            ExportError: its operator set can't be converted.
        """
        model = onnx.load(str(self.file))
        own = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if own not in OPSETS:
            try:
                model = version_converter.convert_version(model, OPSET)
            except Exception as error:  # of various types
                raise ExportError(
                    f"{self.file} has operator set {own}, and can't be converted to {OPSET}: export"
                    f" it with opset {OPSET} ({str(error).splitlines()[0]})"
                ) from None
        graph, output = model.graph, self.description.output
        if output.channels_last or self.description.input.channels_last:
            raise ExportError(
                f"{self.file} has its channels last: export it with N x C x H x W, or use it as it"
                " is with segrt"
            )
        kept = [out for out in graph.output if out.name == output.name]
        del graph.output[:]
        graph.output.extend(kept)
        prune(graph)
        return model


class OnnxReference:
    """The original model on ONNX Runtime's CPU provider.

    Example:
        >>> labels, logits = OnnxReference(model).run(np.zeros((1, 3, 64, 96), np.float32))

    Attributes:
        name: what the labels are compared with, for reports.
    """

    onednn = False

    def __init__(self, source: OnnxModel) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.name = f"{source.file.name} on ONNX Runtime {ort.__version__}"
        self._source = source
        self._session = ort.InferenceSession(
            str(source.file), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self, batch: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        """Run a batch, float32 (N, C, H, W): labels at the size of the batch, and logits if any."""
        described = self._source.description
        feed: Mapping[str, Any] = {described.input.name: prepare(batch, described.input)}
        raw = self._session.run([described.output.name], feed)[0]
        form, size = described.meta.output, (batch.shape[2], batch.shape[3])
        output = standard(raw, described.output, form)
        if form == "labels":
            return resize_labels(output, size), None
        return labels_from_logits(output, size)[0], raw if form == "logits" else None


def as_float(model: ModelProto) -> None:
    """Give a float16 or float64 output the type float32, which metadata stand for; in place."""
    out = model.graph.output[0]
    if out.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        name = f"{out.name}.float32"
        model.graph.node.append(
            helper.make_node("Cast", [out.name], [name], name=name, to=TensorProto.FLOAT)
        )
        out.name, out.type.tensor_type.elem_type = name, TensorProto.FLOAT
