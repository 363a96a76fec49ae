"""What PaddleX scripts and files say about how a model runs, in segrt's terms.

PaddleX has three ways to say it: `hpi_config` for its high-performance plugin, `pp_option` for
Paddle Inference, and, since 3.5, `engine` with `engine_config` for either. The device, the number
of threads, the precision and the backend have a meaning here. Settings that fit no other program
than theirs are accepted, and one warning names them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segrt import checked_yaml
from segrt.backends.plan import BACKENDS, FAMILIES, HpiConfig
from segrt.errors import ConfigError
from segrt.types import Mode, shown
from segrt.validation import did_you_mean

log = logging.getLogger("segrt")

HPI, PADDLE = "hpi", "paddle_static"
ENGINES = ("paddle", PADDLE, "onnxruntime", HPI)
"""Engines that can be requested. The first three mean FP32 on ONNX Runtime, like normal mode."""

_BUCKETS = ("paddle_static", "paddle_dynamic", "onnxruntime", "hpi", "flexible", "transformers",
            "genai_client")  # fmt: skip
_SIZES = "TensorRT engines are built for each image size"
_THEIRS = "segrt does not use Paddle Inference"
_OWN_CHOICE = "segrt makes this choice for ONNX Runtime"

RunMode = Literal[
    "paddle", "paddle_fp32", "paddle_fp16", "trt_fp32", "trt_fp16", "trt_int8", "mkldnn",
    "mkldnn_bf16",
]  # fmt: skip
_RUN_MODES: dict[str, dict[str, str]] = {
    "paddle_fp16": {"precision": "fp16"},
    "trt_fp32": {"backend": "tensorrt", "precision": "fp32"},
    "trt_fp16": {"backend": "tensorrt", "precision": "fp16"},
    "mkldnn_bf16": {"precision": "bf16"},
}
"""High-performance settings of the run modes other than FP32 in Paddle or MKL-DNN."""


@dataclass(frozen=True)
class Running:
    """How a model runs, as far as PaddleX settings say it.

    Attributes:
        hpi: settings of the plan.
        mode: high performance if the settings need it; None if they say nothing about the mode.
        device: as in `create_pipeline`; None if they name none.
        ignored: settings without effect, each with the reason.
    """

    hpi: HpiConfig = field(default_factory=HpiConfig)
    mode: Mode | None = None
    device: str | None = None
    ignored: dict[str, str] = field(default_factory=dict)

    def warn(self) -> None:
        """Log the settings without effect, if there are any, in one warning."""
        if self.ignored:
            reasons: dict[str, list[str]] = {}
            for key, reason in self.ignored.items():
                reasons.setdefault(reason, []).append(key)
            parts = (f"{', '.join(keys)} ({reason})" for reason, keys in reasons.items())
            log.warning("PaddleX settings without effect: %s", "; ".join(parts))


class _Place(BaseModel):
    """What all PaddleX settings may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    device_type: str | None = None
    device_id: int | None = Field(None, ge=0)

    @property
    def device(self) -> str | None:
        kind, index = self.device_type, self.device_id
        return kind if kind is None or index is None or kind == "cpu" else f"{kind}:{index}"


class _PaddleOptions(_Place):
    """The options of Paddle Inference: `pp_option`, or `engine_config` of paddle_static."""

    run_mode: RunMode | None = None
    cpu_threads: int | None = Field(None, strict=True, ge=1, le=1024)
    delete_pass: list[str] | None = None
    enable_new_ir: bool | None = None
    enable_cinn: bool | None = None
    trt_cfg_setting: dict[str, Any] | None = None
    trt_use_dynamic_shapes: bool | None = None
    trt_collect_shape_range_info: bool | None = None
    trt_discard_cached_shape_range_info: bool | None = None
    trt_dynamic_shapes: dict[str, Any] | None = None
    trt_dynamic_shape_input_data: dict[str, Any] | None = None
    trt_shape_range_info_path: str | None = None
    trt_allow_rebuild_at_runtime: bool | None = None
    mkldnn_cache_capacity: int | None = None
    shape_info_filename: str | None = None


class _OnnxRuntimeOptions(_Place):
    """`engine_config` of onnxruntime."""

    intra_op_num_threads: int | None = Field(None, strict=True, ge=1, le=1024)
    providers: list[str] | None = None
    provider_options: list[dict[str, Any]] | dict[str, Any] | None = None
    graph_optimization_level: int | None = None
    inter_op_num_threads: int | None = None
    execution_mode: str | None = None
    log_severity_level: int | None = None
    enable_mem_pattern: bool | None = None
    enable_cpu_mem_arena: bool | None = None
    session_options: dict[str, Any] | None = None


class _BackendConfig(_PaddleOptions):
    """`backend_config` of any backend."""

    cpu_num_threads: int | None = Field(None, strict=True, ge=1, le=1024)
    precision: Literal["fp32", "fp16"] | None = None
    use_dynamic_shapes: bool | None = None
    dynamic_shapes: dict[str, Any] | None = None


class _Hpi(_Place):
    """`hpi_config` with the keys of PaddleX and those of segrt."""

    backend: Any = None
    precision: Any = None
    threads: Any = None
    provider_options: Any = None
    auto_config: bool = True
    auto_paddle2onnx: bool = True
    backend_config: _BackendConfig | None = None
    hpi_info: dict[str, Any] | None = None
    model_name: str | None = None


def parse_hpi(value: object) -> Running:
    """Read an `hpi_config`.

    Example:
        >>> parse_hpi({"backend": "tensorrt", "backend_config": {"precision": "fp16"}}).hpi
        HpiConfig(backend='tensorrt', precision='fp16', threads=None, provider_options=())

    Args:
        value: a mapping with keys of PaddleX, of `HpiConfig`, or both; or its JSON or YAML text; or
            a `paddlex` HPIConfig; or None.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
    """
    if isinstance(value, BaseModel) and not isinstance(value, HpiConfig):
        value = value.model_dump(exclude_none=True, by_alias=True)
    if isinstance(value, str):
        value = checked_yaml.parse(value, "hpi_config")
    if not isinstance(value, Mapping):
        return Running(HpiConfig.parse(value))
    given = checked_yaml.check({str(key): item for key, item in value.items()}, _Hpi, "hpi_config")
    ignored = {} if given.auto_paddle2onnx else {"auto_paddle2onnx": "segrt runs ONNX models only"}
    if given.hpi_info is not None:
        ignored["hpi_info"] = _SIZES
    own = {"backend", "precision", "threads", "provider_options"}
    settings = given.model_dump(include=own, exclude_none=True)
    if given.backend == "paddle":
        ignored["backend"] = f"{_THEIRS}; it chooses another backend"
        del settings["backend"]
    elif given.backend == "om":
        settings["backend"] = "cann"
    elif isinstance(given.backend, str) and given.backend not in (*BACKENDS, *FAMILIES):
        known = (*BACKENDS, *FAMILIES, "paddle", "om")
        raise ConfigError(
            f"hpi_config: backend: unknown backend {given.backend!r}"
            f"{did_you_mean(given.backend, known)}: use {', '.join(known)}"
        )
    config = given.backend_config or _BackendConfig()
    more = _parse_paddle(config)
    ignored |= more.ignored | _present(config, ("use_dynamic_shapes", "dynamic_shapes"), _SIZES)
    found = more.hpi.model_dump(exclude_none=True, exclude_defaults=True)
    found |= {
        key: value
        for key, value in {"threads": config.cpu_num_threads, "precision": config.precision}.items()
        if value is not None
    }
    hpi = HpiConfig.parse(found | settings)
    return Running(hpi, device=given.device or more.device, ignored=ignored)


def parse_pp_option(value: object) -> Running:
    """Read a `pp_option`.

    Example:
        >>> parse_pp_option({"run_mode": "mkldnn", "cpu_threads": 4}).hpi.threads
        4

    Args:
        value: a `paddlex` PaddlePredictorOption, of which the run mode, the device and the threads
            matter; a mapping with its options; or None.

    Raises:
        ConfigError: an option is unknown, or a value is invalid.
    """
    if value is None:
        return Running()
    if not isinstance(value, Mapping):
        names = ("run_mode", "device_type", "device_id", "cpu_threads")
        value = {name: _attribute(value, name) for name in names if _has(value, name)}
        if not value:
            raise ConfigError(
                "pp_option is not valid: give a PaddlePredictorOption, or a mapping such as "
                '{"run_mode": "mkldnn", "cpu_threads": 4}'
            )
    return _parse_paddle(checked_yaml.check(dict(value), _PaddleOptions, "pp_option"))


def parse_engine(engine: str) -> str:
    """Check the name of an engine.

    Raises:
        ConfigError: no engine of PaddleX that runs semantic segmentation has that name.
    """
    if engine not in ENGINES:
        hint = did_you_mean(engine, ENGINES)
        raise ConfigError(
            f"engine {shown(engine)} is not valid for semantic segmentation{hint}: use "
            f"{', '.join(ENGINES)}"
        )
    return engine


def parse_engine_config(engine: str, value: object) -> Running:
    """Read an `engine_config`, for one engine or with one mapping for each of several engines.

    Example:
        >>> parse_engine_config("hpi", {"hpi": {"backend": "openvino"}}).hpi.backend
        'openvino'

    Args:
        engine: one of `ENGINES`.
        value: the mapping.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"engine_config {shown(value)} is not valid: give a mapping")
    data: Mapping[str, Any] = value
    name = PADDLE if engine == "paddle" else engine
    if data and all(key in _BUCKETS for key in data):
        data = data.get(name) or {}
    if name == HPI:
        return parse_hpi(dict(data))
    if name == PADDLE:
        return _parse_paddle(checked_yaml.check(dict(data), _PaddleOptions, "engine_config"))
    options = checked_yaml.check(dict(data), _OnnxRuntimeOptions, "engine_config")
    theirs = _OnnxRuntimeOptions.model_fields.keys() - {
        "intra_op_num_threads",
        *_Place.model_fields,
    }
    return Running(
        HpiConfig(threads=options.intra_op_num_threads),
        device=options.device,
        ignored=_present(options, sorted(theirs), _OWN_CHOICE),
    )


def _parse_paddle(options: _PaddleOptions) -> Running:
    if options.run_mode == "trt_int8":
        raise ConfigError(
            "run_mode 'trt_int8' can't run: it names no quantised model; make one with  segrt "
            "quantize --device gpu  and run it in high-performance mode, or use trt_fp16"
        )
    fixed: dict[str, Any] = dict(_RUN_MODES.get(options.run_mode or "", {}))
    names = _PaddleOptions.model_fields.keys()
    shapes = sorted(name for name in names if name.startswith(("trt_", "shape_")))
    rest = ("delete_pass", "enable_new_ir", "enable_cinn", "mkldnn_cache_capacity")
    return Running(
        HpiConfig(threads=options.cpu_threads, **fixed),
        Mode.HIGH_PERFORMANCE if fixed else None,
        options.device,
        _present(options, rest, _THEIRS) | _present(options, shapes, _SIZES),
    )


def _present(options: BaseModel, names: Iterable[str], reason: str) -> dict[str, str]:
    """The names of options that are set, each with the reason why they are ignored."""
    return {name: reason for name in names if getattr(options, name) is not None}


def _has(value: object, name: str) -> bool:
    return _attribute(value, name) is not None


def _attribute(value: object, name: str) -> Any:
    """An attribute of a PaddlePredictorOption, which raises Exception if it is not set."""
    try:
        return getattr(value, name)
    except Exception:
        return None
