"""What is cached about a model: tuning results, compiled engines, memory needs, file hashes.

Tuning results are in `tuning.json` in the cache folder: model, hardware and versions -> inference
size -> the measurement.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from segrt import store
from segrt.backends.catalog import Catalog
from segrt.backends.footprint import Footprint, measure
from segrt.backends.plan import HpiConfig, Plan
from segrt.errors import ConfigError
from segrt.files import sha256, write_atomic
from segrt.types import Device

log = logging.getLogger("segrt")


def tuning_file() -> Path:
    """The file that contains the tuning results."""
    return store.home() / "tuning.json"


def recall(
    file: Path, catalog: Catalog, device: Device | None, size: tuple[int, int] | None
) -> HpiConfig | None:
    """The fastest plan measured for a model on this machine; None if it was not measured.

    Args:
        file: the `.onnx` file.
        catalog: what the machine offers now.
        device: the device specified by the user; None looks for GPU 0, then the CPU.
        size: (height, width) of inference; a measurement at this size is preferred, otherwise the
            latest one is used.
    """
    records = _read()
    for candidate in [device] if device else [Device("gpu", (0,)), Device("cpu")]:
        sizes = records.get(_key(file, catalog, candidate)) if records else None
        if sizes:
            try:
                record = sizes.get(_size_key(size), list(sizes.values())[-1])
                return HpiConfig.parse(record["plan"])
            except (AttributeError, TypeError, LookupError, ConfigError):
                log.warning("%s has an unknown format: delete it and tune again", tuning_file())
    return None


def remember(
    file: Path,
    catalog: Catalog,
    size: tuple[int, int],
    best: Plan,
    measured: Mapping[str, Any],
) -> Path:
    """Save the fastest plan for high-performance mode.

    Args:
        file: the `.onnx` file.
        catalog: what the machine offers.
        size: (height, width) of inference.
        best: the fastest plan.
        measured: the figures of all plans, for people who read the file.

    Returns:
        Path: the file that contains it.

    Raises:
        ConfigError: the cache folder can't be written.
    """
    path = tuning_file()
    record = {
        "plan": {
            "backend": best.backend.name,
            "precision": best.precision,
            "threads": best.threads,
        },
        "file": str(file),
        "measured": dict(measured),
    }
    device = Device(best.device, () if best.device == "cpu" else (best.device_id,))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            records = _read()
            sizes = records.setdefault(_key(file, catalog, device), {})
            sizes.pop(_size_key(size), None)  # the latest measurement is last
            sizes[_size_key(size)] = record
            write_atomic(path, json.dumps(records, indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"can't write {path}: {error.strerror or error}; set SEGRT_HOME to another folder"
        ) from None
    return path


def footprint(file: Path) -> Footprint:
    """The memory a model needs while it runs; measured once per model, then read from the cache."""
    path = store.home() / "footprints" / f"{model_hash(file)[:32]}.json"
    try:
        terms = json.loads(path.read_text("utf-8"))
        return Footprint(tuple((float(a), float(b), float(c)) for a, b, c in terms))
    except (OSError, ValueError, TypeError):
        measured = measure(file)
        with suppress(OSError):
            write_atomic(path, json.dumps(measured.terms).encode())
        return measured


def model_hash(file: Path) -> str:
    """The SHA-256 of a file, computed once until the file changes."""
    state = file.stat()
    return _sha256(file.absolute(), state.st_size, state.st_mtime_ns)


def engine_cache(file: Path, catalog: Catalog) -> str | None:
    """The folder for the engines that TensorRT compiles from a model; None without TensorRT.

    An engine only runs with the TensorRT version and on the kind of GPU it was built with. The plan
    adds the precision and the session adds the input size to the path.
    """
    if not catalog.gpus or not catalog.provider("TensorrtExecutionProvider"):
        return None
    wheels = "-".join(
        f"{name}-{version}"
        for name, version in catalog.versions
        if name.startswith(("onnxruntime", "tensorrt"))
    )
    generations = sorted({"sm{}{}".format(*gpu.compute_capability) for gpu in catalog.gpus})
    hardware = f"{wheels} {' '.join(gpu.name for gpu in catalog.gpus)}"
    key = hashlib.sha256(hardware.encode()).hexdigest()[:12]
    folder = f"{model_hash(file)[:16]}-{'-'.join(generations)}-{key}"
    return str(store.home() / "tensorrt" / folder)


@lru_cache(maxsize=32)
def _sha256(file: Path, size: int, changed: int) -> str:
    return sha256(file)


def _key(file: Path, catalog: Catalog, device: Device) -> str:
    """What a measurement applies to: a model on a device of this hardware with these versions."""
    gpus = [gpu.name for gpu in catalog.gpus] if device.kind == "gpu" else []
    hardware = [catalog.cpu.name, catalog.cpu.cores, gpus, catalog.versions, str(device)]
    digest = hashlib.sha256(json.dumps(hardware).encode()).hexdigest()
    return f"{model_hash(file)[:16]}-{digest[:16]}"


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
            "%s can't be read (%s): tuning results are ignored; delete it and tune again",
            path,
            error,
        )
        return {}
    return content if isinstance(content, dict) else {}
