"""How a session runs. A Plan is data; choosing one is a pure function."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from segrt import checked_yaml
from segrt.backends.catalog import Catalog, Cpu
from segrt.errors import ConfigError, DeviceError
from segrt.graph_tail import Rounded
from segrt.types import Device, Mode
from segrt.validation import did_you_mean

MAX_THREADS = 8
"""Maximum number of threads in normal mode, as in the published CPU figures."""

Shapes: TypeAlias = Literal["dynamic", "repeated", "fixed"]
"""dynamic: one session for all input sizes. fixed: one session per size. repeated: one session for
all sizes, and a session of its own for each of the few sizes that recur."""


@dataclass(frozen=True)
class Backend:
    """A way to run models that ONNX Runtime offers.

    Attributes:
        name: as written in plan names and in `hpi_config`.
        provider: ONNX Runtime's name of the execution provider.
        device: the kind of device it runs on.
        precisions: the arithmetic it can be asked for.
        shapes: which input sizes get a session of their own.
        install: what to install, a key of `catalog.RUNTIMES`.
    """

    name: str
    provider: str
    device: str
    precisions: tuple[str, ...]
    shapes: Shapes
    install: str


# Measured on 2 cores at 512x1024: a fixed size makes OpenVINO 1.1 (PP-LiteSeg) to 1.8 times
# (SegFormer-B0) as fast and costs 0.5 to 2.5 s per size; it makes the CPU provider, which then
# upsamples in its own layout, 1.0 (PP-LiteSeg) to 1.2 times (SeaFormer) as fast, for 0.1 to 4 s.
# TensorRT builds an engine per size anyway.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            name="tensorrt",
            provider="TensorrtExecutionProvider",
            device="gpu",
            precisions=("int8", "fp16", "bf16", "tf32", "fp32"),
            shapes="fixed",
            install="segrt[gpu]",
        ),
        # Not yet measured on a GPU, fp16 comes last: it runs if asked for, or measured fastest.
        Backend(
            name="cuda",
            provider="CUDAExecutionProvider",
            device="gpu",
            precisions=("tf32", "fp32", "fp16"),
            shapes="dynamic",
            install="segrt[gpu]",
        ),
        Backend(
            name="openvino",
            provider="OpenVINOExecutionProvider",
            device="cpu",
            precisions=("int8", "bf16", "fp32"),
            shapes="repeated",
            install="segrt[openvino]",
        ),
        Backend("cpu", "CPUExecutionProvider", "cpu", ("int8", "fp32"), "repeated", "segrt[cpu]"),
        Backend(
            name="cann",
            provider="CANNExecutionProvider",
            device="npu",
            precisions=("fp16", "fp32"),
            shapes="fixed",
            install="onnxruntime-cann",
        ),
        Backend(
            name="migraphx",
            provider="MIGraphXExecutionProvider",
            device="dcu",
            precisions=("fp16", "fp32"),
            shapes="fixed",
            install="onnxruntime-migraphx",
        ),
        Backend("rocm", "ROCMExecutionProvider", "dcu", ("fp32",), "dynamic", "onnxruntime-rocm"),
    )
}
CUDA_GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable")
"""Provider options of CUDA and TensorRT that record the runs of a session as a CUDA graph."""

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
"""int8 is for files that are quantised; their other layers then run in the best half precision."""

FAMILIES = {"onnxruntime": ("cuda", "cpu")}
"""Names in `hpi_config` that stand for several backends: PaddleX's name of ONNX Runtime's own."""

Choice: TypeAlias = tuple[Backend, str]
"""A backend and one of its precisions, written as "openvino fp32"."""


def parse_choice(name: str) -> Choice:
    """Parse a backend and its precision.

    Example:
        >>> backend, precision = parse_choice("openvino fp32")

    Raises:
        ConfigError: there is no such backend, or it lacks that precision.
    """
    choices = {
        f"{b.name} {precision}": (b, precision)
        for b in BACKENDS.values()
        for precision in b.precisions
    }
    if name not in choices:
        hint = did_you_mean(name, choices)
        raise ConfigError(f"unknown plan {name!r}{hint}: use {', '.join(choices)}")
    return choices[name]


NORMAL = tuple(
    map(
        parse_choice,
        ("cuda fp32", "openvino fp32", "cpu fp32", "cann fp32", "migraphx fp32", "rocm fp32"),
    )
)
"""Normal mode: for each kind of device, the first of these that can run."""

PRESELECTED = tuple(
    map(
        parse_choice,
        (
            *("tensorrt int8", "openvino int8", "cpu int8"),
            *("tensorrt fp16", "tensorrt tf32", "tensorrt fp32", "cuda tf32", "cuda fp32"),
            *("openvino bf16", "openvino fp32", "cpu fp32"),
            *("cann fp16", "cann fp32", "migraphx fp16", "migraphx fp32", "rocm fp32"),
        ),
    )
)
"""High-performance mode, for models without a list of their own: for each kind of device, the first
of these that can run.

CUDA in fp16 is left out until it has been measured on a GPU: `segrt tune` offers it."""

_UNSUPPORTED = {
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
        backend: what runs the model.
        precision: the arithmetic: "fp32", "tf32", "bf16", "fp16" or "int8".
        threads: threads per operator, for backends on the CPU.
        device_id: device index.
        options: provider options, as (name, value) pairs.
        note: why this is not the plan one might expect; empty if it is.
        first: the plan for input sizes that have no session of their own, since this one takes long
            to compile, or is inexact there; None if this plan runs all sizes.
    """

    backend: Backend
    precision: str
    threads: int
    device_id: int = 0
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""
    first: Plan | None = None

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider."""
        return self.backend.provider

    @property
    def device(self) -> str:
        """The kind of device: "cpu", "gpu", ..."""
        return self.backend.device

    @property
    def general(self) -> Plan:
        """The plan for input sizes that have no session of their own."""
        return self.first or self

    @property
    def where(self) -> str:
        """The device, as in "cpu" or "gpu:0"."""
        return self.device if self.device == "cpu" else f"{self.device}:{self.device_id}"

    @property
    def name(self) -> str:
        """Backend and precision, as in `model_zoo.yaml` and `segrt tune`: "openvino fp32"."""
        return f"{self.backend.name} {self.precision}"

    @property
    def uses_second_graph(self) -> bool:
        """Whether it runs the second graph of files that contain one; see `segrt.second_graph`."""
        return self.device == "cpu" and self.precision == "fp32"

    @property
    def uses_half_graph(self) -> bool:
        """Whether the graph is converted to float16; see `segrt.half_graph`."""
        return self.name == "cuda fp16"

    @property
    def captures(self) -> bool:
        """Whether runs are recorded as a CUDA graph and replayed, as the user's options say."""
        options = dict(self.options)
        given = (options.get(name, "0") for name in CUDA_GRAPH_OPTIONS)
        return any(value.lower() in ("1", "true") for value in given)

    @property
    def shapes(self) -> Shapes:
        """Which input sizes get a session of their own; a CUDA graph is for one size.

        Measured: in int8, an OpenVINO session for all sizes changes up to 11% of the labels of a
        photo, one for a single size 1%.
        """
        is_inexact = self.name == "openvino int8" and self.first is None
        return "fixed" if self.captures or is_inexact else self.backend.shapes

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        threads = f", {self.threads} thread{plural}" if self.device == "cpu" else ""
        return f"{self.provider} {self.precision} on {self.where}{threads}"


class HpiConfig(BaseModel):
    """Settings of high-performance mode fixed by the user; None leaves the choice to segrt.

    Attributes:
        backend: a key of `BACKENDS` or `FAMILIES`.
        precision: one of `PRECISIONS`.
        threads: threads per operator.
        provider_options: options of the execution provider, as (name, value) pairs; they override
            those that segrt sets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str | None = None
    precision: str | None = None
    threads: int | None = Field(None, strict=True, ge=1, le=1024)
    provider_options: tuple[tuple[str, str], ...] = ()

    @field_validator("backend", "precision", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> object:
        known = (*BACKENDS, *FAMILIES) if info.field_name == "backend" else PRECISIONS
        if value is not None and value not in known:
            hint = did_you_mean(value, known)
            raise ValueError(f"unknown {info.field_name} {value!r}{hint}: use {', '.join(known)}")
        return value

    @field_validator("provider_options", mode="before")
    @classmethod
    def _options(cls, value: object) -> object:
        if isinstance(value, Mapping):
            if all(
                isinstance(name, str) and isinstance(option, (str, int, float, dict))
                for name, option in value.items()
            ):
                return tuple((name, _option_text(option)) for name, option in value.items())
            raise ValueError(f"{value!r} does not map names to text or numbers")
        return value or ()

    @model_validator(mode="after")
    def _precision_of_backend(self) -> HpiConfig:
        if self.backend and self.precision:
            known = dict.fromkeys(p for name in self.backends for p in BACKENDS[name].precisions)
            if self.precision not in known:
                raise ValueError(
                    f"{self.backend} has no {self.precision}: use {' or '.join(known)}"
                )
        return self

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends it allows; all of them unless one is fixed."""
        if self.backend is None:
            return tuple(BACKENDS)
        return FAMILIES.get(self.backend, (self.backend,))

    @classmethod
    def parse(cls, value: object) -> HpiConfig:
        """Check a mapping, or the JSON or YAML text of one.

        Example:
            >>> HpiConfig.parse('{"backend": "openvino", "threads": 4}').threads
            4

        Raises:
            ConfigError: a key is unknown, or a value is invalid.
        """
        if isinstance(value, HpiConfig):
            return value
        if isinstance(value, str):
            value = checked_yaml.parse(value, "hpi_config")
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"hpi_config {value!r:.80} is not a mapping: write it like "
                '{"backend": "openvino"}'
            )
        return checked_yaml.check(
            {str(key): item for key, item in value.items()}, cls, "hpi_config"
        )


@dataclass(frozen=True)
class _Request:
    """What `plans` was asked for."""

    device: Device | None
    mode: Mode
    catalog: Catalog
    fixed: HpiConfig
    cache: str | None
    quantised: Rounded

    @property
    def index(self) -> int:
        return self.device.ids[0] if self.device and self.device.ids else 0


def plans(
    device: Device | None,
    mode: Mode,
    catalog: Catalog,
    *,
    preselected: Sequence[str] = (),
    tuned: HpiConfig | None = None,
    hpi_config: HpiConfig | None = None,
    cache: str | None = None,
    quantised: Rounded = "",
) -> tuple[Plan, ...]:
    """Choose how to run.

    Args:
        device: the device specified by the user; None for GPU 0 if it can run, else the CPU.
        mode: normal or high-performance.
        catalog: what the machine offers.
        preselected: plan names that high-performance mode tries for this model, best first; empty
            for `PRESELECTED`.
        tuned: the fastest plan measured by `segrt tune`.
        hpi_config: settings of high-performance mode fixed by the user.
        cache: folder of this model's compiled engines; None for none.
        quantised: how the model is; see `segrt.graph_tail.rounded`.

    Returns:
        tuple of Plan: at least one, best first. All are on the device, and have the backend and the
        precision, that the user specified; later ones are used if an earlier one fails to start.

    Raises:
        DeviceError: nothing the user specified can run; the message names the cause and the
            alternative.
    """
    request = _Request(device, mode, catalog, hpi_config or HpiConfig(), cache, quantised)
    _refuse_unsupported(request)
    best = None
    if tuned and tuned.backend and tuned.precision and mode is Mode.HIGH_PERFORMANCE:
        best = BACKENDS[tuned.backend], tuned.precision
    found: list[Plan] = []
    reasons: dict[Choice, str] = {}
    first: dict[Choice, str] = {}
    choices = _choices(mode, [parse_choice(name) for name in preselected], best, request.fixed)
    for kind in _kinds(request):
        for choice in choices:
            backend, precision = choice
            if backend.device != kind:
                continue
            explicit = choice == best or bool(request.fixed.precision)
            if why := _why_not(backend, precision, request, explicit=explicit):
                reasons[choice] = why
                continue
            threads = request.fixed.threads
            if tuned and choice == best:
                threads = threads or tuned.threads
            first = first if found else dict(reasons)
            found.append(_plan(request, backend, precision, threads))
    if not found:
        raise DeviceError(_refusal(request, reasons))
    found[0] = replace(found[0], note=_note(request, found[0], first))
    if found[0].backend.name == "openvino" and (
        mode is Mode.NORMAL or found[0].precision == "int8"
    ):
        same = (plan for plan in found[1:] if plan.precision == found[0].precision)
        found[0] = replace(found[0], first=next(same, None))
    return tuple(found)


def every(
    device: Device | None, catalog: Catalog, *, cache: str | None = None, quantised: Rounded = ""
) -> tuple[Plan, ...]:
    """All plans that can run, for `segrt tune` to measure; the plan of normal mode is first.

    The arguments are those of `plans`.

    Raises:
        DeviceError: see `plans`.
    """
    normal = replace(plans(device, Mode.NORMAL, catalog, quantised=quantised)[0], note="")
    where = Device(normal.device, () if normal.device == "cpu" else (normal.device_id,))
    request = _Request(where, Mode.HIGH_PERFORMANCE, catalog, HpiConfig(), cache, quantised)
    found = [normal]
    for backend in BACKENDS.values():
        for precision in backend.precisions if backend.device == normal.device else ():
            if not _why_not(backend, precision, request, explicit=True):
                plan = _plan(request, backend, precision, None)
                same = plan == replace(normal, first=None)
                found += [] if same else [plan]
    return tuple(found)


def _refuse_unsupported(request: _Request) -> None:
    device = request.device
    if device is not None and len(device.ids) > 1:
        raise DeviceError(
            f"device {str(device)!r} names several: a session runs on one, such as {device.kind}:0"
        )
    if device is not None and device.kind in _UNSUPPORTED:
        raise DeviceError(
            f"device {str(device)!r} can't run: ONNX Runtime has no execution provider for "
            f"{_UNSUPPORTED[device.kind]}{_instead(request)}"
        )


def _kinds(request: _Request) -> tuple[str, ...]:
    """The kinds of devices to consider, in order."""
    if request.device:
        return (request.device.kind,)
    if request.fixed.backend:
        return tuple(dict.fromkeys(BACKENDS[name].device for name in request.fixed.backends))
    return "gpu", "cpu"


def _choices(
    mode: Mode, preselected: Sequence[Choice], best: Choice | None, fixed: HpiConfig
) -> Iterable[Choice]:
    """Backends and precisions in the order in which they are tried."""
    if mode is Mode.NORMAL:
        return NORMAL
    if fixed.backend or fixed.precision:
        return [
            (backend, precision)
            for backend in BACKENDS.values()
            for precision in backend.precisions
            if backend.name in fixed.backends and fixed.precision in (None, precision)
        ]
    # The measured plan comes first; normal mode's is the last resort if a model's list omits it.
    measured = [best] if best else []
    return dict.fromkeys([*measured, *(preselected or PRESELECTED), *NORMAL])


def _why_not(backend: Backend, precision: str, request: _Request, *, explicit: bool) -> str:
    """Why this can't run, or "". `explicit`: the user, or a measurement, asks for exactly this."""
    index, catalog = request.index, request.catalog
    provider = catalog.provider(backend.provider)
    why = _why_no_gpu(index, catalog) if backend.device == "gpu" else ""
    if backend.name == "openvino":
        why = _why_not_on_cpu(catalog.cpu, precision, explicit, bool(request.fixed.backend))
    elif backend.name == "cpu" and request.fixed.provider_options:
        names = ", ".join(name for name, _ in request.fixed.provider_options)
        why = f"{backend.provider} has no provider options ({names}): leave them out"
    why = why or _why_not_int8(backend, precision, catalog.cpu.features, request.quantised)
    if not why and provider is None:
        why = f"the installed ONNX Runtime has no {backend.provider}"
        if backend.name == "openvino" and not catalog.has_openvino:
            why = "OpenVINO has no wheel for this system"
        else:
            why += f": run  {catalog.install(backend.install)}"
    elif not why and provider and provider.problem:
        fix = provider.fix or catalog.install(backend.install)
        why = f"{backend.provider} can't run ({provider.problem}): run  {fix}"
    elif not why and backend.device == "gpu":
        why = _why_not_on(catalog.gpus[index].compute_capability, backend, precision)
        half = (backend.name, precision) == ("cuda", "fp16")
        if not why and half and "onnx" not in dict(catalog.versions):
            why = "converting a model to fp16 requires the package onnx: run  pip install onnx"
    return why


def _why_not_on_cpu(cpu: Cpu, precision: str, explicit: bool, fixed: bool) -> str:
    """What the CPU's instructions rule out with OpenVINO. `fixed`: the user asks for OpenVINO."""
    if precision == "bf16":
        if not {"avx512_bf16", "amx_bf16"} & cpu.features:
            return "this CPU has no bf16 instructions"
        if not explicit and not cpu.fast_bf16:
            return "bf16 is slower than FP32 on Intel CPUs without AMX"
    if precision == "fp32" and not (explicit or fixed or cpu.gains_by_openvino):
        return "OpenVINO is not faster in FP32 on CPUs without AVX-512"
    return ""


def _why_not_int8(
    backend: Backend, precision: str, features: frozenset[str], quantised: Rounded
) -> str:
    """What the model rules out by being quantised, or not."""
    if precision == "int8" and not quantised:
        return "the model is not quantised: make its int8 form with segrt quantize"
    if (backend.name, precision) == ("openvino", "int8"):
        # Measured on AVX2 alone: 94% of the labels of FP32, against 99% of the CPU provider's.
        if not {"avx512_vnni", "avx_vnni", "amx_int8"} & features:
            return "OpenVINO's int8 is inexact on CPUs without VNNI instructions"
        # Measured with VNNI: 94% of the labels with signed values, 99% with unsigned ones.
        if quantised == "int8":
            return "OpenVINO's int8 is inexact with signed values: quantise for --device cpu"
    if (backend.name, precision, quantised) == ("tensorrt", "int8", "uint8"):
        return "TensorRT takes signed values only: quantise for --device gpu"
    # ONNX Runtime's own providers can compute what a quantised layer stands for in FP32.
    others = quantised and precision != "int8" and backend.name != "cpu"
    if others and "int8" in backend.precisions:
        return f"{backend.provider} runs quantised models in int8"
    return ""


def _why_no_gpu(index: int, catalog: Catalog) -> str:
    if not catalog.gpus:
        cuda = catalog.provider("CUDAExecutionProvider")
        no_driver = cuda and "libcuda.so.1" in cuda.missing
        driver = " and no NVIDIA driver (libcuda.so.1)" if no_driver else ""
        return f"there is no GPU that CUDA can use{driver}"
    if index >= len(catalog.gpus):
        return f"there is no GPU {index}, only {', '.join(map(str, range(len(catalog.gpus))))}"
    return ""


def _why_not_on(capability: tuple[int, int], backend: Backend, precision: str) -> str:
    """What the GPU's compute capability rules out."""
    generation = ".".join(map(str, capability))
    least = {"fp16": (7, 0), "bf16": (8, 0), "tf32": (8, 0)}.get(precision, (0, 0))
    if capability < least:
        return (
            f"{precision} needs compute capability {least[0]}.{least[1]}, this GPU has {generation}"
        )
    if (backend.name, precision) == ("tensorrt", "fp32") and capability >= (8, 0):
        return "TensorRT computes FP32 as TF32 on this GPU, and ONNX Runtime can't tell it not to"
    return ""


def _plan(request: _Request, backend: Backend, precision: str, threads: int | None) -> Plan:
    cores = max(1, request.catalog.cpu.cores)
    limited = request.mode is Mode.NORMAL or backend.device != "cpu"
    threads = threads or (min(MAX_THREADS, cores) if limited else cores)
    options = _provider_options(backend, precision, request, threads)
    options.update(request.fixed.provider_options)
    return Plan(backend, precision, threads, request.index, tuple(options.items()))


def _provider_options(
    backend: Backend, precision: str, request: _Request, threads: int
) -> dict[str, str]:
    index, cache = request.index, request.cache
    if backend.name == "openvino":
        if precision == "int8":  # the precision of the layers that are not quantised
            precision = "bf16" if request.catalog.cpu.fast_bf16 else "fp32"
        # Without a hint OpenVINO uses bf16 wherever the CPU supports it. Passed as plain options,
        # both settings are ignored.
        config = {"INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision)}
        config["INFERENCE_NUM_THREADS"] = str(threads)
        # OpenVINO pins the threads of each session to the first cores, so that sessions that share
        # the cores would all wait for the same ones.
        if threads < request.catalog.cpu.cores:
            config["ENABLE_CPU_PINNING"] = "NO"
        return {"load_config": json.dumps({"CPU": config})}
    if backend.name == "cpu":
        return {}
    options = {"device_id": str(index)}
    if backend.name == "cuda":
        options["use_tf32"] = str(int(precision == "tf32"))
        # The arena grows by what is requested, so images of many sizes don't keep doubling it.
        options["arena_extend_strategy"] = "kSameAsRequested"
    elif backend.name == "tensorrt":
        names = ("int8", "fp16") if precision == "int8" else (precision,)
        options |= {f"trt_{n}_enable": "1" for n in names if n in ("int8", "fp16", "bf16")}
        if cache:
            folder = f"{cache}-{precision}"
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
            options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    elif backend.name == "cann":
        half = precision == "fp16"
        options["precision_mode"] = "force_fp16" if half else "must_keep_origin_dtype"
    elif backend.name == "migraphx":
        options["migraphx_fp16_enable"] = str(int(precision == "fp16"))
    return options


def _note(request: _Request, plan: Plan, reasons: Mapping[Choice, str]) -> str:
    """Why a GPU that appears to be usable is not used, or what high-performance mode lacks.

    `reasons` are those against the choices that come before the plan.
    """
    catalog = request.catalog
    on_gpu = dict.fromkeys(why for (backend, _), why in reasons.items() if backend.device == "gpu")
    expected = catalog.gpus or catalog.provider("CUDAExecutionProvider")
    if request.device is None and expected and on_gpu and plan.device == "cpu":
        return f"the GPU is not used ({'; '.join(on_gpu)}): {plan} runs"
    # Reasons that name a command can be fixed, unlike those about the hardware.
    fixable = dict.fromkeys(
        why
        for (backend, _), why in reasons.items()
        if backend.device == plan.device and "run  " in why
    )
    if request.mode is Mode.HIGH_PERFORMANCE and plan.precision == "fp32" and fixable:
        return f"high-performance mode runs {plan}, though it can be faster: {'; '.join(fixable)}"
    if request.mode is Mode.NORMAL and request.quantised:
        return "the model is quantised, but normal mode is FP32: high-performance mode runs int8"
    return ""


def _refusal(request: _Request, reasons: Mapping[Choice, str]) -> str:
    device, fixed = request.device, request.fixed
    what = " ".join(word for word in (fixed.backend, fixed.precision) if word)
    if device is not None and not reasons:
        return (
            f"{what or 'this mode'} does not run on device {str(device)!r}: leave out one of them"
        )
    asked = f"device {str(device)!r}" if device else what or "every device"
    why = "; ".join(dict.fromkeys(reasons.values())) or "no backend has that precision"
    if device is None and not what:
        return f"nothing can run here: {why}"
    return f"{asked} can't run here: {why}{_instead(request)}"


def _instead(request: _Request) -> str:
    try:
        plan = plans(None, request.mode, request.catalog, quantised=request.quantised)[0]
    except DeviceError:
        return ""
    return f"; device {plan.device!r} would run {plan}"


def _option_text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(int(value) if isinstance(value, bool) else value)
