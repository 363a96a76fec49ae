"""The hardware and software that a time was measured on, and whether the machine was idle."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segrt.backends import catalog

BUSY = 0.25
"""Load of other processes, as a fraction of the cores in use, above which a report warns."""

_LIBRARIES = (
    "segrt onnxruntime onnxruntime-gpu onnxruntime-openvino onnxruntime-ep-openvino openvino "
    "tensorrt paddlepaddle numpy opencv-python-headless"
)


@dataclass(frozen=True)
class Environment:
    """The machine and its software.

    Attributes:
        cpu: CPU model.
        gpus: name and driver version of each GPU, from nvidia-smi.
        cores: number of CPU cores of the machine.
        pinned: the cores this process is pinned to; empty if the system can't pin.
        governor: CPU frequency governor; None if the system does not expose it.
        cgroup_cpus: CPU quota of the control group, in cores; None if unlimited.
        memory_gib: memory of the machine, or the control group's limit if that is lower.
        system: operating system and Python version.
        libraries: version by package name.
        load_before: load average over the last minute before the first measurement.
        load_after: load average after the last measurement, which includes the benchmark itself.
    """

    cpu: str
    gpus: tuple[str, ...]
    cores: int
    pinned: tuple[int, ...]
    governor: str | None
    cgroup_cpus: float | None
    memory_gib: float | None
    system: str
    libraries: dict[str, str]
    load_before: float | None
    load_after: float | None = None

    @property
    def busy(self) -> bool:
        """Whether other processes kept the machine busy when the measurement began."""
        return self.load_before is not None and self.load_before > BUSY * (
            len(self.pinned) or self.cores
        )

    def finished(self) -> Environment:
        """A copy with the current load average as `load_after`."""
        return replace(self, load_after=_load())


def pin(threads: int) -> tuple[int, ...]:
    """Pin this process and its children to one core per thread, distinct physical cores first.

    Returns:
        tuple: the cores; empty if the system can't pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0), key=lambda core: (_sibling(core), core))
    chosen = tuple(sorted(cores[:threads]))
    os.sched_setaffinity(0, chosen)
    return chosen


def observe(pinned: tuple[int, ...]) -> Environment:
    """Describe the machine, before the first measurement.

    Example:
        >>> environment = observe(pin(threads=2))
    """
    governor = f"/sys/devices/system/cpu/cpu{min(pinned, default=0)}/cpufreq/scaling_governor"
    memory = catalog.usable_memory()
    return Environment(
        cpu=catalog.cpu_name(),
        gpus=_gpus(),
        cores=os.cpu_count() or 1,
        pinned=pinned,
        governor=_read(governor) or None,
        cgroup_cpus=catalog.cpu_quota(),
        memory_gib=round(memory / 2**30, 1) if memory else None,
        system=f"{platform.platform()}, Python {platform.python_version()}",
        libraries={name: found for name in _LIBRARIES.split() if (found := _version(name))},
        load_before=_load(),
    )


def _sibling(core: int) -> int:
    """Index of a hardware thread within its physical core."""
    text = _read(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            ids += range(int(first), int(last or first) + 1)
    return ids.index(core) if core in ids else 0


def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""
