"""Creates ONNX Runtime's sessions, and checks that the provider that was asked for runs them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segrt import external_data, half_graph, second_graph
from segrt.backends import bound, catalog
from segrt.backends.memory import share_arena
from segrt.backends.plan import CUDA_GRAPH_OPTIONS, Plan
from segrt.errors import DeviceError, ModelError, SegrtError
from segrt.network import first_line

log = logging.getLogger("segrt")

NOT_FIXED: Mapping[str, int] = {}


def load(
    file: Path, plan: Plan, fixed: Mapping[str, int] = NOT_FIXED, *, second: bool = True
) -> Any:
    """Load a model.

    Example:
        >>> load(Path("model.onnx"), plan, {"batch": 1, "height": 512, "width": 1024})

    Args:
        file: the `.onnx` file.
        plan: how to run it.
        fixed: sizes of the named dimensions of the input; those that are missing stay free.
        second: whether plans that use the second graph of a file load it, if there is one.

    Returns:
        onnxruntime.InferenceSession: or a `bound.Captured` if the plan records CUDA graphs.

    Raises:
        DeviceError: the plan's provider does not start, or accepts no part of the model.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: the file is damaged.
    """
    ort = catalog.onnxruntime()
    options = _options(ort, plan)
    for name, size in fixed.items():
        options.add_free_dimension_override_by_name(name, size)
    try:
        graph = _graph(file, plan, second)
        providers = _providers(plan, options, fixed)
        # Without enable_fallback=0 ONNX Runtime retries on the CPU and prints a line.
        session = ort.InferenceSession(
            graph or str(file), options, providers=providers or None, enable_fallback=0
        )
    except SegrtError:
        raise
    except Exception as error:  # onnxruntime has its own class per status code
        raise _load_error(file, plan, error) from None
    session._model_bytes = None  # kept for `set_providers`, and as large as the file
    _check(file, plan, session)
    return bound.Captured(session) if plan.captures and fixed else session


def share(session: Any, provider: str) -> float | None:
    """The share of the nodes that a provider runs, from 0 to 1; None if that is not reported.

    Example:
        >>> share(session, "CPUExecutionProvider")
        1.0
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    parts = session.get_provider_graph_assignment_info()
    counts = [(part.ep_name == provider, len(part.get_nodes())) for part in parts]
    nodes = sum(count for _, count in counts)
    return sum(count for ours, count in counts if ours) / nodes if nodes else None


def _options(ort: Any, plan: Plan) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = plan.threads
    # ONNX Runtime would keep a memory pattern per image size forever, for no gain here.
    options.enable_mem_pattern = False
    if plan.backend.name == "cpu" and share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    # ONNX Runtime would also load its own format, whose references to files are not checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Without this, quantised layers would be computed in int8.
    if plan.precision != "int8":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Threads that spin while they wait for the next image take cores from pre- and
    # postprocessing: measured, postprocessing takes twice as long, and on a busy machine the
    # network itself a third longer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _graph(file: Path, plan: Plan, second: bool) -> bytes | None:
    """The model to run; None for the file as it is."""
    if plan.uses_half_graph:
        return half_graph.read(file)
    return second_graph.read(file) if second and plan.uses_second_graph else None


def _providers(plan: Plan, options: Any, fixed: Mapping[str, int]) -> list[Any]:
    """The providers to pass on; those of plugins are added to the options."""
    settings = dict(plan.options)
    if not (plan.captures and fixed):  # the session for all sizes only tells what the model is
        settings = {key: settings[key] for key in settings if key not in CUDA_GRAPH_OPTIONS}
    # TensorRT does not distinguish the engines of different sizes.
    if fixed and (engines := settings.get("trt_engine_cache_path")):
        settings["trt_engine_cache_path"] = f"{engines}/{'x'.join(map(str, fixed.values()))}"
    for key in ("trt_engine_cache_path", "trt_timing_cache_path"):
        if key in settings:
            Path(settings[key]).mkdir(parents=True, exist_ok=True)
    if devices := catalog.plugin_devices(plan.provider, plan.device):
        options.add_provider_for_devices(devices[plan.device_id :][:1], settings)
        return []
    if plan.backend.name == "openvino":
        settings = {"device_type": "CPU", **settings}
    providers: list[Any] = [(plan.provider, settings)]
    if plan.backend.name == "tensorrt":  # what TensorRT leaves stays on the GPU
        providers.append(("CUDAExecutionProvider", {"device_id": str(plan.device_id)}))
    return providers


def _check(file: Path, plan: Plan, session: Any) -> None:
    provider = session.get_providers()[0]
    if provider != plan.provider:
        raise DeviceError(
            f"{plan.provider} was asked for, but ONNX Runtime runs {provider} instead"
        )
    part = share(session, provider)
    if part == 0:
        raise DeviceError(f"{provider} takes no part of {file}: it would all run elsewhere")
    if part is not None and part < 0.5:
        log.warning(
            "%s takes %.0f%% of the nodes of %s, the rest is slow", provider, 100 * part, file
        )


def _load_error(file: Path, plan: Plan, error: Exception) -> SegrtError:
    reason = first_line(error)
    if type(error).__name__ == "InvalidProtobuf":
        return external_data.damaged(file)
    damaged = type(error).__name__ in ("InvalidGraph", "NoModel")
    damaged &= not plan.uses_half_graph  # that graph is not the file's
    if damaged or plan.backend.name == "cpu":
        return ModelError(f"{file} can't be loaded by ONNX Runtime: {reason}")
    return DeviceError(f"{plan.provider} can't start with {file}: {reason}")
