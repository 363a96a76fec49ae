"""Proves an exported model equal to Paddle: the share of pixels that get the same label from both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import sources
from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt.postprocess import labels_from_logits, resize_labels
from segrt.preprocess import Transforms
from segrt_export.convert import require
from segrt_export.program import PaddleModel, add_logits_output, paddle3_program

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

AWKWARD_SIZES = ((333, 517), (97, 211), (720, 960))
"""(height, width): odd, small, and not a multiple of the deepest stride."""
SAMPLE = Path(sources.__file__).with_name("models") / "sample.png"
THRESHOLD = 0.999
"""Least share of equal labels in each case. Exact passes reach 1.0 but for ties of the last float32 bit."""


class PaddleReference:
    """A Paddle Inference predictor for one model, on the CPU.

    Args:
        source: the model.
        work: a folder for a program that also returns the network's logits.
        threads: as for `paddle.inference.Config.set_cpu_math_library_num_threads`.
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
            tuple: labels, int32 (N, H, W); and the network's logits, float32 (N, C, h, w), where the program has them.
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
    """Keep Paddle's native chatter off the console: it writes to the file descriptors themselves."""
    with open(os.devnull, "wb") as nowhere, ExitStack() as restore:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            restore.callback(os.close, saved)  # callbacks run last first
            restore.callback(os.dup2, saved, descriptor)
            os.dup2(nowhere.fileno(), descriptor)
        yield


def compare(
    source: PaddleModel,
    graphs: Mapping[str, bytes],
    work: Path,
    images: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, dict[str, Any]]:
    """Compare an exported model with Paddle Inference on real images, at their own and at awkward sizes.

    Args:
        source: the Paddle model.
        graphs: the exported model, in each form that a plan may run, by a name of it.
        work: a folder for temporary files.
        images: photos; without any, the sample image that comes with segrt.
        sizes: (height, width) to which the first of them is resized for further cases.

    Returns:
        dict: a report by the name of each graph: `cases`, each with size, pixels, `agreement` (share of equal labels)
        and `max_logit_diff` (where both have logits of one size); and `agreement` over all pixels.

    Raises:
        ExportError: a case is below `THRESHOLD`.
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
            f"{model}: the exported model agrees with Paddle on {worst['agreement']:.4%} of the pixels of "
            f"{worst['case']}, less than {THRESHOLD:.1%}; nothing was written"
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
    """Named lists of BGR images, uint8 (H, W, 3), each list of one size: a batch."""
    files = images or [SAMPLE]
    for file in files:
        yield file.name, [_bgr(Image.open(file))]
    first = Image.open(files[0])
    for height, width in sizes:
        yield (
            f"{files[0].name} at {height}x{width}",
            [_bgr(first.resize((width, height), Image.Resampling.BILINEAR))],
        )
    three = [
        Image.open(file).resize((480, 352), Image.Resampling.BILINEAR) for file in (files * 3)[:3]
    ]
    yield "a batch of 3", [_bgr(image) for image in three]


def _bgr(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)[:, :, ::-1])
