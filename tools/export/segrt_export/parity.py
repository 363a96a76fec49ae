"""Parity reports: the share of pixels to which an exported and the original model assign one label.

The original is run by Paddle Inference, or by ONNX Runtime if it is an ONNX model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt.postprocess import labels_from_logits, resize_labels
from segrt.preprocess import Resize, Transforms
from segrt.sources import read_image
from segrt_export.convert import failure_reason
from segrt_export.onnx_model import OnnxModel, OnnxReference
from segrt_export.program import PaddleModel, add_logits_output, output_kind, paddle3_program
from segrt_export.requirements import require

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

AWKWARD_SIZES = ((333, 517), (97, 211), (720, 960))
"""(height, width): odd, small, and not a multiple of the largest stride."""
SAMPLE = Path(str(files("segrt") / "models" / "sample.png"))
"""The sample image of the package, a street scene."""
_RANDOM_SIZE = (360, 480)  # of the first case without photos
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
        onednn: whether to use oneDNN; by default with the versions of Paddle in which it works.

    Attributes:
        name: what runs the model, for reports.
        onednn: whether oneDNN is used.

    Raises:
        MissingExtraError: paddlepaddle is not installed.
    """

    def __init__(
        self,
        source: PaddleModel,
        work: Path,
        *,
        threads: int = 2,
        logits: bool = True,
        onednn: bool | None = None,
    ) -> None:
        require("paddle")
        with _quiet():
            from paddle import inference

        self.name = f"Paddle Inference {version('paddlepaddle')}"
        program, params = paddle3_program(source, work)
        self._kind = output_kind(program)
        self.has_logits = logits and add_logits_output(program)
        file = work / "reference.json"
        file.write_text(json.dumps(program), "utf-8")
        config = inference.Config(str(file), str(params))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        # In 3.3, oneDNN raises NotImplementedError on these models.
        works = version("paddlepaddle").startswith("3.2.")
        self.onednn = works if onednn is None else onednn
        if self.onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        with _quiet():
            self.predictor = inference.create_predictor(config)

    def run(self, batch: Floats) -> tuple[Labels, Floats | None]:
        """Run a batch, float32 (N, 3, H, W).

        Returns:
            tuple: labels, int32 (N, H, W), and the network's logits, float32 (N, C, h, w), or None.
            Labels are the program's own, or those with the largest logit or probability; with one
            channel, 1 where the logit is above 0 or the probability above 0.5.
        """
        self.predictor.get_input_handle(self.predictor.get_input_names()[0]).copy_from_cpu(batch)
        with _quiet():
            self.predictor.run()
        outputs = [
            self.predictor.get_output_handle(name).copy_to_cpu()
            for name in self.predictor.get_output_names()
        ]
        labels = self._labels(outputs[0], batch)
        if self.has_logits:
            return labels, outputs[1]
        return labels, outputs[0] if self._kind == "logits" else None

    def _labels(self, output: npt.NDArray[Any], batch: Floats) -> Labels:
        size = (batch.shape[2], batch.shape[3])
        if self._kind == "labels":
            labels: Labels = output.reshape(len(batch), *output.shape[-2:]).astype(np.int32)
            return labels if labels.shape[1:] == size else resize_labels(labels, size)
        output = output.reshape(len(batch), -1, *output.shape[-2:])
        if output.shape[2:] != size:
            return labels_from_logits(_two_classes(output, self._kind), size)[0]
        return np.asarray(_two_classes(output, self._kind).argmax(1), np.int32)


def _two_classes(output: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """Logits or probabilities whose largest channel is the label, also of a single channel."""
    if output.shape[1] != 1:
        return output
    threshold = 0.5 if kind == "probabilities" else 0.0
    return np.concatenate([np.full_like(output, threshold), output], axis=1)


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


@dataclass(frozen=True)
class Case:
    """Images that both models run.

    Attributes:
        name: what they are, for the report.
        photos: BGR images, uint8 (H, W, 3), of one size; or random values for a network that takes
            bands, float32 (H, W, C), normalised already.
    """

    name: str
    photos: list[npt.NDArray[Any]]

    def batch(self, transforms: Transforms) -> Floats:
        """The normalised images: float32 (N, C, H, W)."""
        if transforms.bands:
            return np.ascontiguousarray(np.stack(self.photos).transpose(0, 3, 1, 2), np.float32)
        return transforms.batch(self.photos)


def compare(
    source: PaddleModel | OnnxModel,
    graphs: Mapping[str, bytes],
    work: Path,
    images: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, dict[str, Any]]:
    """Compare an exported model with the original on images of several sizes.

    A model with a fixed height, width or batch size is compared at those. oneDNN computes some
    networks wrongly (PP-MobileSeg): if labels differ or Paddle fails, it runs again without it.

    Args:
        source: the original model.
        graphs: the serialized ONNX models to compare, by report key.
        work: folder for temporary files.
        images: photos; by default the sample image of the package. There are none for a network
            that takes bands: it is compared on random values.
        sizes: (height, width) of further cases, to which the first image is resized.

    Returns:
        dict: one report for each of `graphs`. It contains `reference`, the version of Paddle and
        whether it used oneDNN; `agreement`, the share of equal labels over all pixels; and `cases`,
        each with its shape, pixels, `agreement` and, if both models return logits of the same size,
        `max_logit_diff`, which does not decide. `refused` has Paddle's reason by name of each case
        that Paddle can't run, such as sizes that the network does not accept.

    Raises:
        ExportError: the agreement of a case is below `THRESHOLD`, or a model can't run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        name: ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for name, graph in graphs.items()
    }
    reference: PaddleReference | OnnxReference
    if isinstance(source, OnnxModel):
        reference = OnnxReference(source)
    else:
        reference = PaddleReference(source, work)
    found, refused = _compare(source, reference, sessions, images, sizes)
    again = reference.onednn and (refused or _worst(found)["agreement"] < THRESHOLD)
    if again and isinstance(source, PaddleModel):
        reference = PaddleReference(source, work, onednn=False)
        found, refused = _compare(source, reference, sessions, images, sizes)
    _check_worst(source.name, reference.name, _worst(found), refused)
    tools = {
        "reference": reference.name,
        "onednn": reference.onednn,
        "runtime": f"onnxruntime {ort.__version__}",
    }
    return {graph: tools | summary(cases, refused) for graph, cases in found.items()}


def _check_worst(
    model: str, reference: str, worst: Mapping[str, Any], refused: Mapping[str, str]
) -> None:
    """Refuse a model whose worst case is too bad, or that the reference can't run."""
    if not worst["case"]:
        raise ExportError(
            f"{reference} can't run the original model on any image, first because of"
            f" {next(iter(refused.values()))}"
        )
    if worst["agreement"] < THRESHOLD:
        raise ExportError(
            f"{model}: the exported model agrees with {reference} on"
            f" {worst['agreement']:.4%} of the pixels of {worst['case']}, less than"
            f" {THRESHOLD:.1%}; nothing was written"
        )


def _compare(
    source: PaddleModel | OnnxModel,
    reference: PaddleReference | OnnxReference,
    sessions: Mapping[str, Any],
    images: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The cases of each graph, and the reason by name of those that the original can't run."""
    first = next(iter(sessions.values()))
    meta = ModelMeta.loads(first.get_modelmeta().custom_metadata_map[KEY], file=source.name)
    transforms = Transforms.parse(list(meta.transforms), bands=meta.bands)
    cases: dict[str, list[dict[str, Any]]] = {graph: [] for graph in sessions}
    refused: dict[str, str] = {}
    for case in cases_for(list(images), sizes, first.get_inputs()[0].shape, meta.bands):
        batch = case.batch(transforms)
        try:
            theirs, their_logits = reference.run(batch)
        except Exception as error:  # Paddle's errors have no common type
            refused[case.name] = failure_reason(str(error))
            continue
        for graph, session in sessions.items():
            try:
                output = session.run(None, {session.get_inputs()[0].name: batch})[0]
            except Exception as error:  # nor have those of ONNX Runtime
                raise ExportError(
                    f"{source.name}: the exported model can't run {case.name}, unlike the original:"
                    f" {failure_reason(str(error))}"
                ) from None
            ours = labels_of(output, meta, (batch.shape[2], batch.shape[3]))
            entry = {
                "case": case.name,
                "shape": list(batch.shape),
                "pixels": ours.size,
                "agreement": float((ours == theirs).mean()),
            }
            if (
                meta.output == "logits"
                and their_logits is not None
                and their_logits.shape == output.shape
            ):
                entry["max_logit_diff"] = float(np.abs(their_logits - output).max())
            cases[graph].append(entry)
    return cases, refused


def _worst(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    cases = (case for cases in found.values() for case in cases)
    none: dict[str, Any] = {"case": "", "agreement": 0.0}
    return min(cases, key=lambda case: float(case["agreement"]), default=none)


def summary(
    cases: Sequence[Mapping[str, Any]], refused: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The report on compared cases: each has at least `agreement` and `pixels`."""
    report = {
        "agreement": float(
            np.average([c["agreement"] for c in cases], weights=[c["pixels"] for c in cases])
        ),
        "worst": min(c["agreement"] for c in cases),
        "cases": [*cases],
    }
    return report | ({"refused": dict(refused)} if refused else {})


def labels_of(output: npt.NDArray[Any], meta: ModelMeta, size: tuple[int, int]) -> Labels:
    """Labels of the `size` of the input, from the output of a network that segrt exported."""
    if meta.output == "labels":
        labels = output.reshape(len(output), *output.shape[-2:]).astype(np.int32)
        return resize_labels(labels, size)
    align_corners = meta.upsample.align_corners if meta.upsample else False
    scores = _two_classes(output, meta.output)
    return labels_from_logits(scores, size, align_corners=align_corners)[0]


def cases_for(
    images: list[Path],
    sizes: Sequence[tuple[int, int]],
    shape: Sequence[int | str],
    bands: Sequence[str] = (),
) -> Iterator[Case]:
    """The cases that a model with the input `shape` accepts; text stands for any number.

    Raises:
        ExportError: there are photos for a network that takes bands.
    """
    if bands and images:
        raise ExportError(
            f"the network takes bands ({', '.join(bands)}), and no photos: leave them out, and it"
            " is compared on random values"
        )
    images = images or ([Path("random values")] if bands else [SAMPLE])
    batch, _, height, width = (side if isinstance(side, int) else 0 for side in shape)

    def case(name: str, files: Sequence[Path], size: tuple[int, int] | None) -> Case:
        size = size or (_RANDOM_SIZE if bands else read_image(files[0]).shape[:2])
        size = (height or size[0], width or size[1])
        if bands:
            return Case(name, _random(len(files), size, len(bands)))
        return Case(name, [_resized(file, size) for file in files])

    first = images[0]
    for file in images:
        yield case(file.name, [file] * (batch or 1), None)
    fitted = dict.fromkeys((height or size[0], width or size[1]) for size in sizes)
    for size in fitted:
        if size != (height, width):
            yield case(f"{first.name} at {size[0]}x{size[1]}", [first] * (batch or 1), size)
    if not batch:
        yield case("a batch of 3", (images * 3)[:3], (352, 480))


def _random(count: int, size: tuple[int, int], bands: int) -> list[Floats]:
    """Normal values that vary over some ten pixels, as those of photos do, with fine noise."""
    generator, upsample = np.random.default_rng(0), Resize()
    small = (size[0] // 12 + 2, size[1] // 12 + 2, bands)
    found = []
    for _ in range(count):
        coarse = upsample.apply(
            generator.standard_normal(small).astype(np.float32), size, bands=True
        )
        noise = generator.standard_normal((*size, bands)).astype(np.float32)
        found.append(coarse + np.float32(0.1) * noise)
    return found


def _resized(file: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(read_image(file)[:, :, ::-1])
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image, np.uint8)[:, :, ::-1])
