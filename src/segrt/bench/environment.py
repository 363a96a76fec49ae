"""What a time was measured on, and whether the machine was quiet."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MAX_THREADS = 8
BUSY = 0.25
"""Load by others, as a share of the cores in use, from which a result says that the machine was busy."""

_LIBRARIES = (
    "segrt onnxruntime onnxruntime-gpu onnxruntime-openvino onnxruntime-ep-openvino tensorrt paddlepaddle numpy "
    "opencv-python-headless"
)


@dataclass(frozen=True)
class Environment:
    """The machine and what runs on it.

    Attributes:
        cpu: model name.
        gpus: names and driver, as nvidia-smi gives them.
        cores: of the machine.
        pinned: the cores that it keeps to, empty where the system can't pin.
        governor: of the CPU's frequency; None where the system does not show it.
        cgroup_cpus: CPU limit of the control group, in cores; None for none.
        memory_gib: of the machine, or the control group's limit where that is lower.
        system: operating system and Python.
        libraries: version by name.
        load_before: load average of the last minute, before the first measurement.
        load_after: likewise, after the last; it includes our own.
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
        """Whether others kept the machine busy when the measurement began."""
        return self.load_before is not None and self.load_before > BUSY * (
            len(self.pinned) or self.cores
        )

    def finished(self) -> Environment:
        """The same, with the load average of now."""
        return replace(self, load_after=_load())


def usable_cores() -> int:
    """CPU cores that this process may use: by affinity, and by the limit of its control group."""
    limit = _cgroup_cpus()
    return max(1, min(len(_affinity()), math.ceil(limit) if limit else len(_affinity())))


def pin(threads: int) -> tuple[int, ...]:
    """Keep this process, and those that it starts, to as many cores as threads; physical cores first.

    Returns:
        tuple: the cores; empty where the system can't do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    chosen = tuple(sorted(sorted(_affinity(), key=lambda core: (_sibling(core), core))[:threads]))
    os.sched_setaffinity(0, chosen)
    return chosen


def observe(pinned: tuple[int, ...]) -> Environment:
    """Look at the machine, before anything is measured."""
    return Environment(
        cpu=_cpu(),
        gpus=_gpus(),
        cores=os.cpu_count() or 1,
        pinned=pinned,
        governor=_read(
            f"/sys/devices/system/cpu/cpu{min(pinned, default=0)}/cpufreq/scaling_governor"
        )
        or None,
        cgroup_cpus=_cgroup_cpus(),
        memory_gib=_memory(),
        system=f"{platform.platform()}, Python {platform.python_version()}",
        libraries={name: found for name in _LIBRARIES.split() if (found := _version(name))},
        load_before=_load(),
    )


def _affinity() -> set[int]:
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def _sibling(core: int) -> int:
    """0 for the first hardware thread of a physical core, 1 for the next, ..."""
    text = _read(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            ids += range(int(first), int(last or first) + 1)
    return ids.index(core) if core in ids else 0


def _cpu() -> str:
    lines = _read("/proc/cpuinfo").splitlines()
    named = next((line for line in lines if line.startswith("model name")), "")
    return named.partition(":")[2].strip() or platform.processor() or platform.machine()


def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _cgroup_cpus() -> float | None:
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota:  # the older hierarchy
        quota, period = (
            _read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")
        )
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _memory() -> float | None:
    limits = [
        _read("/sys/fs/cgroup/memory.max"),
        _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ]
    sizes = [int(limit) for limit in limits if limit.isdigit()]
    if hasattr(os, "sysconf"):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return round(min(sizes) / 2**30, 1) if sizes else None


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
