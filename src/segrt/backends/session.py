"""From a plan and an `.onnx` file to a running session that proves which provider runs it."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock, local
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import external_data, forks, graph_tail, second_graph
from segrt.backends import bound, cache, catalog, native
from segrt.backends.footprint import UNKNOWN, Footprint
from segrt.backends.memory import BUDGET, release
from segrt.backends.plan import MAX_THREADS, HpiConfig, Plan, plans
from segrt.description import NOTHING, Description, Given, describe
from segrt.errors import DeviceError, ModelError, SegrtError, TooLargeError
from segrt.metadata import KEY
from segrt.network import first_line, prepare, standard
from segrt.types import Device, Mode

log = logging.getLogger("segrt")

OWN_SESSIONS = 4
"""Maximum number of input sizes with a session of their own."""

_RECENT = 16
# A size this frequent among the last `_RECENT` runs gets a session of its own. At most
# `OWN_SESSIONS` sizes can be this frequent at once, so sessions are never built and dropped in
# turn, however many sizes there are. The session for all sizes, too, loads the second graph of a
# file only after as many runs: that takes 0.2 to 3 s more.
_OFTEN = _RECENT // OWN_SESSIONS

Shape: TypeAlias = tuple[int, ...]


class Session:
    """A model on an execution provider, or on two: see `Plan.first`. `run` is thread-safe.

    In a forked process, ONNX Runtime's sessions are loaded again from the file when they are used,
    because their threads exist only in the parent.

    Memory: there are at most `OWN_SESSIONS` sessions for single input sizes in addition to the one
    for all sizes; if all images have the same size, there is only a session for that size.

    Example:
        >>> session = start(Path("model.onnx"), device=Device.parse("cpu"))
        >>> logits = session.run(np.zeros((1, 3, 512, 1024), np.float32))

    Attributes:
        description: what is known of the model, and from where.
        meta: the metadata of the model, part of its description.
        file: the `.onnx` file.
        plan: how it runs.
        precision: the arithmetic it runs in.
        share: share of the graph's nodes on that provider, from 0 to 1; None if ONNX Runtime does
            not report it.
    """

    def __init__(self, file: Path, plan: Plan, given: Given | Description = NOTHING) -> None:
        """Load a model.

        Args:
            file: the `.onnx` file.
            plan: how to run it.
            given: what the caller says about the model, or its description, if another session
                has it.

        Raises:
            DeviceError: the plan's provider does not start, or accepts no part of the model.
            MissingExtraError: ONNX Runtime is not installed.
            ModelError: the file is missing or damaged, segrt can't run it, or sources that describe
                it contradict each other.
        """
        if not file.is_file():
            raise ModelError(f"model file {file} does not exist")
        external_data.check(file)
        self.plan = plan
        self.file = file.absolute()  # it is loaded again later, from another folder perhaps
        self._state = _state(file)
        self._runs = 0
        uses_second_graph = plan.general.uses_second_graph
        self._has_second_graph = uses_second_graph and second_graph.exists(file)
        first = self._load_any()
        self._ran = local()
        self.precision = plan.precision
        self.share = native.share(first, plan.general.provider)
        inputs, outputs = first.get_inputs(), first.get_outputs()
        if isinstance(given, Given):
            text = first.get_modelmeta().custom_metadata_map.get(KEY)
            given = describe(file, inputs, outputs, text, given)
        self.description = given
        self.meta = self.description.meta
        # Only named dimensions can be fixed; a model for a single input size has none.
        self._dims = {axis: dim for axis, dim in enumerate(inputs[0].shape) if isinstance(dim, str)}
        if self.description.input.channels_last and self._dims:
            self._dims = {(0, 2, 3, 1)[axis]: dim for axis, dim in self._dims.items()}
        self._shapes = plan.shapes if self._dims or plan.first else "dynamic"
        # If every size gets its own session, this one was only needed for its metadata.
        self._any: Any = None if self._shapes == "fixed" else first
        self._own: OrderedDict[Shape, Any] = OrderedDict()
        self._recent: deque[Shape] = deque(maxlen=_RECENT)
        self._lock = Lock()
        forks.renew_in_child(self)
        self._footprint: Footprint | None = None

    @property
    def provider(self) -> str:
        """The provider of this thread's last run; before that, of the next one."""
        return getattr(self._ran, "provider", self.plan.general.provider)

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Run the network.

        Args:
            batch: float32 (N, C, H, W), as made by `Transforms.batch`.

        Returns:
            np.ndarray: logits or probabilities, float (N, C, h, w) with a channel for each class,
                or labels, integers (N, H, W), depending on `meta.output`.

        Raises:
            ModelError: ONNX Runtime fails on this input, or the output does not have that form.
            TooLargeError: the system has too little memory for it.
        """
        size = self.description.input.dims[0]
        if size is None or len(batch) == size:
            return self._run(batch)
        parts = []
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            missing = size - len(part)  # the last image fills up a batch of fixed size
            whole = np.concatenate([part, part[-1:].repeat(missing, axis=0)]) if missing else part
            parts.append(self._run(whole)[: len(part)])
        return np.concatenate(parts)

    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        node, described = self.description.input, self.description.output
        output: npt.NDArray[Any]
        try:
            session, self._ran.provider = self._session(batch.shape)
            data = prepare(batch, node)
            if self.plan.device == "gpu":
                output = self._run_on_gpu(session, data)
            else:
                output = session.run([described.name], {node.name: data})[0]
        except SegrtError:
            raise
        except Exception as error:  # onnxruntime has its own class per status code
            shape = "x".join(map(str, batch.shape))
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise TooLargeError(
                    f"there is not enough memory to run an input of {shape}: use a smaller "
                    "target_size or a sliding window, or try again later"
                ) from None
            raise ModelError(
                f"the model can't run on an input of {shape}: {first_line(error)}"
            ) from None
        output = standard(output, described, self.meta.output)
        self._check(output, len(batch))
        return output

    def warm_up(self, size: tuple[int, int]) -> None:
        """Do in advance what the first run at a size does: compile, choose kernels, take memory.

        Args:
            size: (height, width) of the images to come, which run one by one.

        Raises:
            ModelError: the model can't run at this size.
        """
        shape = (1, self.description.input.channels, *size)
        with self._lock:
            self._count(_OFTEN - 1)
            if self._shapes == "repeated":
                self._recent.extend([shape] * _OFTEN)
        self.run(np.zeros(shape, np.float32))

    def rest(self) -> None:
        """Return memory: of the sessions for several input sizes, keep the one for all sizes."""
        with self._lock:
            if self._any is not None:
                self._own.clear()
        release()

    def fits(self, size: tuple[int, int], count: int, extra: int = 0) -> int:
        """How many images may run together within the memory budget, up to `count`.

        Args:
            size: (height, width) of inference.
            count: the images that are wanted.
            extra: bytes needed in addition, however many images run.

        Raises:
            TooLargeError: not even one fits.
        """
        shape = (1, self.description.input.channels, *size)
        one, capacity = self._need(shape) + extra, BUDGET.capacity()
        if one * count > capacity:
            one = self._need(shape, exact=True) + extra
            BUDGET.check(one, f"an image at the inference size {size[0]} x {size[1]}")
        return max(1, min(count, capacity // one))

    def reserve(self, shape: Shape, extra: int = 0) -> AbstractContextManager[None]:
        """Reserve the memory of a run, as in `Budget.reserve`.

        Args:
            shape: (N, C, H, W) of the batch.
            extra: bytes needed in addition.
        """
        need = self._need(shape) + extra
        if need > BUDGET.capacity() - BUDGET.reserved:
            need = self._need(shape, exact=True) + extra
        what = f"a batch of {'x'.join(map(str, shape))}"
        return BUDGET.reserve(need, what, exact=self._footprint is not None)

    def _need(self, shape: Shape, *, exact: bool = False) -> int:
        """Bytes that a run needs: an upper bound, until the exact need has been asked for."""
        if self.plan.device != "cpu":  # the network has its own memory
            return 3 * 4 * math.prod(shape)
        if exact and self._footprint is None:
            self._footprint = cache.footprint(self.file)
        return (self._footprint or UNKNOWN).bytes_for(shape)

    def _check(self, output: npt.NDArray[Any], count: int) -> None:
        """Refuse an output that would give wrong labels. `count` is the size of the batch."""
        is_logits, dtype = self.meta.output != "labels", output.dtype
        classes = len(self.meta.class_names)
        expected = f"({count}, C, h, w)" if is_logits else f"({count}, H, W)"
        if output.ndim != (4 if is_logits else 3) or len(output) != count or output.size == 0:
            raise ModelError(
                f"the model gives {dtype} of shape {output.shape}, not {self.meta.output} of shape "
                f"{expected}: is this a segmentation model?"
            )
        if is_logits:
            if output.shape[1] != classes:
                raise ModelError(
                    f"the model gives {self.meta.output} of {output.shape[1]} classes, not of "
                    f"{classes}, as many as it has names"
                )
        else:
            low, high = int(output.min()), int(output.max())
            if low < 0 or high >= classes:
                raise ModelError(
                    f"the model gives labels from {low} to {high}, not from 0 to {classes - 1}: it "
                    f"has {classes} class names"
                )

    def _run_on_gpu(self, session: Any, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        names = self.description.input.name, self.description.output.name
        place = bound.Place(*names, self._gpu_memory, self.plan.device_id)
        if isinstance(session, bound.Captured):
            return session.run(batch, place)
        return bound.run(session, batch, place)

    _gpu_memory = "cuda"

    def _session(self, shape: Shape) -> tuple[Any, str]:
        """The session for an input shape, its own if it has or deserves one; and its provider."""
        with self._lock:
            self._count(1)
            if shape not in self._own and self._deserves_its_own(shape):
                self._build_for(shape)
            if shape in self._own:
                self._own.move_to_end(shape)
                return self._own[shape], self.plan.provider
            self._any = self._any or self._load_any()
            return self._any, self.plan.general.provider

    def _count(self, runs: int) -> None:
        """Count runs, and let go of the session for all sizes if another graph is worth loading."""
        before, self._runs = self._runs, self._runs + runs
        if before < _OFTEN <= self._runs and self._has_second_graph and self._is_unchanged():
            self._any = None

    def _is_unchanged(self) -> bool:
        """Whether the file is still the one that was loaded first."""
        return _state(self.file) == self._state

    def _load_any(self) -> Any:
        """Load a session for all sizes."""
        return self._load(self.plan.general, second=self._runs >= _OFTEN)

    def _load(self, plan: Plan, fixed: Mapping[str, int] = native.NOT_FIXED, **options: Any) -> Any:
        if not self._is_unchanged():
            raise ModelError(
                f"{self.file} was changed or removed after it was loaded: create the pipeline anew"
            )
        return native.load(self.file, plan, fixed, **options)

    def _deserves_its_own(self, shape: Shape) -> bool:
        if self._shapes == "dynamic":
            return False
        self._recent.append(shape)
        if self._shapes != "fixed" and self._recent.count(shape) < _OFTEN:
            return False
        sizes = self._sizes(shape)
        if len(sizes) > len(dict(sizes)):  # height and width have one name, but not one size
            return False
        return self._any is None or self._is_unchanged()

    def _sizes(self, shape: Shape) -> set[tuple[str, int]]:
        """The named dimensions, with their sizes in an input shape."""
        return {(name, shape[axis]) for axis, name in self._dims.items()}

    def _build_for(self, shape: Shape) -> None:
        """Load a session of its own for an input shape."""
        if set(self._recent) == {shape}:  # all images have had this size so far
            self._any = None
        fixed = dict(self._sizes(shape))
        log.debug("inputs of %s recur: loading %s for them", shape, self.plan)
        try:
            session = self._load(self.plan, fixed)
        except DeviceError as error:
            if self.plan.first is None:
                raise
            log.warning("%s; %s runs instead", error, self.plan.first)
            self.plan = self.plan.first
            session = self._load(self.plan, fixed)
        self._own[shape] = session
        if len(self._own) > OWN_SESSIONS:
            self._own.popitem(last=False)  # a thread that still runs it keeps it alive

    def renew(self) -> None:
        """Let go of the sessions that a forked process inherits; `run` loads new ones."""
        for inherited in (self._any, *self._own.values()):
            forks.keep_forever(inherited)  # its destructor would wait for its threads
        self._any = None
        self._own.clear()
        self._recent.clear()
        self._lock = Lock()


def _state(file: Path) -> tuple[int, ...]:
    """What changes with the content of a file; empty if it is gone."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def start(
    file: Path,
    *,
    device: Device | None = None,
    mode: Mode = Mode.NORMAL,
    preselected: Sequence[str] = (),
    hpi_config: HpiConfig | None = None,
    size: tuple[int, int] | None = None,
    given: Given = NOTHING,
) -> Session:
    """Load a model with the best plan that works here.

    Args:
        file: the `.onnx` file.
        device: the device specified by the user; None for GPU 0 if it can run, else the CPU.
        mode: normal or high-performance.
        preselected: plan names that high-performance mode tries for this model, best first; empty
            for the general list.
        hpi_config: settings of high-performance mode fixed by the user.
        size: (height, width) of inference if known; a measurement at this size is preferred.
        given: what the caller says about the model.

    Raises:
        DeviceError: what the user specified can't run here.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: the file is missing or damaged, or segrt can't run it.
    """
    if not file.is_file():
        raise ModelError(f"model file {file} does not exist")
    fast = mode is Mode.HIGH_PERFORMANCE
    offered = catalog.read(gpus=device is None or device.kind != "cpu")
    tuned = cache.recall(file, offered, device, size) if fast else None
    found = plans(
        device,
        mode,
        offered,
        preselected=preselected,
        tuned=tuned,
        hpi_config=hpi_config,
        cache=cache.engine_cache(file, offered) if fast else None,
        quantised=graph_tail.rounded(file),
    )
    log.debug(
        "%s mode, device %s%s%s: %s",
        mode.value,
        device or "not named",
        f", {hpi_config!r}" if hpi_config and hpi_config != HpiConfig() else "",
        ", measured by segrt tune" if tuned else "",
        ", or else ".join(map(str, found)),
    )
    for later, plan in enumerate(found, start=1):
        if plan.note:
            log.warning("%s", plan.note)
        begun = perf_counter()
        try:
            session = Session(file, plan, given)
        except DeviceError as error:
            if later == len(found):
                raise
            log.warning("%s; trying %s", error, found[later])
        else:
            took = (perf_counter() - begun) * 1000
            log.debug("%s is loaded in %.0f ms; images run on %s", file, took, plan.general)
            return session
    raise AssertionError("plans() returns at least one plan")


def start_all(
    file: Path,
    *,
    device: Device | None = None,
    hpi_config: HpiConfig | None = None,
    workers: int = 1,
    **options: Any,
) -> list[Session]:
    """Load `workers` copies of a model on each of the specified devices.

    Args:
        file: the `.onnx` file.
        device: as in `start`, but with any number of device indices.
        hpi_config: as in `start`. Its threads are those of each session; by default, sessions on
            the CPU share the cores.
        workers: sessions per device.
        options: further options of `start`.

    Returns:
        list of Session: one of each device in turn.

    Raises:
        DeviceError, MissingExtraError, ModelError: see `start`.
    """
    hpi_config = hpi_config or HpiConfig()
    if workers > 1 and hpi_config.threads is None:
        cores = catalog.read(gpus=False, plugins=False).cpu.cores
        threads = max(1, min(MAX_THREADS, cores // workers))
        hpi_config = hpi_config.model_copy(update={"threads": threads})
    several = device is not None and len(device.ids) > 1
    devices = [Device(device.kind, (i,)) for i in device.ids] if device and several else [device]
    first = [start(file, device=one, hpi_config=hpi_config, **options) for one in devices]
    for _ in range(workers - 1):
        first += [Session(file, s.plan, s.description) for s in first[: len(devices)]]
    return first


def device_of(sessions: Sequence[Session]) -> Device:
    """The device of sessions that are all on one kind of device."""
    plans = [session.plan for session in sessions]
    indices = dict.fromkeys(plan.device_id for plan in plans)
    return Device(plans[0].device, () if plans[0].device == "cpu" else tuple(indices))
