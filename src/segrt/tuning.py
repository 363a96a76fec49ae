"""Measures the plans that run on this machine, end to end on real images, and picks the fastest.

A plan qualifies if it keeps the labels of FP32 on the CPU. `segrt.backends.cache` saves the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import graph_tail, model_file, package_data
from segrt.backends import cache
from segrt.backends.catalog import read
from segrt.backends.plan import Plan, every, plans
from segrt.backends.session import Session
from segrt.errors import DeviceError, ModelError, SegrtError
from segrt.frame import SegFailure
from segrt.pipeline import Pipeline
from segrt.postprocess import load_loop
from segrt.result import SegResult
from segrt.sources import frames
from segrt.types import Device, Mode, parse_size

AGREEMENT = 0.99
"""Minimum share of labels that a plan must have in common with FP32 on the CPU."""

MARGIN = 0.03
"""By how much another plan must beat that of normal mode: less is noise."""

MAX_IMAGES = 8
"""The first photos of a folder suffice."""

Image: TypeAlias = npt.NDArray[np.uint8]
Progress: TypeAlias = Callable[[int, int], None]
"""Progress callback: steps done, and the total."""


@dataclass(frozen=True)
class Measurement:
    """The result of measuring one plan.

    Attributes:
        plan: the plan.
        milliseconds: median time per image, end to end; None if it did not run.
        agreement: share of labels equal to those of FP32 on the CPU, from 0 to 1; None if it did
            not run.
        rejected: why it can't be used; empty if it can.
    """

    plan: Plan
    milliseconds: float | None
    agreement: float | None
    rejected: str = ""


def tune_model(
    model: str,
    size: str,
    folder: Path | None,
    device: str | None,
    rounds: int,
    agreement: float,
    progress: Progress,
) -> tuple[list[Measurement], Path]:
    """Measure a model on this machine and save the fastest plan, as `segrt tune` does.

    Args:
        model: a name in the model zoo, or an `.onnx` file.
        size: inference size, as "512x1024" (height x width).
        folder: photos; None for the bundled sample.
        device: as in `create_pipeline`; None for that of normal mode.
        rounds: see `tune`.
        agreement: see `tune`.
        progress: see `tune`.

    Returns:
        tuple: the measurements, and the file that contains the result.

    Raises:
        ConfigError: size is invalid, or the cache folder can't be written.
        DeviceError: nothing runs on the device.
        InputError: an image can't be read.
        ModelError: the model is unknown or missing, or can't run.
    """
    pair = parse_size(size)
    catalog = read()
    where = Device.parse(device) if device else None
    is_file = model.endswith(".onnx")
    file = model_file.resolve(path=Path(model)) if is_file else model_file.resolve(model)
    if not file.is_file():
        raise ModelError(f"model file {file} does not exist")
    images = _images(folder or package_data.path(package_data.SAMPLE))
    reference = plans(Device("cpu"), Mode.NORMAL, catalog)[-1]
    Session(file, reference).description.check_pictures("segrt tune measures with photos")
    engines = cache.engine_cache(file, catalog)
    candidates = every(where, catalog, cache=engines, quantised=graph_tail.rounded(file))
    measured = tune(
        file,
        candidates,
        reference,
        images,
        pair,
        rounds=rounds,
        agreement=agreement,
        progress=progress,
    )
    figures = {
        str(one.plan): one.rejected
        or {"ms": round(one.milliseconds or 0, 2), "agreement": one.agreement}
        for one in measured
    }
    return measured, cache.remember(file, catalog, pair, winner(measured).plan, figures)


def tune(
    file: Path,
    candidates: Sequence[Plan],
    reference: Plan,
    images: Sequence[Image],
    size: tuple[int, int],
    *,
    rounds: int = 5,
    agreement: float = AGREEMENT,
    progress: Progress = lambda done, total: None,
) -> list[Measurement]:
    """Measure plans in turn, so that other load on the machine affects all of them alike.

    Args:
        file: the `.onnx` file.
        candidates: the plans; the first is that of normal mode.
        reference: the plan with the correct labels: FP32 on the CPU.
        images: uint8 (H, W, 3), BGR; or arrays of the bands that the model takes.
        size: (height, width) of inference.
        rounds: number of timed images per plan; the images take turns.
        agreement: minimum share of labels equal to the reference's, from 0 to 1.
        progress: called after each step.

    Returns:
        list of Measurement: in the order of `candidates`.

    Raises:
        ModelError: the model can't run on the CPU at this size.
    """
    load_loop()
    expected = _labels(Pipeline(Session(file, reference)), images, size)
    entries = [_Entry(plan) for plan in candidates]
    total = len(entries) * (rounds + 1)
    for step, entry in enumerate(entries, 1):
        entry.check(file, images, size, expected, agreement)
        progress(step, total)
    for turn in range(rounds):
        for number, entry in enumerate(entries, 1):
            if entry.pipeline is not None:
                start = perf_counter()
                _labels(entry.pipeline, [images[turn % len(images)]], size)
                entry.times.append(1000 * (perf_counter() - start))
            progress((turn + 1) * len(entries) + number, total)
    return [entry.measurement() for entry in entries]


@dataclass
class _Entry:
    """A plan while it is measured; it has no pipeline if it does not run."""

    plan: Plan
    pipeline: Pipeline | None = None
    agreement: float | None = None
    rejected: str = ""
    times: list[float] = field(default_factory=list)

    def check(
        self,
        file: Path,
        images: Sequence[Image],
        size: tuple[int, int],
        expected: Sequence[npt.NDArray[np.int32]],
        least: float,
    ) -> None:
        """Load the model, and compare its labels with the expected ones."""
        try:
            pipeline = Pipeline(Session(file, self.plan))
            pipeline.session.warm_up(size)
            if not _finite(pipeline.session, images, size):
                self.rejected = "its logits hold NaN or infinity"
                return
            labels = _labels(pipeline, images, size)
        except SegrtError as error:
            self.rejected = str(error)
            return
        same = [np.mean(a == b) for a, b in zip(labels, expected, strict=True)]
        self.pipeline, self.agreement = pipeline, float(np.mean(same))
        if self.agreement < least:
            self.rejected = f"only {self.agreement:.2%} of its labels are those of FP32"

    def measurement(self) -> Measurement:
        milliseconds = median(self.times) if self.times else None
        return Measurement(self.plan, milliseconds, self.agreement, self.rejected)


def winner(measured: Sequence[Measurement]) -> Measurement:
    """The fastest plan that keeps the labels: the first unless another is faster by `MARGIN`.

    Raises:
        DeviceError: there is none.
    """
    times = {
        index: one.milliseconds * (1 if index else 1 - MARGIN)
        for index, one in enumerate(measured)
        if one.milliseconds is not None and not one.rejected
    }
    if not times:
        reasons = "; ".join(f"{one.plan.name}: {one.rejected}" for one in measured)
        raise DeviceError(f"no plan can be used: {reasons}")
    return measured[min(times, key=times.__getitem__)]


def _images(source: Path) -> list[Image]:
    images: list[Image] = []
    for frame in frames(source):
        if isinstance(frame, SegFailure):
            raise frame.error
        images.append(frame.image)
        if len(images) == MAX_IMAGES:
            break
    return images


def _labels(
    pipeline: Pipeline, images: Sequence[Image], size: tuple[int, int]
) -> list[npt.NDArray[np.int32]]:
    results = (next(pipeline.predict(image, size)) for image in images)
    return [result.labels for result in results if isinstance(result, SegResult)]


def _finite(session: Session, images: Sequence[Image], size: tuple[int, int]) -> bool:
    transforms = session.description.transforms
    for image in images:
        layout = transforms.layout((image.shape[0], image.shape[1]), size)
        batch = transforms.batch([transforms.fit(image, layout)])
        if not np.isfinite(session.run(batch)).all():
            return False
    return True
