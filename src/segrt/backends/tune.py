"""Measures the plans that run here, end to end on real images, and remembers the fastest that keeps the labels.

The memory is `tuning.json` in the cache folder: model, hardware and versions -> size -> what was measured.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segrt import store
from segrt.backends.catalog import Catalog, read
from segrt.backends.plan import HpiConfig, Plan, every, plans
from segrt.errors import ConfigError, DeviceError, ModelError, SegrtError
from segrt.files import write_atomic
from segrt.preprocess import Transforms
from segrt.result import SegFailure, SegResult
from segrt.sources import frames
from segrt.types import Device, Mode, parse_target_size

if TYPE_CHECKING:
    from segrt.backends.session import Session
    from segrt.pipeline import Pipeline

log = logging.getLogger("segrt")

AGREEMENT = 0.99
"""Least part of the labels that a plan must share with FP32 on the CPU."""

MARGIN = 0.03
"""By how much another plan must beat the one of normal mode: less is noise."""

MAX_IMAGES = 8
"""Of a folder's photos the first few are enough."""

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """What came of one plan.

    Attributes:
        plan: the plan.
        milliseconds: median time an image, end to end; None if it did not run.
        agreement: part of the labels that equal those of FP32 on the CPU, 0 to 1; None if it did not run.
        rejected: why it can't be chosen; "" if it can.
    """

    plan: Plan
    milliseconds: float | None
    agreement: float | None
    rejected: str = ""


def tuning_file() -> Path:
    """Where measurements are remembered."""
    return store.home() / "tuning.json"


def recall(
    file: Path, here: Catalog, device: Device | None, size: tuple[int, int] | None
) -> HpiConfig | None:
    """What was found best for a model on this machine; None if it was not measured.

    Args:
        file: the `.onnx` file.
        here: this machine, as it is now.
        device: what the user named.
        size: (height, width) of inference: a measurement at it is preferred, else the latest one counts.
    """
    records = _read()
    for named in [device] if device else [Device("gpu", (0,)), Device("cpu")]:
        sizes = records.get(_key(file, here, named)) if records else None
        if sizes:
            try:
                return HpiConfig.parse(sizes.get(_size_key(size), list(sizes.values())[-1])["plan"])
            except (
                AttributeError,
                TypeError,
                LookupError,
                ConfigError,
            ):  # another release wrote it, or a hand
                log.warning("%s is not as segrt writes it: delete it and tune again", tuning_file())
    return None


def tune_model(
    model: str,
    size: str,
    folder: Path | None,
    device: str | None,
    rounds: int,
    agreement: float,
    progress: Callable[[int, int], None],
) -> tuple[list[Measured], Path]:
    """What `segrt tune` does: measure a model on this machine, and remember the winner.

    Args:
        model: a name of the model zoo, or a `.onnx` file.
        size: of inference, as "512x1024": height and width.
        folder: photos; None for the sample that comes with segrt.
        device: as the user names it; None for what normal mode would take.
        rounds: see `tune`.
        agreement: see `tune`.
        progress: see `tune`.

    Returns:
        tuple: what was measured, and the file that remembers it.

    Raises:
        ConfigError: size is not valid, or the cache folder can't be written.
        DeviceError: nothing runs on the device.
        InputError: an image can't be read.
        ModelError: the model is unknown, not there, or can't run.
    """
    from segrt.backends.session import engine_cache
    from segrt.pipeline import _model_file

    pair = parse_target_size(size.lower().replace("x", ","))
    if not isinstance(pair, tuple):
        raise ConfigError(f"size {size!r} is not valid: write height x width, as in 512x1024")
    here = read()
    place = Device.parse(device) if device else None
    file = _model_file(None, Path(model)) if model.endswith(".onnx") else _model_file(model, None)
    if not file.is_file():
        raise ModelError(f"model file {file} does not exist")
    images = []
    for frame in frames(folder or Path(__file__).parents[1] / "models" / "sample.png"):
        if isinstance(frame, SegFailure):
            raise frame.error
        images.append(frame.image)
        if len(images) == MAX_IMAGES:
            break
    reference = plans(Device("cpu"), Mode.NORMAL, here)[0]
    candidates = every(place, here, cache=engine_cache(file, here))
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
    return measured, remember(file, here, pair, measured)


def tune(
    file: Path,
    candidates: Sequence[Plan],
    reference: Plan,
    images: Sequence[Image],
    size: tuple[int, int],
    *,
    rounds: int = 5,
    agreement: float = AGREEMENT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measured]:
    """Measure plans, in turn, so that what else the machine does meets all of them alike.

    Args:
        file: the `.onnx` file.
        candidates: the plans; the first is the one of normal mode.
        reference: the plan that says which labels are right: FP32 on the CPU.
        images: uint8 (H, W, 3) BGR.
        size: (height, width) of inference.
        rounds: how often each plan sees an image; the images take turns.
        agreement: least part of labels that must equal the reference's, 0 to 1.
        progress: called with the steps done and to be done, after each.

    Returns:
        list of Measured: in the order of `candidates`.

    Raises:
        ModelError: the model can't run on the CPU at this size.
    """
    from segrt.backends.session import Session
    from segrt.pipeline import Pipeline

    expected = _labels(Pipeline(Session(file, reference)), images, size)
    pipelines: dict[Plan, Pipeline] = {}
    agreements: dict[Plan, float] = {}
    rejected: dict[Plan, str] = {}
    times: dict[Plan, list[float]] = {plan: [] for plan in candidates}
    done, steps = 0, len(candidates) * (rounds + 1)
    for plan in candidates:
        try:
            pipeline = Pipeline(Session(file, plan))
            pipeline.session.warm_up((1, 3, *size))
            if not _finite(pipeline.session, images, size):
                rejected[plan] = "its logits hold NaN or infinity"
            else:
                labels = _labels(pipeline, images, size)
                same = [np.mean(a == b) for a, b in zip(labels, expected, strict=True)]
                agreements[plan] = float(np.mean(same))
                pipelines[plan] = pipeline
                if agreements[plan] < agreement:
                    rejected[plan] = (
                        f"only {100 * agreements[plan]:.2f}% of its labels are those of FP32"
                    )
        except SegrtError as error:
            rejected[plan] = str(error)
        done += 1
        progress(done, steps)
    for turn in range(rounds):
        for plan in candidates:
            if plan in pipelines:
                start = perf_counter()
                _labels(pipelines[plan], [images[turn % len(images)]], size)
                times[plan].append(1000 * (perf_counter() - start))
            done += 1
            progress(done, steps)
    return [
        Measured(
            plan,
            median(times[plan]) if times[plan] else None,
            agreements.get(plan),
            rejected.get(plan, ""),
        )
        for plan in candidates
    ]


def winner(measured: Sequence[Measured]) -> Measured:
    """The fastest plan that keeps the labels; the first, normal mode's, unless another beats it by `MARGIN`.

    Raises:
        DeviceError: there is none.
    """
    times = {
        place: one.milliseconds * (1 if place else 1 - MARGIN)
        for place, one in enumerate(measured)
        if one.milliseconds is not None and not one.rejected
    }
    if not times:
        raise DeviceError(
            f"no plan can be used: {'; '.join(f'{one.plan.name}: {one.rejected}' for one in measured)}"
        )
    return measured[min(times, key=times.__getitem__)]


def remember(
    file: Path, here: Catalog, size: tuple[int, int], measured: Sequence[Measured]
) -> Path:
    """Keep the winner for high-performance mode.

    Returns:
        Path: the file that holds it.

    Raises:
        ConfigError: the cache folder can't be written.
    """
    from filelock import FileLock

    path = tuning_file()
    best = winner(measured)
    backend, precision = best.plan.name.split()
    record = {
        "plan": {"backend": backend, "precision": precision, "threads": best.plan.threads},
        "file": str(file),
        "measured": {
            str(one.plan): one.rejected
            or {"ms": round(one.milliseconds or 0, 2), "agreement": one.agreement}
            for one in measured
        },
    }
    place = Device(best.plan.device, () if best.plan.device == "cpu" else (best.plan.device_id,))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            records = _read()
            sizes = records.setdefault(_key(file, here, place), {})
            sizes.pop(_size_key(size), None)  # the latest comes last
            sizes[_size_key(size)] = record
            write_atomic(path, json.dumps(records, indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"can't write {path}: {error.strerror or error}; set SEGRT_HOME to another folder"
        ) from None
    return path


def _labels(
    pipeline: Pipeline, images: Sequence[Image], size: tuple[int, int]
) -> list[npt.NDArray[np.int32]]:
    results = (next(pipeline.predict(image, size)) for image in images)
    return [result.labels for result in results if isinstance(result, SegResult)]


def _finite(session: Session, images: Sequence[Image], size: tuple[int, int]) -> bool:
    transforms = Transforms.parse(list(session.meta.transforms))
    batch = np.empty((1, 3, *size), np.float32)
    for image in images:
        transforms.write(image, out=batch[0])
        if not np.isfinite(session.run(batch)).all():
            return False
    return True


def _key(file: Path, here: Catalog, device: Device) -> str:
    """What a measurement is good for: this model on this device of this hardware with these versions."""
    from segrt.backends.session import model_hash

    gpus = [gpu.name for gpu in here.gpus] if device.kind == "gpu" else []
    hardware = [here.cpu.name, here.cpu.cores, gpus, here.versions, str(device)]
    return (
        f"{model_hash(file)[:16]}-{hashlib.sha256(json.dumps(hardware).encode()).hexdigest()[:16]}"
    )


def _size_key(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size)) if size else ""


def _read() -> dict[str, dict[str, Any]]:
    path = tuning_file()
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning(
            "%s can't be read (%s): what was measured is not used; delete it and tune again",
            path,
            error,
        )
        return {}
    return content if isinstance(content, dict) else {}
