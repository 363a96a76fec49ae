"""Quantises the convolutions of an exported model to 8 bits, and measures what that costs.

ONNX Runtime calibrates and rounds (`onnxruntime.quantization`). This module prepares photos as
segrt does, compares labels on photos that calibration did not see, and keeps the layers in FP32
that cost too much. The result is standard ONNX: QuantizeLinear and DequantizeLinear before each
convolution.

Weights have 7 bits: CPUs without VNNI add pairs of 8-bit products in 16 bits, which overflow
otherwise (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, helper

from segrt.accuracy import ConfusionMatrix
from segrt.datasets import Layout, Truth
from segrt.description import Description
from segrt.errors import ConfigError, ExportError, InputError
from segrt.files import is_same_file, sha256, write_atomic
from segrt.folders import find_images
from segrt.graph_tail import rounded
from segrt.half_graph import import_path
from segrt.metadata import KEY
from segrt.network import first_line, standard
from segrt.postprocess import finish
from segrt.sources import read_image
from segrt_export.graph import prune
from segrt_export.onnx_model import open_exported
from segrt_export.passes.half_weights import unfold
from segrt_export.requirements import require

log = logging.getLogger("segrt")

Metric: TypeAlias = Literal["agreement", "miou"]
Device: TypeAlias = Literal["cpu", "gpu"]
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the steps done, and their total."""

MAX_PHOTOS = 64
"""Photos of a folder that are used; half of them calibrate."""
MIN_PHOTOS = 4
MAX_FLOAT = 0.5
"""Maximum share of the layers that stay in FP32: a network with more would gain too little."""

_RANKING = 4  # photos on which layers are compared
_GROUPS = 48  # of layers, that are compared
_ATTENTION = 0.05  # Softmax operators per convolution
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # silences a warning
_Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Quantised:
    """A quantised model.

    Attributes:
        file: the `.onnx` file.
        report_file: what was measured, JSON.
        report: the content of the report.
    """

    file: Path
    report_file: Path
    report: dict[str, Any]


@dataclass(frozen=True)
class Limit:
    """What quantisation may cost.

    Attributes:
        metric: "agreement", the share of labels that are those of the original, or "miou", for
            which there must be labels.
        max_drop: how many percentage points may be lost.
    """

    metric: Metric = "agreement"
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise ConfigError(f"max_drop {self.max_drop:g} is not valid: give from 0 to 100")


def quantize(
    file: Path,
    target: Path,
    images: Path,
    *,
    labels: Path | None = None,
    limit: Limit = Limit(),
    device: Device = "cpu",
    progress: Progress = lambda what, done, total: None,
) -> Quantised:
    """Quantise the convolutions of a model, and write it if it is accurate enough.

    Every second photo calibrates, the others measure. If more than `limit.max_drop` is lost, the
    layers are ranked by the labels that each changes alone, and as few as possible of the worst,
    at most `MAX_FLOAT` of all, stay in FP32. Networks with many layers are ranked by groups of
    adjacent ones first, and then only the layers of the worst groups one by one.

    Example:
        >>> done = quantize(Path("roads.onnx"), Path("roads.int8.onnx"), Path("photos"))
        >>> done.report["agreement"], done.report["float_layers"]
        (99.6, [])

    Args:
        file: a model exported by segrt-export.
        target: path of the quantised model; the report is written next to it, with the suffix
            `.json`.
        images: folder of photos like those to come; a few dozen suffice.
        labels: folder of label images, 8 bits with one channel, named `STEM.png` like the photos,
            in the same subfolders.
        limit: what may be lost.
        device: where it is to run. "cpu": unsigned values, which ONNX Runtime's CPU provider runs
            faster, and with one more bit after a ReLU. "gpu": signed values, symmetric around zero,
            as TensorRT requires; OpenVINO computes them inexactly, and does not run them.
        progress: called after each step.

    Returns:
        Quantised: the paths of both files, and the report.

    Raises:
        ConfigError: the metric needs labels, or `target` is the model itself.
        ExportError: the model does not come from segrt-export, is quantised, or has no convolution;
            or it loses more than the limit. Nothing is written in that case.
        InputError: the photos are too few, or one of them or its labels can't be read.
        MissingExtraError: onnxruntime is not installed.
    """
    require("onnxruntime")
    if limit.metric == "miou" and labels is None:
        raise ConfigError("the metric miou needs labels: give their folder, or use agreement")
    if is_same_file(file, target):
        raise ConfigError(f"{target} is the model itself: name another file for the result")
    description = _open(file)
    photos = _photos(images)
    network = _Network(onnx.load(str(file)), description)
    network.warn()
    judge = _Judge(network, photos, images, labels, limit, progress)
    network.quantise(photos[::2], device, progress)
    kept = judge.choose()
    report = {
        "model": description.meta.name,
        "source": {file.name: sha256(file)},
        "tools": {name: version(name) for name in ("segrt", "onnx")} | {"onnxruntime": _runtime()},
        "device": device,
        "metric": limit.metric,
        "max_drop": limit.max_drop,
        "calibrated_on": [_name(photo, images) for photo in photos[::2]],
        **judge.report(kept),
    }
    data = network.serialize(kept)
    report["bytes"] = len(data)
    report_file = target.with_suffix(".json")
    write_atomic(target, data)
    write_atomic(report_file, (json.dumps(report, indent=2) + "\n").encode())
    return Quantised(target, report_file, report)


def _runtime() -> str:
    import onnxruntime as ort

    return str(ort.__version__)


def _session(model: bytes) -> Any:
    """A session that computes quantised layers as they are defined, in FP32, on any CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open(file: Path) -> Description:
    """What is known of a model.

    Raises:
        ExportError: it can't be loaded, does not come from segrt-export, or is quantised.
        ModelError: it takes bands.
    """
    described = open_exported(file)
    if rounded(file):
        raise ExportError(f"{file} is quantised already: give the model it was made from")
    described.check_pictures("segrt calibrates and measures with photos")
    return described


def _photos(folder: Path) -> list[Path]:
    """At most `MAX_PHOTOS` photos, evenly spread over a folder."""
    try:
        files = find_images(str(folder)).files
    except OSError as error:
        raise InputError(f"{folder} contains no photo: {error.strerror}") from None
    if len(files) < MIN_PHOTOS:
        raise InputError(
            f"{folder} contains {len(files)} photos: half of them calibrate and half measure, so "
            f"give at least {MIN_PHOTOS}, better a few dozen"
        )
    count = min(len(files), MAX_PHOTOS)
    return [Path(files[number * len(files) // count]) for number in range(count)]


def _name(photo: Path, folder: Path) -> str:
    """The name of a photo within its folder."""
    return photo.relative_to(folder).as_posix()


class _Network:
    """A model, and its quantised form, of which single layers can be taken.

    Attributes:
        layers: names of the convolutions with constant weights, in order.
        description: what is known of the model.
    """

    def __init__(self, model: ModelProto, description: Description) -> None:
        unfold(model)
        constants = {initializer.name for initializer in model.graph.initializer}
        self._convolutions = {}
        for node in model.graph.node:
            if node.op_type == "Conv" and node.input[1] in constants:
                node.name = node.output[0]  # unique
                self._convolutions[node.name] = node
        self.layers = list(self._convolutions)
        self.description = description
        if not self.layers:
            raise ExportError(f"{description.meta.name} has no convolution to quantise")
        self._original = model
        self._quantised = ModelProto()

    def warn(self) -> None:
        """Log a line about networks of attention."""
        softmax = sum(node.op_type == "Softmax" for node in self._original.graph.node)
        if softmax > _ATTENTION * len(self.layers):
            log.warning(
                "%s has %d attention layers, which stay as they are: int8 gains nothing for "
                "SegFormer; compare the times with  segrt tune",
                self.description.meta.name,
                softmax,
            )

    def prepare(self, photo: Path) -> tuple[npt.NDArray[np.float32], Any]:
        """The input for a photo, of the batch size that the model requires, and its layout."""
        transforms, image = self.description.transforms, read_image(photo)
        layout = transforms.layout((image.shape[0], image.shape[1]))
        batch = transforms.batch([transforms.fit(image, layout)])
        return batch.repeat(self.description.input.dims[0] or 1, axis=0), layout

    def quantise(self, photos: Sequence[Path], device: Device, progress: Progress) -> None:
        """Calibrate and quantise all layers."""
        with import_path():
            from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
            def __init__(reader) -> None:
                reader.batches = self._batches(photos, progress)

            def get_next(reader) -> dict[str, npt.NDArray[np.float32]] | None:
                return next(reader.batches, None)

        with tempfile.TemporaryDirectory(prefix="segrt-quantize-") as work:
            source, target = Path(work) / "float.onnx", Path(work) / "int8.onnx"
            plain = ModelProto()
            plain.CopyFrom(self._original)
            helper.set_model_props(plain, _PREPROCESSED)
            onnx.save(plain, str(source))
            quantize_static(
                source,
                target,
                Reader(),
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=self.layers,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QInt8 if device == "gpu" else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    "ActivationSymmetric": device == "gpu",
                    # Rounding inputs suffices; runtimes merge a ReLU with the rounding after it.
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                },
            )
            self._quantised = onnx.load(str(target))

    def _batches(
        self, photos: Sequence[Path], progress: Progress
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for done, photo in enumerate(photos, 1):
            yield {self.description.input.name: self.prepare(photo)[0]}
            progress("calibrating", done, len(photos))

    def model(self, layers: Collection[str]) -> ModelProto:
        """The model in which only `layers` are quantised."""
        model = ModelProto()
        model.CopyFrom(self._quantised if layers else self._original)
        if not layers:
            return model
        weights: dict[str, str] = {}
        for node in model.graph.node:
            if node.name in self._convolutions and node.name not in layers:
                image, *others = self._convolutions[node.name].input
                # The quantised graph computes a bias under the name of the original one.
                weights |= {name: f"{name}.float" for name in others if name}
                del node.input[:]
                node.input.extend([image, *(weights.get(name, "") for name in others)])
        for initializer in self._original.graph.initializer:
            if initializer.name in weights:
                model.graph.initializer.add().CopyFrom(initializer)
                model.graph.initializer[-1].name = weights[initializer.name]
        prune(model.graph)
        return model

    def serialize(self, layers: Collection[str]) -> bytes:
        """The content of the `.onnx` file in which `layers` are quantised."""
        model = self.model(layers)
        del model.graph.value_info[:]
        model.ir_version = self._original.ir_version
        meta = self.description.meta
        own = {item.key: item.value for item in self._original.metadata_props}
        done = {**json.loads(own[KEY]), "passes": [*meta.passes, "int8"]}
        helper.set_model_props(model, {KEY: json.dumps(done)})
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def labels(self, session: Any, photo: Path) -> _Labels:
        """The labels of a photo, at its own size."""
        batch, layout = self.prepare(photo)
        described, meta = self.description.output, self.description.meta
        try:
            raw = session.run([described.name], {self.description.input.name: batch})[0]
        except Exception as error:  # onnxruntime has its own class per status code
            raise ExportError(f"{meta.name} can't run on {photo}: {first_line(error)}") from None
        found = finish(standard(raw, described, meta.output)[0], meta, layout)[0]
        return found.astype(np.min_scalar_type(len(meta.class_names)))


@dataclass(frozen=True)
class _Score:
    """The labels of a model on the photos that measure.

    Attributes:
        agreement: share of labels that are those of the original, by photo, in %.
        overall: likewise, of all pixels.
        miou: mean intersection over union, in %; None without labels.
    """

    agreement: dict[str, float]
    overall: float
    miou: float | None


class _Judge:
    """Decides which layers are quantised."""

    def __init__(
        self,
        network: _Network,
        photos: Sequence[Path],
        images: Path,
        labels: Path | None,
        limit: Limit,
        progress: Progress,
    ) -> None:
        self._network, self._limit, self._progress = network, limit, progress
        self._photos, self._ranking = photos[1::2], photos[::2][:_RANKING]
        self._names = {photo: _name(photo, images) for photo in photos}
        self._truth = labels and {
            photo: (labels / self._names[photo]).with_suffix(".png") for photo in self._photos
        }
        meta = network.description.meta
        self._reader = Truth(Layout.ADE20K if meta.reduce_labels else Layout.FOLDER)
        self._expected: dict[Path, _Labels] = {}
        for photo, file in (self._truth or {}).items():
            if not file.is_file():
                raise InputError(f"{photo} has no labels: {file} does not exist")
        session, seen = _session(network.model(()).SerializeToString()), set[Path]()
        for photo in [*self._photos, *self._ranking]:
            self._expected[photo] = network.labels(session, photo)
            seen.add(photo)
            progress("labels of the original", len(seen), len(photos) // 2 + _RANKING)
        self._float = self._score(self._photos, lambda photo: self._expected[photo], "original")
        if self._float.miou is not None and math.isnan(self._float.miou):
            raise InputError(
                f"{labels} labels no pixel of the {len(self._photos)} photos that measure with a "
                f"class of {network.description.meta.name}"
            )
        self._scores: dict[int, _Score] = {}
        self._ranked: list[tuple[str, float]] = []

    def choose(self) -> list[str]:
        """The layers to quantise: as many as the limit allows.

        Raises:
            ExportError: more is lost than the limit allows even with `MAX_FLOAT` of them in FP32.
        """
        layers = self._network.layers
        if self._passes(0):
            return self._kept(0)
        self._ranked = self._rank()
        most, failed, count = int(MAX_FLOAT * len(layers)), 0, 1
        while count <= most and not self._passes(count):
            failed, count = count, min(2 * count, most) if count < most else most + 1
        if count > most:
            raise self._refusal(failed)
        while count - failed > 1:  # as few as possible
            middle = (failed + count) // 2
            failed, count = (failed, middle) if self._passes(middle) else (middle, count)
        return self._kept(count)

    def report(self, kept: Sequence[str]) -> dict[str, Any]:
        """What was measured for the chosen layers."""
        count = len(self._network.layers) - len(kept)
        score = self._scores[count]
        worst = min(score.agreement, key=score.agreement.__getitem__)
        found = {
            "agreement": round(score.overall, 4),
            "worst": {"photo": worst, "agreement": score.agreement[worst]},
            "drop": round(self._drop(score), 4),
        }
        if score.miou is not None and self._float.miou is not None:
            found |= {"miou": round(score.miou, 4), "miou_float": round(self._float.miou, 4)}
        damages = self._ranked[:count]
        return found | {
            "photos": score.agreement,
            "layers": len(self._network.layers),
            "float_layers": [{"layer": n, "labels_changed": round(d, 4)} for n, d in damages],
        }

    def _refusal(self, count: int) -> ExportError:
        score, limit = self._scores[count], self._limit
        what = "of the labels" if limit.metric == "agreement" else "points of mIoU"
        loss = f"{self._drop(score):.2f}{' %' if limit.metric == 'agreement' else ''} {what}"
        return ExportError(
            f"{self._network.description.meta.name}: int8 costs {loss} on {len(self._photos)} "
            f"photos, more than {limit.max_drop:g}, even with {count} of "
            f"{len(self._network.layers)} layers in FP32; nothing was written"
        )

    def _kept(self, count: int) -> list[str]:
        """The layers that are quantised if the `count` worst are not."""
        left = {name for name, _ in self._ranked[:count]}
        return [name for name in self._network.layers if name not in left]

    def _passes(self, count: int) -> bool:
        """Whether the limit is kept with the `count` worst layers in FP32."""
        session = _session(self._network.model(self._kept(count)).SerializeToString())
        what = f"measuring with {count} layers in FP32" if count else "measuring"
        self._scores[count] = self._score(
            self._photos, lambda photo: self._network.labels(session, photo), what
        )
        return self._drop(self._scores[count]) <= self._limit.max_drop

    def _rank(self) -> list[tuple[str, float]]:
        """The layers, with the share of the labels that each changes, in %, the worst first."""
        layers = self._network.layers
        size = -(-len(layers) // _GROUPS)
        groups = [layers[start : start + size] for start in range(0, len(layers), size)]
        total = len(groups) + (_GROUPS if size > 1 else 0)
        damages: dict[str, float] = {}
        for done, group in enumerate(groups, 1):
            damages |= dict.fromkeys(group, self._damage(group) / len(group))
            self._progress("comparing layers", done, total)
        if size > 1:
            worst = sorted(layers, key=lambda layer: -damages[layer])[:_GROUPS]
            for done, layer in enumerate(worst, len(groups) + 1):
                damages[layer] = self._damage([layer])
                self._progress("comparing layers", done, total)
        return sorted(damages.items(), key=lambda pair: -pair[1])

    def _damage(self, layers: Sequence[str]) -> float:
        """How many labels some layers change alone, in %, on photos that calibrated."""
        session = _session(self._network.model(layers).SerializeToString())
        same = [
            np.mean(self._network.labels(session, photo) == self._expected[photo])
            for photo in self._ranking
        ]
        return 100 * (1 - float(np.mean(same)))

    def _drop(self, score: _Score) -> float:
        if self._limit.metric == "agreement":
            return 100 - score.overall
        assert self._float.miou is not None
        assert score.miou is not None
        return self._float.miou - score.miou

    def _score(
        self, photos: Sequence[Path], labels: Callable[[Path], _Labels], what: str
    ) -> _Score:
        classes = len(self._network.description.meta.class_names)
        own = self._network.description.meta.ignore_index
        matrix = ConfusionMatrix(
            classes, self._reader.ignore_index(classes) if own is None else own
        )
        agreement, equal, pixels = {}, 0, 0
        for done, photo in enumerate(photos, 1):
            found = labels(photo)
            same = int(np.count_nonzero(found == self._expected[photo]))
            agreement[self._names[photo]] = round(100 * same / found.size, 4)
            equal, pixels = equal + same, pixels + found.size
            if self._truth:
                try:
                    matrix.add(found, self._reader.read(self._truth[photo]))
                except ValueError as error:
                    raise InputError(f"{self._truth[photo]}: {error}") from None
            self._progress(what, done, len(photos))
        miou = 100 * matrix.miou if self._truth else None
        return _Score(agreement, 100 * equal / pixels, miou)
