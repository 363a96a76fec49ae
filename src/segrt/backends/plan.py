"""How a session runs. A Plan is data; choosing one is a pure function of what is asked for and what is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from segrt.backends.catalog import Catalog
from segrt.errors import ConfigError, DeviceError
from segrt.types import Device, Mode

MAX_THREADS = 8
"""Most threads of normal mode: what the published CPU figures were measured with."""

Shapes: TypeAlias = Literal["dynamic", "repeated", "fixed"]
"""dynamic: one session for every size. fixed: a session for each size. repeated: one for every size, and others for
those few sizes that come again and again."""


@dataclass(frozen=True)
class Backend:
    """A row of the table of what ONNX Runtime can run on.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        device: the kind of device that it works on.
        precisions: what it can be told to compute in.
        shapes: how it likes its inputs.
        install: what brings it.
    """

    provider: str
    device: str
    precisions: tuple[str, ...]
    shapes: Shapes
    install: str


# Measured on 2 cores at 512x1024: fixing the size makes OpenVINO 1.1 (PP-LiteSeg) to 1.8 (SegFormer-B0) times as fast
# and costs 0.5 to 2.5 s a size; the CPU provider, which then upsamples in its own layout, 1.0 (PP-LiteSeg) to 1.2 times
# (SeaFormer), for 0.1 to 4 s. TensorRT builds an engine for each size anyway.
BACKENDS = {
    "tensorrt": Backend(
        "TensorrtExecutionProvider",
        "gpu",
        ("fp16", "bf16", "tf32", "fp32"),
        "fixed",
        "pip install 'segrt[gpu]'",
    ),
    "cuda": Backend(
        "CUDAExecutionProvider", "gpu", ("tf32", "fp32"), "dynamic", "pip install 'segrt[gpu]'"
    ),
    "openvino": Backend(
        "OpenVINOExecutionProvider", "cpu", ("bf16", "fp32"), "repeated", "pip install 'segrt[cpu]'"
    ),
    "cpu": Backend(
        "CPUExecutionProvider", "cpu", ("fp32",), "repeated", "pip install 'segrt[cpu]'"
    ),
    "cann": Backend(
        "CANNExecutionProvider", "npu", ("fp16", "fp32"), "fixed", "pip install onnxruntime-cann"
    ),
    "migraphx": Backend(
        "MIGraphXExecutionProvider",
        "dcu",
        ("fp16", "fp32"),
        "fixed",
        "pip install onnxruntime-migraphx",
    ),
    "rocm": Backend(
        "ROCMExecutionProvider", "dcu", ("fp32",), "dynamic", "pip install onnxruntime-rocm"
    ),
}
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")

NORMAL = ("cuda fp32", "cpu fp32", "cann fp32", "migraphx fp32", "rocm fp32")
"""Normal mode: for each kind of device the first of these that runs here."""

PRESELECTED = (
    *("tensorrt fp16", "tensorrt tf32", "tensorrt fp32", "cuda tf32", "cuda fp32"),
    *("openvino bf16", "openvino fp32", "cpu fp32"),
    *("cann fp16", "cann fp32", "migraphx fp16", "migraphx fp32", "rocm fp32"),
)
"""High-performance mode, for models that have no list of their own: for each kind of device the first that runs here.

The exported graphs hold FP32 weights, so CUDA by itself has TF32 and no half precision; TensorRT makes its own."""

_MAKERS = {
    "xpu": "Kunlun XPUs",
    "mlu": "Cambricon MLUs",
    "gcu": "Enflame GCUs",
    "iluvatar_gpu": "Iluvatar GPUs",
    "metax_gpu": "MetaX GPUs",
}


@dataclass(frozen=True)
class Plan:
    """Everything a session needs to know.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        precision: the arithmetic: "fp32", "tf32", "bf16" or "fp16".
        threads: threads inside one operator, for what runs on the CPU.
        device: the kind of device: "cpu", "gpu", ...
        device_id: which of them.
        shapes: whether sizes of images get sessions of their own.
        options: of the provider, as (name, value).
        note: why this is not what one might expect; "" where it is.
    """

    provider: str
    precision: str
    threads: int
    device: str = "cpu"
    device_id: int = 0
    shapes: Shapes = "dynamic"
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """Backend and precision, as `model_zoo.yaml` and `segrt tune` write them: "openvino fp32"."""
        return f"{next(name for name, row in BACKENDS.items() if row.provider == self.provider)} {self.precision}"

    @property
    def takes_float32_graph(self) -> bool:
        """Whether it runs the second graph of a file that has one: see `segrt.float32`."""
        return self.device == "cpu" and self.precision == "fp32"

    def __str__(self) -> str:
        where = self.device if self.device == "cpu" else f"{self.device}:{self.device_id}"
        threads = (
            f", {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else ""
        )
        return f"{self.provider} {self.precision} on {where}{threads}"


@dataclass(frozen=True)
class HpiConfig:
    """What the user fixes of high-performance mode; None and empty leave the choice to segrt.

    Attributes:
        backend: a key of `BACKENDS`.
        precision: one of `PRECISIONS`.
        threads: threads inside one operator.
        provider_options: of the execution provider, as (name, value); they win over those that segrt sets.
    """

    backend: str | None = None
    precision: str | None = None
    threads: int | None = None
    provider_options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, value: object) -> HpiConfig:
        """Check a mapping, or the JSON or YAML text of one.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        if isinstance(value, HpiConfig):
            return value
        if isinstance(value, str):
            import yaml

            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ConfigError(f"hpi_config {value!r} is neither JSON nor YAML") from None
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise ConfigError(
                f'hpi_config {value!r} is not a mapping: write it like {{"backend": "openvino"}}'
            )
        keys = ("backend", "precision", "threads", "provider_options")
        for key in value:
            if key not in keys:
                raise ConfigError(
                    f"unknown key {key!r} in hpi_config{_near(key, keys)}: use {', '.join(keys)}"
                )
        backend, precision, threads = (
            value.get("backend"),
            value.get("precision"),
            value.get("threads"),
        )
        for key, got, known in (
            ("backend", backend, tuple(BACKENDS)),
            ("precision", precision, PRECISIONS),
        ):
            if got is not None and got not in known:
                raise ConfigError(
                    f"hpi_config: unknown {key} {got!r}{_near(got, known)}: use one of {', '.join(known)}"
                )
        if backend and precision and precision not in BACKENDS[backend].precisions:
            known = BACKENDS[backend].precisions
            raise ConfigError(f"hpi_config: {backend} has no {precision}: use {' or '.join(known)}")
        if threads is not None and not (type(threads) is int and 1 <= threads <= 1024):
            raise ConfigError(
                f"hpi_config: threads {threads!r} is not a whole number from 1 to 1024"
            )
        options = value.get("provider_options") or {}
        if not isinstance(options, dict) or not all(
            isinstance(key, str) and isinstance(item, (str, int, float, dict))
            for key, item in options.items()
        ):
            raise ConfigError(
                f"hpi_config: provider_options {options!r} does not map names to text or numbers"
            )
        return cls(
            backend,
            precision,
            threads,
            tuple((key, _option(item)) for key, item in options.items()),
        )


def plans(
    device: Device | None,
    mode: Mode,
    catalog: Catalog,
    *,
    preselected: Sequence[str] = (),
    tuned: HpiConfig | None = None,
    hpi_config: HpiConfig | None = None,
    cache: str | None = None,
) -> tuple[Plan, ...]:
    """Choose how to run.

    Args:
        device: what the user named; None for GPU 0 if it can run, else the CPU.
        mode: normal or high-performance.
        catalog: what the machine offers.
        preselected: what high-performance mode tries for this model, best first, as in `PRESELECTED`; empty for that.
        tuned: what `segrt tune` found best here.
        hpi_config: what the user fixes of high-performance mode.
        cache: folder of this model's compiled engines; None for none.

    Returns:
        tuple of Plan: at least one, the best first. All are on the device, and with the backend and precision, that
        the user named: the later ones are for when an earlier one fails to start.

    Raises:
        DeviceError: nothing that the user named can run here; the message gives the cause and what would run.
    """
    fixed = hpi_config or HpiConfig()
    if device is not None and len(device.ids) > 1:
        raise DeviceError(
            f"device {str(device)!r} names several: a session runs on one, such as {device.kind}:0"
        )
    if device is not None and device.kind in _MAKERS:
        raise DeviceError(
            f"device {str(device)!r} can't run: ONNX Runtime has no execution provider for {_MAKERS[device.kind]}"
            + _instead(mode, catalog)
        )
    best = f"{tuned.backend} {tuned.precision}" if tuned and mode is Mode.HIGH_PERFORMANCE else ""
    names = _names(mode, preselected, best, fixed)
    kinds = (device.kind,) if device else ("gpu", "cpu")
    if device is None and fixed.backend:
        kinds = (BACKENDS[fixed.backend].device,)
    index = device.ids[0] if device and device.ids else 0
    found, reasons = [], {}
    for kind in kinds:
        for name in names:
            backend, precision = name.split()
            if BACKENDS[backend].device != kind:
                continue
            if why := _why_not(
                backend, precision, index, catalog, named=name == best or bool(fixed.precision)
            ):
                reasons[name] = why
                continue
            settings = (
                replace(fixed, threads=fixed.threads or tuned.threads)
                if tuned and name == best
                else fixed
            )
            found.append(_plan(backend, precision, index, catalog, mode, settings, cache))
    if not found:
        raise DeviceError(_refusal(device, mode, catalog, fixed, reasons))
    gpu = [why for name, why in reasons.items() if BACKENDS[name.split()[0]].device == "gpu"]
    expected = catalog.gpus or catalog.provider("CUDAExecutionProvider")
    if device is None and expected and gpu and found[0].device == "cpu":
        found[0] = replace(
            found[0], note=f"the GPU is not used ({'; '.join(dict.fromkeys(gpu))}): {found[0]} runs"
        )
    return tuple(found)


def every(device: Device | None, catalog: Catalog, *, cache: str | None = None) -> tuple[Plan, ...]:
    """All plans that run here, for `segrt tune` to measure: the one of normal mode first.

    Raises:
        DeviceError: see `plans`.
    """
    normal = plans(device, Mode.NORMAL, catalog)[0]
    place = Device(normal.device, () if normal.device == "cpu" else (normal.device_id,))
    found = [normal]
    for backend, row in BACKENDS.items():
        for precision in row.precisions if row.device == place.kind else ():
            if not _why_not(backend, precision, normal.device_id, catalog, named=True):
                plan = _plan(
                    backend,
                    precision,
                    normal.device_id,
                    catalog,
                    Mode.HIGH_PERFORMANCE,
                    HpiConfig(),
                    cache,
                )
                found += [plan] if plan != normal else []
    return tuple(found)


def check_names(names: Iterable[str]) -> None:
    """Check a pre-selected list.

    Raises:
        ValueError: a name is not a backend and one of its precisions.
    """
    known = [
        f"{name} {precision}" for name, row in BACKENDS.items() for precision in row.precisions
    ]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown plan {name!r}{_near(name, known)}: use {', '.join(known)}")


def _names(mode: Mode, preselected: Sequence[str], best: str, fixed: HpiConfig) -> list[str]:
    """Backends and precisions in the order in which they are tried."""
    if mode is Mode.NORMAL:
        return list(NORMAL)
    if fixed.backend or fixed.precision:
        return [
            f"{backend} {precision}"
            for backend, row in BACKENDS.items()
            for precision in row.precisions
            if fixed.backend in (None, backend) and fixed.precision in (None, precision)
        ]
    # What was measured comes first; normal mode's plan is the last resort where a model's own list leaves it out.
    return list(dict.fromkeys([*([best] if best else []), *(preselected or PRESELECTED), *NORMAL]))


def _why_not(backend: str, precision: str, index: int, catalog: Catalog, *, named: bool) -> str:
    """Why this can't run here, or "" if it can. `named`: the user, or a measurement, asks for just this."""
    row = BACKENDS[backend]
    provider = catalog.provider(row.provider)
    why = _why_no_gpu(index, catalog) if row.device == "gpu" else ""
    if not why and provider is None:
        why = f"the installed ONNX Runtime has no {row.provider}: run  {row.install}"
    elif not why and provider and provider.trouble:
        why = f"{row.provider} can't run ({provider.trouble}): run  {provider.mend or row.install}"
    elif not why and row.device == "gpu":
        why = _why_not_on(catalog.gpus[index].compute_capability, backend, precision)
    elif (backend, precision) == ("openvino", "bf16"):
        if not {"avx512_bf16", "amx_bf16"} & catalog.cpu.features:
            why = "this CPU has no bf16 instructions"
        elif not named and not catalog.cpu.fast_bf16:
            why = "bf16 is slower than FP32 on Intel CPUs without AMX"
    return why


def _why_no_gpu(index: int, catalog: Catalog) -> str:
    if not catalog.gpus:
        cuda = catalog.provider("CUDAExecutionProvider")
        driver = (
            " and no NVIDIA driver (libcuda.so.1)"
            if cuda and "libcuda.so.1" in cuda.missing
            else ""
        )
        return f"there is no GPU that CUDA can use{driver}"
    if index >= len(catalog.gpus):
        return f"there is no GPU {index}, only {', '.join(map(str, range(len(catalog.gpus))))}"
    return ""


def _why_not_on(capability: tuple[int, int], backend: str, precision: str) -> str:
    """What a GPU's generation forbids."""
    generation = ".".join(map(str, capability))
    least = {"fp16": (7, 0), "bf16": (8, 0), "tf32": (8, 0)}.get(precision, (0, 0))
    if capability < least:
        return (
            f"{precision} needs compute capability {least[0]}.{least[1]}, this GPU has {generation}"
        )
    if (backend, precision) == ("tensorrt", "fp32") and capability >= (8, 0):
        return "TensorRT computes FP32 as TF32 on this GPU, and ONNX Runtime can't tell it not to"
    return ""


def _plan(
    backend: str,
    precision: str,
    index: int,
    catalog: Catalog,
    mode: Mode,
    fixed: HpiConfig,
    cache: str | None,
) -> Plan:
    row, cores = BACKENDS[backend], max(1, catalog.cpu.cores)
    limited = mode is Mode.NORMAL or row.device != "cpu"
    threads = fixed.threads or (min(MAX_THREADS, cores) if limited else cores)
    options = _options(backend, precision, index, threads, cache)
    options.update(fixed.provider_options)
    return Plan(
        row.provider, precision, threads, row.device, index, row.shapes, tuple(options.items())
    )


def _options(
    backend: str, precision: str, index: int, threads: int, cache: str | None
) -> dict[str, str]:
    if backend == "openvino":
        # Without a hint OpenVINO picks bf16 by itself where the CPU has it. Given as plain options, both are ignored.
        hint = {"INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision)}
        return {"load_config": json.dumps({"CPU": hint | {"INFERENCE_NUM_THREADS": str(threads)}})}
    if backend == "cpu":
        return {}
    options = {"device_id": str(index)}
    if backend == "cuda":
        # The arena then grows by what is asked for: images of many sizes do not double it again and again.
        options |= {
            "use_tf32": str(int(precision == "tf32")),
            "arena_extend_strategy": "kSameAsRequested",
        }
    elif backend == "tensorrt":
        options |= {f"trt_{half}_enable": "1" for half in ("fp16", "bf16") if half == precision}
        if cache:
            folder = f"{cache}-{precision}"
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
            options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    elif backend == "cann":
        options |= {
            "precision_mode": "force_fp16" if precision == "fp16" else "must_keep_origin_dtype"
        }
    elif backend == "migraphx":
        options |= {"migraphx_fp16_enable": str(int(precision == "fp16"))}
    return options


def _refusal(
    device: Device | None, mode: Mode, catalog: Catalog, fixed: HpiConfig, reasons: dict[str, str]
) -> str:
    what = " ".join(word for word in (fixed.backend, fixed.precision) if word)
    if device is not None and not reasons:
        return (
            f"{what or 'this mode'} does not run on device {str(device)!r}: leave out one of them"
        )
    asked = f"device {str(device)!r}" if device else what or "every device"
    why = "; ".join(dict.fromkeys(reasons.values())) or "no backend has that precision"
    if device is None and not what:
        return f"nothing can run here: {why}"
    return f"{asked} can't run here: {why}{_instead(mode, catalog)}"


def _instead(mode: Mode, catalog: Catalog) -> str:
    try:
        plan = plans(None, mode, catalog)[0]
    except DeviceError:
        return ""
    return f"; device {plan.device!r} would run {plan}"


def _option(value: Any) -> str:
    return (
        json.dumps(value)
        if isinstance(value, dict)
        else str(int(value) if isinstance(value, bool) else value)
    )


def _near(word: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
