"""A Plan and an `.onnx` file become a running session, and proof that the plan's provider does the work."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import float32
from segrt.backends import catalog as catalogs
from segrt.backends.plan import MAX_THREADS, HpiConfig, Plan, plans
from segrt.errors import DeviceError, ModelError, SegrtError
from segrt.metadata import KEY, ModelMeta
from segrt.types import Device, Mode

log = logging.getLogger("segrt")

OWN_SESSIONS = 4
"""Most sizes of input that have a session of their own."""

_RECENT = 16
_OFTEN = _RECENT // OWN_SESSIONS
"""A size that comes this often among the last `_RECENT` runs is worth a session of its own: at most `OWN_SESSIONS` can
be that frequent at once, so sessions are never built and thrown away in turn, however many sizes there are."""

Shape: TypeAlias = tuple[int, ...]


class Session:
    """One model on one execution provider. `run` may be called from several threads.

    Memory: besides the session for every size, there are at most `OWN_SESSIONS` others. Where all images have one size,
    there is only its own.

    Attributes:
        meta: what the model says of itself.
        plan: how it runs.
        provider: the provider that really runs it, read back from ONNX Runtime.
        precision: the arithmetic that it runs in.
        share: the part of the graph's nodes that the provider took, 0 to 1; None where ONNX Runtime does not tell.
    """

    def __init__(self, file: Path, plan: Plan) -> None:
        """Load `file`.

        Raises:
            DeviceError: the plan's provider does not start, or takes no part of the model.
            MissingExtraError: no ONNX Runtime is installed.
            ModelError: the file is missing, damaged, or not a model that maps one image to logits or labels.
        """
        if not file.is_file():
            raise ModelError(f"model file {file} does not exist")
        self.plan = plan
        self._file = file
        first = self._build()
        self.provider: str = first.get_providers()[0]
        self.precision = plan.precision
        if self.provider != plan.provider:
            raise DeviceError(
                f"{plan.provider} was asked for, but ONNX Runtime runs {self.provider} instead"
            )
        self.share = _share(first, plan.provider)
        if self.share == 0:
            raise DeviceError(
                f"{plan.provider} takes no part of {file}: it would all run elsewhere"
            )
        if self.share is not None and self.share < 0.5:
            log.warning(
                "%s takes %.0f%% of the nodes of %s, the rest is slow",
                self.provider,
                100 * self.share,
                file,
            )
        node = _image_input(first, file)
        self._input: str = node.name
        self._output: str = first.get_outputs()[0].name
        # Only sizes that have a name in the graph can be fixed; a model of one size has none.
        self._dims = {axis: dim for axis, dim in enumerate(node.shape) if isinstance(dim, str)}
        text = first.get_modelmeta().custom_metadata_map.get(KEY)
        self.meta = ModelMeta.loads(text, file=str(file)) if text else _guess_meta(first, file)
        self._shapes = plan.shapes if self._dims else "dynamic"
        # Where every size has its own session, this one was only needed to look at.
        self._any: Any = None if self._shapes == "fixed" else first
        self._own: OrderedDict[Shape, Any] = OrderedDict()
        self._recent: deque[Shape] = deque(maxlen=_RECENT)
        self._lock = Lock()

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Run the network.

        Args:
            batch: float32 (N, 3, H, W), RGB, normalised.

        Returns:
            np.ndarray: logits, float32 (N, C, h, w), or labels, integers (N, H, W): see `meta.output`.

        Raises:
            ModelError: ONNX Runtime fails on this input.
        """
        try:
            session = self._session(batch.shape)
            if self.plan.device == "gpu":
                return self._run_on_gpu(session, batch)
            output: npt.NDArray[Any] = session.run([self._output], {self._input: batch})[0]
        except SegrtError:
            raise
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            shape = "x".join(map(str, batch.shape))
            raise ModelError(
                f"the model can't run on an input of {shape}: {_first_line(error)}"
            ) from None
        return output

    def warm_up(self, shape: Shape) -> None:
        """Do now what the first run at a size would do: compile, choose kernels, take memory.

        Args:
            shape: (N, 3, H, W) of the batches to come.

        Raises:
            ModelError: the model can't run on that.
        """
        with self._lock:
            if self._shapes == "repeated":
                self._recent.extend([shape] * _OFTEN)
        self.run(np.zeros(shape, np.float32))

    def _run_on_gpu(self, session: Any, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """With bound tensors: one copy in, one copy out, and none of the graph's other outputs."""
        ort, device = catalogs.onnxruntime(), self._gpu_memory
        binding = session.io_binding()
        binding.bind_ortvalue_input(
            self._input, ort.OrtValue.ortvalue_from_numpy(batch, device, self.plan.device_id)
        )
        binding.bind_output(self._output, device, self.plan.device_id)
        session.run_with_iobinding(binding)
        output: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return output

    _gpu_memory = "cuda"

    def _session(self, shape: Shape) -> Any:
        """The session for this shape of input: its own, where it has or deserves one."""
        if self._shapes == "dynamic":
            return self._any
        with self._lock:
            self._recent.append(shape)
            if shape in self._own:
                self._own.move_to_end(shape)
                return self._own[shape]
            if self._shapes == "repeated" and self._recent.count(shape) < _OFTEN:
                self._any = self._any or self._build()
                return self._any
            if set(self._recent) == {
                shape
            }:  # so far all have one size: the session for every size can wait
                self._any = None
            session = self._build(shape)
            self._own[shape] = session
            if len(self._own) > OWN_SESSIONS:
                self._own.popitem(last=False)  # a thread that still runs it keeps it alive
            return session

    def _build(self, shape: Shape | None = None) -> Any:
        """Make ONNX Runtime's session, for one shape of input or for all."""
        ort, plan = catalogs.onnxruntime(), self.plan
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = plan.threads
        # ONNX Runtime would keep a memory pattern for each size of image for ever; they gain nothing here.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Threads that spin while they wait for the next image take the cores from pre- and postprocessing: measured,
        # the tail takes twice as long beside them, and on a busy machine the network itself a third longer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings = dict(plan.options)
        if shape is not None:
            for axis, dim in self._dims.items():
                options.add_free_dimension_override_by_name(dim, shape[axis])
            if cache := settings.get(
                "trt_engine_cache_path"
            ):  # TensorRT does not tell the sizes of engines apart
                settings["trt_engine_cache_path"] = f"{cache}/{'x'.join(map(str, shape))}"
        for key in ("trt_engine_cache_path", "trt_timing_cache_path"):
            if key in settings:
                Path(settings[key]).mkdir(parents=True, exist_ok=True)
        try:
            model = (float32.read(self._file) if plan.takes_float32_graph else None) or str(
                self._file
            )
            providers: list[Any] = []
            if devices := catalogs.plugin_devices(plan.provider, plan.device):
                options.add_provider_for_devices(devices[plan.device_id :][:1], settings)
            else:
                if plan.provider == "OpenVINOExecutionProvider":
                    settings = {"device_type": "CPU", **settings}
                providers = [(plan.provider, settings)]
            if (
                plan.provider == "TensorrtExecutionProvider"
            ):  # what TensorRT leaves stays on the GPU
                providers.append(("CUDAExecutionProvider", {"device_id": str(plan.device_id)}))
            # By itself ONNX Runtime would try again on the CPU and print a line.
            session = ort.InferenceSession(
                model, options, providers=providers or None, enable_fallback=0
            )
            session._model_bytes = None  # kept for `set_providers`, and as large as the file
            return session
        except Exception as error:
            kind = type(error).__name__
            if plan.provider == "CPUExecutionProvider" or kind in (
                "InvalidProtobuf",
                "InvalidGraph",
                "NoModel",
            ):
                raise ModelError(
                    f"{self._file} can't be loaded by ONNX Runtime: {_first_line(error)}"
                ) from None
            raise DeviceError(
                f"{plan.provider} can't start with {self._file}: {_first_line(error)}"
            ) from None


def start(
    file: Path,
    *,
    device: Device | None = None,
    mode: Mode = Mode.NORMAL,
    preselected: Sequence[str] = (),
    hpi_config: HpiConfig | None = None,
    size: tuple[int, int] | None = None,
) -> Session:
    """Load a model on the best plan that works here.

    Args:
        file: the `.onnx` file.
        device: what the user named; None for GPU 0 if it can run, else the CPU.
        mode: normal or high-performance.
        preselected: what high-performance mode tries for this model, best first; empty for the general list.
        hpi_config: what the user fixes of high-performance mode.
        size: (height, width) of inference where it is known; a measurement at that size is preferred.

    Raises:
        DeviceError: what the user named can't run here.
        MissingExtraError: no ONNX Runtime is installed.
        ModelError: the file is missing, damaged, or not one that segrt can run.
    """
    from segrt.backends import tune

    if not file.is_file():
        raise ModelError(f"model file {file} does not exist")
    fast = mode is Mode.HIGH_PERFORMANCE
    here = catalogs.read(gpus=device is None or device.kind != "cpu", plugins=fast)
    found = plans(
        device,
        mode,
        here,
        preselected=preselected,
        tuned=tune.recall(file, here, device, size) if fast else None,
        hpi_config=hpi_config,
        cache=engine_cache(file, here) if fast else None,
    )
    for later, plan in enumerate(found, start=1):
        if plan.note:
            log.warning("%s", plan.note)
        try:
            return Session(file, plan)
        except DeviceError as error:
            if later == len(found):
                raise
            log.warning("%s; trying %s", error, found[later])
    raise AssertionError("plans() gives at least one")


def start_all(
    file: Path,
    *,
    device: Device | None = None,
    hpi_config: HpiConfig | None = None,
    workers: int = 1,
    **options: Any,
) -> list[Session]:
    """Load a model several times: on each device that is named, and there as often as there are workers.

    Args:
        file: the `.onnx` file.
        device: as for `start`, but with any number of indices.
        hpi_config: as for `start`. Threads that it names are those of each session; else the cores are shared.
        workers: sessions on each device.
        options: of `start`.

    Returns:
        list of Session: in turns, one of each device.

    Raises:
        DeviceError, MissingExtraError, ModelError: see `start`.
    """
    hpi_config = hpi_config or HpiConfig()
    if workers > 1 and hpi_config.threads is None:
        cores = catalogs.read(gpus=False, plugins=False).cpu.cores
        hpi_config = replace(hpi_config, threads=max(1, min(MAX_THREADS, cores // workers)))
    places = (
        [Device(device.kind, (i,)) for i in device.ids]
        if device and len(device.ids) > 1
        else [device]
    )
    first = [start(file, device=place, hpi_config=hpi_config, **options) for place in places]
    return first + [Session(file, session.plan) for _ in range(workers - 1) for session in first]


@lru_cache(maxsize=32)
def _sha256(file: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_hash(file: Path) -> str:
    """The sha256 of a file, computed once for as long as the file does not change."""
    state = file.stat()
    return _sha256(file.absolute(), state.st_size, state.st_mtime_ns)


def engine_cache(file: Path, here: catalogs.Catalog) -> str | None:
    """The folder of the engines that TensorRT compiles from a model for this GPU; None where there is no TensorRT.

    An engine runs only with the TensorRT, and on the kind of GPU, that made it; the plan adds the precision, the
    session the sizes.
    """
    from segrt import store

    if not here.gpus or not here.provider("TensorrtExecutionProvider"):
        return None
    wheels = "-".join(
        f"{name}-{version}"
        for name, version in here.versions
        if name.startswith(("onnx", "tensorrt"))
    )
    generations = sorted({"sm{}{}".format(*gpu.compute_capability) for gpu in here.gpus})
    key = hashlib.sha256(
        f"{wheels} {' '.join(gpu.name for gpu in here.gpus)}".encode()
    ).hexdigest()[:12]
    return str(store.home() / "tensorrt" / f"{model_hash(file)[:16]}-{'-'.join(generations)}-{key}")


def _share(session: Any, provider: str) -> float | None:
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    taken = [
        (part.ep_name == provider, len(part.get_nodes()))
        for part in session.get_provider_graph_assignment_info()
    ]
    nodes = sum(count for _, count in taken)
    return sum(count for ours, count in taken if ours) / nodes if nodes else None


def _image_input(session: Any, file: Path) -> Any:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if (
        len(inputs) != 1
        or inputs[0].type != "tensor(float)"
        or len(inputs[0].shape) != 4
        or len(outputs) < 1
    ):
        raise ModelError(
            f"{file} is not a segmentation model that segrt can run: it must take one float32 tensor N x 3 x H x W"
        )
    return inputs[0]


def _guess_meta(session: Any, file: Path) -> ModelMeta:
    """For an `.onnx` file that segrt-export did not make: float output means logits, integers mean labels."""
    kind: Literal["logits", "labels"] = (
        "logits" if "float" in session.get_outputs()[0].type else "labels"
    )
    return ModelMeta(name=file.stem, output=kind)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
