"""Contenders of a measurement: segment an image and report how long each step took."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segrt.accuracy import ConfusionMatrix
from segrt.backends import catalog
from segrt.backends.plan import Plan
from segrt.create import create_pipeline
from segrt.datasets import Pair, Truth
from segrt.errors import InputError, ModelError
from segrt.postprocess import load_loop
from segrt.result import SegResult
from segrt.sources import read_image
from segrt.types import TargetSize

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


class Steps(NamedTuple):
    """The times of one image, in milliseconds.

    Attributes:
        preprocess: from the decoded image to the input tensor.
        run: the network.
        postprocess: from the network's output to labels at the size of the source image.
        total: wall time from the decoded image to the result, a little more than the sum.
    """

    preprocess: float
    run: float
    postprocess: float
    total: float


@dataclass(frozen=True)
class Facts:
    """How a contender runs.

    Attributes:
        provider: the execution provider that really runs the network.
        precision: its arithmetic, such as "fp32".
        load_s: seconds to load the model, without imports.
        plan: the full plan.
        file_bytes: size of the files it was loaded from.
    """

    provider: str
    precision: str
    load_s: float
    plan: dict[str, Any] = field(default_factory=dict)
    file_bytes: int = 0


class Contender(ABC):
    """Base class of contenders; each is created in a `Worker`.

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
    """

    class_names: tuple[str, ...]

    def __init__(self, images: Sequence[Path], size: TargetSize) -> None:
        self._images = [read_image(path) for path in images]
        self._size = size
        self._labels: Labels = np.empty((0, 0), np.int32)
        self._confusion: ConfusionMatrix | None = None

    @abstractmethod
    def facts(self) -> Facts:
        """How the network runs."""

    @abstractmethod
    def segment(self, image: Image, size: TargetSize) -> tuple[Labels, Steps]:
        """Segment one image, uint8 (H, W, 3), BGR; returns labels, int32 (H, W), and times."""

    def run(self, turn: int) -> Steps:
        """Segment image number `turn` of the rotation."""
        self._labels, steps = self.segment(self._images[turn % len(self._images)], self._size)
        return steps

    def warm_up(self) -> float:
        """Compile for the sizes to come if the backend does so; returns the seconds it took."""
        return 0.0

    def labels(self) -> Labels:
        """The labels of the last run, int32 (H, W) at the size of the source image."""
        return self._labels

    def score(self, pair: Pair, truth: Truth, size: TargetSize) -> Labels:
        """Segment an image of a data set and add its labels to the confusion matrix.

        Returns:
            np.ndarray: its labels, int32 (H, W).

        Raises:
            InputError: a file can't be read, the sizes differ, or a label is not a class id.
            ModelError: the model has no class names.
        """
        if self._confusion is None:
            if not self.class_names:
                raise ModelError(
                    "the model has no class names, so its labels can't be compared with a data set"
                )
            self._confusion = ConfusionMatrix(
                len(self.class_names), truth.ignore_index(len(self.class_names))
            )
        labels, _ = self.segment(read_image(pair.image), size)
        expected = truth.read(pair.label)
        try:
            self._confusion.add(labels, expected)
        except ValueError as error:
            raise InputError(f"{pair.label}: {error}") from None
        return labels

    def confusion(self) -> tuple[ConfusionMatrix | None, tuple[str, ...]]:
        """The confusion matrix so far, and its class names."""
        return self._confusion, self.class_names

    def peak_memory(self) -> int:
        """Peak resident memory of this process in bytes, without GPU memory."""
        return peak_memory()


class SegrtContender(Contender):
    """A segrt pipeline.

    Example:
        >>> contender = SegrtContender([Path("road.png")], None, {"device": "cpu"})
        >>> contender.run(0).total
        41.3

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
        options: arguments of `create_pipeline`.
        slide: sliding window, as for `Pipeline.predict`.
    """

    def __init__(
        self,
        images: Sequence[Path],
        size: TargetSize,
        options: Mapping[str, Any],
        slide: str | None = None,
    ) -> None:
        super().__init__(images, size)
        self._slide = slide
        catalog.onnxruntime()  # import it before the clock starts
        start = perf_counter()
        self._pipeline = create_pipeline(**options)
        self._load_s = perf_counter() - start
        self._pipeline.session.description.check_pictures("segrt-bench measures with photos")
        self.class_names = self._pipeline.class_names
        file = Path(options.get("model_dir") or "")
        self._file_bytes = file.stat().st_size if file.is_file() else 0

    def facts(self) -> Facts:
        """How the network runs, as reported by the session."""
        session = self._pipeline.session
        precision = str(session.precision)
        plan = _plan_fields(session.plan)
        return Facts(session.provider, precision, self._load_s, plan, self._file_bytes)

    def warm_up(self) -> float:
        """Compile for the sizes of the images; returns the seconds it took."""
        load_loop()  # as in a process that segments many images
        start = perf_counter()
        if self._slide:  # only the sliding window knows the size of its crops
            self.segment(self._images[0], self._size)
            return perf_counter() - start
        transforms = self._pipeline.transforms
        for size in {
            transforms.size((image.shape[0], image.shape[1]), self._size) for image in self._images
        }:
            self._pipeline.session.warm_up(size)
        return perf_counter() - start

    def segment(self, image: Image, size: TargetSize) -> tuple[Labels, Steps]:
        """Segment one image with `Pipeline.predict`."""
        start = perf_counter()
        [result] = self._pipeline.predict(image, size, slide=self._slide)
        total = 1000 * (perf_counter() - start)
        assert isinstance(result, SegResult)
        times = result.timings
        return result.labels, Steps(times.preprocess, times.run, times.postprocess, total)


def _plan_fields(plan: Plan) -> dict[str, Any]:
    return {
        "provider": plan.provider,
        "precision": plan.precision,
        "threads": plan.threads,
        "device": plan.device,
        "device_id": plan.device_id,
        "shapes": plan.backend.shapes,
        "options": plan.options,
        "note": plan.note,
    }


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        # ru_maxrss starts at the parent's memory when it started this process, so VmHWM is better.
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
