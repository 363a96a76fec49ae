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
from segrt.description import Description, Given, describe
from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt.network import first_line, prepare, standard
from segrt.postprocess import labels_from_logits, resize_labels
from segrt_export.graph import prune
from segrt_export.requirements import require

OPSETS = range(14, 20)
"""The operator sets for which the passes are written; others are converted to `OPSET`."""
OPSET = 17

_LAYOUT_NAMES = {"end2end", "inference", "model", "onnx"}
"""Names that exporters give to every file, or to its folder."""


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
    def open(
        cls, file: Path, config: Path | None = None, bands: tuple[str, ...] | None = None
    ) -> OnnxModel:
        """Find out what a model needs and gives.

        Args:
            file: the `.onnx` file.
            config: a configuration to use instead of those next to the file.
            bands: the names of the input's channels, for a network that takes bands; None for
                those of the configuration.

        Raises:
            ExportError: nothing says how images are prepared, or the model was exported by segrt.
            ModelError: segrt can't run the model, or its configurations contradict each other.
            MissingExtraError: onnxruntime is not installed.
        """
        require("onnxruntime")
        external_data.check(file)
        session = load_session(file)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text:
            raise ExportError(f"{file} comes from segrt-export: export the original again")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        described = describe(file, inputs, outputs, None, Given(bands=bands), config)
        node = described.input
        pictures = node.channels == 3 or described.meta.bands
        if node.channels_last or not pictures or np.dtype(node.dtype) != np.float32:
            raise ExportError(
                f"{file} takes {np.dtype(node.dtype)}, channels"
                f" {'last' if node.channels_last else 'first'}: {node.channels}. segrt-export takes"
                " float32, N x 3 x H x W, or bands; segrt runs this file as it is"
            )
        if described.output.channels_last:
            raise ExportError(
                f"{file} gives N x h x w x C: segrt-export takes N x C x h x w; segrt runs this"
                " file as it is"
            )
        if described.origins["transforms"] == "default":
            raise ExportError(
                f"{file} does not say how images are prepared: put its configuration next to it, or"
                " specify one with --config"
            )
        name = described.meta.name
        if described.origins["name"] == "the file name" and name.lower() in _LAYOUT_NAMES:
            folders = (folder.name for folder in file.resolve().parents)
            name = next((n for n in folders if n and n.lower() not in _LAYOUT_NAMES), name)
        return cls(file, name, described)

    @property
    def run_name(self) -> str:
        """The name of its folder, for files of one name."""
        return self.file.resolve().parent.name

    @property
    def meta(self) -> ModelMeta:
        """What the exported file states; names that nobody gave are left out."""
        meta = self.description.meta.model_copy(update={"name": self.name})
        named = self.description.origins["class_names"] != "default"
        return meta if named else meta.model_copy(update={"class_names": ()})

    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the file."""
        return {self.file.name: files.sha256(self.file)}

    def load(self) -> ModelProto:
        """The model, with the one output that becomes labels, as float32 or integers.

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
                    f" it with opset {OPSET} ({first_line(error)})"
                ) from None
        graph, output = model.graph, self.description.output
        kept = [out for out in graph.output if out.name == output.name]
        del graph.output[:]
        graph.output.extend(kept)
        _as_float(model)
        prune(graph)
        return model


def open_exported(file: Path) -> Description:
    """What is known of a model that segrt-export wrote.

    Raises:
        ExportError: it can't be loaded, or does not come from segrt-export.
    """
    external_data.check(file)
    session = load_session(file)
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if not text:
        raise ExportError(
            f"{file} does not come from segrt-export: run  segrt-export {file}  first"
        )
    return describe(file, session.get_inputs(), session.get_outputs(), text)


def load_session(file: Path) -> Any:
    """Load an `.onnx` file on the CPU.

    Raises:
        ExportError: ONNX Runtime can't load it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own class per status code
        raise ExportError(f"{file} can't be loaded: {first_line(error)}") from None


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

        self.name = f"{source.file.name} on ONNX Runtime {ort.__version__}"
        self._source = source
        self._session = load_session(source.file)

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


def _as_float(model: ModelProto) -> None:
    """Give a float16 or float64 output the type float32, which metadata stand for; in place."""
    out = model.graph.output[0]
    if out.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        name = f"{out.name}.float32"
        model.graph.node.append(
            helper.make_node("Cast", [out.name], [name], name=name, to=TensorProto.FLOAT)
        )
        out.name, out.type.tensor_type.elem_type = name, TensorProto.FLOAT
