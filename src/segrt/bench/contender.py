"""What takes part in a measurement: something that turns an image into labels and says how long each step took."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segrt.bench.accuracy import ConfusionMatrix
from segrt.bench.datasets import Pair, Truth
from segrt.errors import InputError, ModelError
from segrt.preprocess import Transforms
from segrt.result import SegFailure, SegResult
from segrt.sources import frames
from segrt.types import TargetSize

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


class Steps(NamedTuple):
    """Milliseconds of one image.

    Attributes:
        preprocess: from the decoded image to the network's input.
        run: the network.
        postprocess: from its output to labels at the size of the image.
        total: end to end, from the decoded image to the result: by the clock, not the sum of the others.
    """

    preprocess: float
    run: float
    postprocess: float
    total: float


@dataclass(frozen=True)
class Facts:
    """What a contender says of itself.

    Attributes:
        provider: what really runs the network.
        precision: the arithmetic that it runs in.
        load_s: seconds to load the model, imports apart.
        plan: how it runs, in full.
    """

    provider: str
    precision: str
    load_s: float
    plan: dict[str, Any] = field(default_factory=dict)


class Contender(ABC):
    """Lives in a `Worker`.

    Args:
        images: files to segment in turn.
        size: of inference, as `Pipeline.predict` takes it.
    """

    class_names: tuple[str, ...]

    def __init__(self, images: Sequence[Path], size: TargetSize) -> None:
        self._images = [read_image(path) for path in images]
        self._size = size
        self._labels: Labels = np.empty((0, 0), np.int32)
        self._confusion: ConfusionMatrix | None = None

    @abstractmethod
    def facts(self) -> Facts:
        """What runs the network."""

    @abstractmethod
    def segment(self, image: Image) -> tuple[Labels, Steps]:
        """Segment one image, uint8 (H, W, 3), BGR: its labels, int32 (H, W), and the time."""

    def run(self, turn: int) -> Steps:
        """Segment the image whose turn it is."""
        self._labels, steps = self.segment(self._images[turn % len(self._images)])
        return steps

    def warm_up(self) -> float:
        """Compile for the sizes to come, where a backend does so only for sizes that come often; returns seconds."""
        return 0.0

    def labels(self) -> Labels:
        """The labels of the last run, int32 (H, W) of the image."""
        return self._labels

    def score(self, pair: Pair, truth: Truth) -> float:
        """Segment an image of a data set, and add its labels to the confusion matrix; returns the milliseconds.

        Raises:
            InputError: a file can't be read, the sizes differ, or a label is no class.
            ModelError: the model names no classes.
        """
        if self._confusion is None:
            if not self.class_names:
                raise ModelError(
                    "the model names no classes, so its labels can't be compared with a data set"
                )
            self._confusion = ConfusionMatrix(
                len(self.class_names), truth.ignore_index(len(self.class_names))
            )
        labels, steps = self.segment(read_image(pair.image))
        try:
            self._confusion.add(labels, truth.read(pair.label))
        except ValueError as error:
            raise InputError(f"{pair.label}: {error}") from None
        return steps.total

    def confusion(self) -> tuple[ConfusionMatrix | None, tuple[str, ...]]:
        """The confusion matrix so far, and the names of its classes."""
        return self._confusion, self.class_names

    def peak_memory(self) -> int:
        """Most memory that this process has held so far, in bytes; that of a GPU is not in it."""
        return peak_memory()


class SegrtContender(Contender):
    """segrt itself.

    Args:
        images: files to segment in turn.
        size: of inference.
        options: of `create_pipeline`.
        slide: sliding window, as `Pipeline.predict` takes it.
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
        from segrt.backends.catalog import onnxruntime
        from segrt.pipeline import create_pipeline

        onnxruntime()  # importing it is no part of loading a model
        start = perf_counter()
        self._pipeline = create_pipeline(**options)
        self._load_s = perf_counter() - start
        self.class_names = self._pipeline.class_names

    def facts(self) -> Facts:
        """What runs the network, as read back from the session."""
        session = self._pipeline.session
        plan = asdict(session.plan) if is_dataclass(session.plan) else {}
        return Facts(session.provider, str(session.precision), self._load_s, plan)

    def warm_up(self) -> float:
        """Let the session compile for the sizes of the images."""
        start = perf_counter()
        if self._slide:  # the crops know their size
            self.segment(self._images[0])
            return perf_counter() - start
        transforms = Transforms.parse(list(self._pipeline.session.meta.transforms))
        for size in {
            transforms.size((image.shape[0], image.shape[1]), self._size) for image in self._images
        }:
            self._pipeline.session.warm_up((1, 3, *size))
        return perf_counter() - start

    def segment(self, image: Image) -> tuple[Labels, Steps]:
        """Segment one image the way a user does."""
        start = perf_counter()
        [result] = self._pipeline.predict(image, self._size, slide=self._slide)
        total = 1000 * (perf_counter() - start)
        assert isinstance(result, SegResult)
        times = result.timings
        return result.labels, Steps(times.preprocess, times.run, times.postprocess, total)


def read_image(path: Path) -> Image:
    """Read an image file: uint8 (H, W, 3), BGR.

    Raises:
        InputError: it can't be read.
    """
    frame = next(frames(path))
    if isinstance(frame, SegFailure):
        raise frame.error
    return frame.image


def peak_memory() -> int:
    """Most memory that this process has held so far, in bytes."""
    try:  # ru_maxrss begins with what the parent held when it started this process; this does not
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
