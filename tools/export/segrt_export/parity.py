"""Parity reports: the share of pixels to which an exported model and Paddle assign one label."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt.postprocess import labels_from_logits, resize_labels
from segrt.preprocess import Transforms
from segrt_export.program import PaddleModel, add_logits_output, paddle3_program
from segrt_export.requirements import require

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

AWKWARD_SIZES = ((333, 517), (97, 211), (720, 960))
"""(height, width): odd, small, and not a multiple of the largest stride."""
SAMPLE = Path(str(files("segrt") / "models" / "sample.png"))
"""The sample image of the package, a street scene."""
THRESHOLD = 0.999
"""Minimum share of equal labels in each case. Exact passes reach 1.0, except for logits that differ
only in the last bit of float32."""


class PaddleReference:
    """A Paddle Inference predictor on the CPU.

    Example:
        >>> reference = PaddleReference(PaddleModel.open(Path("my_model")), Path("work"))
        >>> labels, logits = reference.run(np.zeros((1, 3, 64, 96), np.float32))

    Args:
        source: the model.
        work: existing folder for the modified program, which is needed only during construction.
        threads: number of CPU threads.
        logits: also return the network's logits, if the program computes them.

    Raises:
        MissingExtraError: paddlepaddle is not installed.
    """

    def __init__(
        self, source: PaddleModel, work: Path, *, threads: int = 2, logits: bool = True
    ) -> None:
        require("paddle")
        with _quiet():
            from paddle import inference

        program, params = paddle3_program(source, work)
        self.has_logits = logits and add_logits_output(program)
        file = work / "reference.json"
        file.write_text(json.dumps(program), "utf-8")
        config = inference.Config(str(file), str(params))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        if version("paddlepaddle").startswith("3.2."):
            config.enable_mkldnn()
        else:  # oneDNN raises NotImplementedError on these models in 3.3
            config.disable_mkldnn()
        with _quiet():
            self.predictor = inference.create_predictor(config)

    def run(self, batch: Floats) -> tuple[Labels, Floats | None]:
        """Run a batch, float32 (N, 3, H, W).

        Returns:
            tuple: labels, int32 (N, H, W), and the network's logits, float32 (N, C, h, w), or None.
        """
        self.predictor.get_input_handle(self.predictor.get_input_names()[0]).copy_from_cpu(batch)
        with _quiet():
            self.predictor.run()
        outputs = [
            self.predictor.get_output_handle(name).copy_to_cpu()
            for name in self.predictor.get_output_names()
        ]
        labels: Labels = outputs[0].reshape(-1, *batch.shape[2:]).astype(np.int32)
        return labels, outputs[1] if self.has_logits else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of Paddle's native code, which writes to the file descriptors."""
    with open(os.devnull, "wb") as null, ExitStack() as restore:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            restore.callback(os.close, saved)  # callbacks run last first
            restore.callback(os.dup2, saved, descriptor)
            os.dup2(null.fileno(), descriptor)
        yield


def compare(
    source: PaddleModel,
    graphs: Mapping[str, bytes],
    work: Path,
    images: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, dict[str, Any]]:
    """Compare an exported model with Paddle Inference on images of several sizes.

    Args:
        source: the Paddle model.
        graphs: the serialized ONNX models to compare, by report key.
        work: folder for temporary files.
        images: photos; by default the sample image of the package.
        sizes: (height, width) of further cases, to which the first image is resized.

    Returns:
        dict: one report for each of `graphs`. It contains `agreement`, the share of equal labels
        over all pixels, and `cases`, each with its shape, pixels, `agreement` and, if both models
        return logits of the same size, `max_logit_diff`.

    Raises:
        ExportError: the agreement of a case is below `THRESHOLD`.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        name: ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for name, graph in graphs.items()
    }
    first = next(iter(sessions.values()))
    meta = ModelMeta.loads(first.get_modelmeta().custom_metadata_map[KEY], file=source.name)
    transforms = Transforms.parse(list(meta.transforms))
    reference = PaddleReference(source, work)
    cases: dict[str, list[dict[str, Any]]] = {graph: [] for graph in graphs}
    for name, photos in _cases(list(images), sizes):
        batch = np.empty((len(photos), 3, *photos[0].shape[:2]), np.float32)
        for slot, photo in zip(batch, photos, strict=True):
            transforms.write(photo, out=slot)
        theirs, their_logits = reference.run(batch)
        for graph, session in sessions.items():
            output = session.run(None, {session.get_inputs()[0].name: batch})[0]
            ours = _labels(output, meta, (batch.shape[2], batch.shape[3]))
            agreement = float((ours == theirs).mean())
            case = {
                "case": name,
                "shape": list(batch.shape),
                "pixels": ours.size,
                "agreement": agreement,
            }
            if their_logits is not None and their_logits.shape == output.shape:
                case["max_logit_diff"] = float(np.abs(their_logits - output).max())
            cases[graph].append(case)
    return {graph: _report(source.name, found, ort.__version__) for graph, found in cases.items()}


def _report(model: str, cases: list[dict[str, Any]], runtime: str) -> dict[str, Any]:
    worst = min(cases, key=lambda c: float(c["agreement"]))
    if worst["agreement"] < THRESHOLD:
        raise ExportError(
            f"{model}: the exported model agrees with Paddle on {worst['agreement']:.4%} of the"
            f" pixels of {worst['case']}, less than {THRESHOLD:.1%}; nothing was written"
        )
    return {
        "reference": f"Paddle Inference {version('paddlepaddle')}",
        "runtime": f"onnxruntime {runtime}",
        "agreement": float(
            np.average([c["agreement"] for c in cases], weights=[c["pixels"] for c in cases])
        ),
        "worst": worst["agreement"],
        "cases": cases,
    }


def _labels(output: npt.NDArray[Any], meta: ModelMeta, size: tuple[int, int]) -> Labels:
    if meta.output == "labels":
        return resize_labels(output, size)
    align_corners = meta.upsample.align_corners if meta.upsample else False
    return labels_from_logits(output, size, align_corners=align_corners)[0]


def _cases(
    images: list[Path], sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, list[npt.NDArray[np.uint8]]]]:
    """Batches with their names; a batch is a list of BGR images, uint8 (H, W, 3), of one size."""
    images = images or [SAMPLE]
    for file in images:
        yield file.name, [_bgr(Image.open(file))]
    for height, width in sizes:
        yield f"{images[0].name} at {height}x{width}", [_resized(images[0], height, width)]
    yield "a batch of 3", [_resized(file, 352, 480) for file in (images * 3)[:3]]


def _resized(file: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    return _bgr(Image.open(file).resize((width, height), Image.Resampling.BILINEAR))


def _bgr(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)[:, :, ::-1])
