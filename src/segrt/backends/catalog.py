"""What this machine offers: execution providers, whether they can load, GPUs, CPU features, usable cores.

The data classes are plain values, so that plans can be tested with made-up ones; `read` fills them in.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from segrt.errors import MissingExtraError

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
"""Wheels that all install the module `onnxruntime`: two of them in one environment overwrite each other's files."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA can use, at its CUDA index.

    Attributes:
        name: as the driver names it.
        compute_capability: (major, minor); (7, 5) is a T4, (9, 0) an H100.
        memory_mb: total memory in MiB.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_mb: int


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        name: its model.
        cores: those that this process may use: affinity and the control group's quota are both counted.
        features: instruction sets as Linux names them, such as "avx512_bf16" and "amx_bf16"; empty where unknown.
    """

    name: str
    cores: int
    features: frozenset[str] = frozenset()

    @property
    def fast_bf16(self) -> bool:
        """Whether bf16 is faster than FP32. Measured with OpenVINO: with AMX, and on AMD's AVX-512 (1.9 times), yes;
        on an Intel CPU that has bf16 in AVX-512 alone, no (0.65 to 0.94 times)."""
        return "amx_bf16" in self.features or (
            "avx512_bf16" in self.features and "AMD" in self.name
        )


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Attributes:
        name: ONNX Runtime's name of it.
        plugin: the Python module that registers it; "" where the wheel of ONNX Runtime has it built in.
        missing: shared libraries without which it can't load.
        error: why it can't load otherwise.
        mend: the command that mends that error; "" for the one that installs the backend.
    """

    name: str
    plugin: str = ""
    missing: tuple[str, ...] = ()
    error: str = ""
    mend: str = ""

    @property
    def trouble(self) -> str:
        """Why it can't load; "" if it can."""
        return self.error or (f"{', '.join(self.missing)} missing" if self.missing else "")


@dataclass(frozen=True)
class Catalog:
    """Everything that planning needs to know of a machine.

    Attributes:
        cpu: the processor.
        gpus: by CUDA index.
        providers: in ONNX Runtime's order, plugins last.
        versions: of the installed wheels that matter, by name.
    """

    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    providers: tuple[Provider, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()

    def provider(self, name: str) -> Provider | None:
        """The provider of that name, if it is there."""
        return next((provider for provider in self.providers if provider.name == name), None)

    @property
    def collisions(self) -> tuple[str, ...]:
        """The wheels that overwrite each other; empty where at most one is installed."""
        found = tuple(name for name, _ in self.versions if name in RUNTIMES)
        return found if len(found) > 1 else ()


def onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: no wheel of it is installed, or it can't load.
    """
    try:
        import onnxruntime as ort

        ort.get_available_providers  # noqa: B018  half-removed wheels leave an empty module behind
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f"ONNX Runtime is not usable ({error}): run  pip install 'segrt[cpu]'"
        ) from None
    return ort


@cache
def read(*, gpus: bool = True, plugins: bool = True) -> Catalog:
    """Look at this machine, once a process.

    Args:
        gpus: look for GPUs, and for the libraries of the providers that need one: loading those takes a moment.
        plugins: register the plugin providers that are installed.

    Raises:
        MissingExtraError: ONNX Runtime is not usable.
    """
    ort = onnxruntime()
    built_in = _built_in()
    plugged = _plugins() if plugins else ()
    if gpus:
        _preload(ort)
    providers = [
        Provider(
            name,
            missing=missing_libraries(_library(ort, name), _ALSO.get(name, ())) if gpus else (),
        )
        for name in built_in
    ]
    return Catalog(
        cpu=Cpu(_cpu_name(), usable_cores(), _cpu_features()),
        gpus=_gpus() if gpus else (),
        providers=(
            *providers,
            *(provider for provider in plugged if provider.name not in built_in),
        ),
        versions=_versions(),
    )


def plugin_devices(name: str, kind: str) -> list[Any]:
    """What to give `SessionOptions.add_provider_for_devices`.

    Args:
        name: of a provider; variants of it, such as "OpenVINOExecutionProvider.AUTO", do not count.
        kind: of device: "cpu", "gpu" or "npu".

    Returns:
        list of onnxruntime.OrtEpDevice: empty where the provider is built in, or not there.
    """
    if name in _built_in() or name not in {provider.name for provider in _plugins()}:
        return []
    devices = onnxruntime().get_ep_devices()
    return [
        device
        for device in devices
        if device.ep_name == name and device.device.type.name.lower() == kind
    ]


def usable_cores(root: Path = Path("/")) -> int:
    """CPU cores that this process may use, at least 1: the smaller of its affinity and its control groups' quota.

    Args:
        root: where /proc and /sys are.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, int(_quota(root))))


def _quota(root: Path) -> float:
    """The least CPU quota, in cores, of this process' control groups and of those around them; infinite if none."""
    quotas = [float(1 << 20)]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controllers and "cpu")
        folder = base / group.strip("/")
        # A container may see its own group as the top one while /proc still gives the host's path.
        for level in {
            base,
            folder,
            *(parent for parent in folder.parents if base in parent.parents),
        }:
            quota = _text(level / "cpu.max").split()  # version 2: "max 100000" or "150000 100000"
            if controllers:
                quota = [
                    *_text(level / "cpu.cfs_quota_us").split(),
                    *_text(level / "cpu.cfs_period_us").split(),
                ]
            if (
                len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0
            ):  # "-1" and "max" mean no limit
                quotas.append(int(quota[0]) / int(quota[1]))
    return min(quotas)


def missing_libraries(library: Path | None, also: Iterable[str] = ()) -> tuple[str, ...]:
    """The shared libraries that `library` needs and that can't be found.

    Args:
        library: a shared library; None for nothing to look at.
        also: names of libraries that it opens only while it runs.
    """
    if library is None:
        return ()
    try:
        done = subprocess.run(
            ["ldd", str(library)], capture_output=True, text=True, timeout=20, check=False
        )
        names = [*re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE), *also]
    except (OSError, subprocess.SubprocessError):  # no ldd here: the loader names the first one
        error = _load_error(str(library))
        return (
            tuple(re.findall(r"(lib\S+\.so[.\d]*): cannot open", error)[:1] or [error])
            if error
            else ()
        )
    # ldd does not know of the libraries that pip packages brought and that are loaded by now.
    return tuple(name for name in dict.fromkeys(names) if _load_error(name))


# The CUDA provider opens cuDNN when the first convolution is met.
_ALSO = {"CUDAExecutionProvider": ("libcudnn.so.9",)} if sys.platform == "linux" else {}


def _load_error(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""


def _library(ort: Any, provider: str) -> Path | None:
    """The file of a built-in provider that is a shared library of its own and needs others."""
    stem = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}.get(provider)
    file = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{stem}.so"
    return file if stem and file.is_file() else None


def _preload(ort: Any) -> None:
    """Load the CUDA, cuDNN and TensorRT libraries that pip packages bring, which the system's loader can't find."""
    if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in _built_in():
        from contextlib import redirect_stdout
        from io import StringIO

        with redirect_stdout(
            StringIO()
        ):  # it prints what it can't find; `missing_libraries` says that better
            ort.preload_dlls()
        spec = util.find_spec("tensorrt_libs")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
                for file in Path(folder).glob(name):
                    _load_error(str(file))


@cache
def _built_in() -> tuple[str, ...]:
    """The providers of the wheel itself: ONNX Runtime lists plugins too, once they are registered."""
    return tuple(onnxruntime().get_available_providers())


@cache
def _plugins() -> tuple[Provider, ...]:
    """Register every installed module that is named and made like ONNX Runtime's plugin packages."""
    _built_in()
    ort, found = onnxruntime(), []
    for module in iter_modules():
        if not module.name.startswith("onnxruntime_ep_"):
            continue
        try:
            plugin = import_module(module.name)
            library, names = plugin.get_library_path(), plugin.get_ep_names()
        except (
            Exception
        ) as error:  # a plugin is foreign code; a broken one must not break the others
            found.append(Provider(module.name, module.name, error=_line(error)))
            continue
        try:
            ort.register_execution_provider_library(module.name, library)
            why = ""
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            why = _line(error)
        taken = {device.ep_name for device in ort.get_ep_devices()}
        for name in names:
            mend = ""
            if not why and name not in taken:
                why = f"{module.name} takes no device of this machine"
            if name == "OpenVINOExecutionProvider" and name not in taken:
                # Seen with 1.8.1: the plugin passes over CPUs that are not Intel's, the wheel with both does not.
                mend = "pip uninstall -y onnxruntime onnxruntime-ep-openvino && pip install 'segrt[openvino]'"
            found.append(Provider(name, module.name, error=why, mend=mend))
    return tuple(found)


def _gpus() -> tuple[Gpu, ...]:
    """Ask the CUDA driver, which counts as ONNX Runtime does: CUDA_VISIBLE_DEVICES is respected."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int()
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)):
            return ()
        found = []
        for index in range(number.value):
            device, name, memory = (
                ctypes.c_int(),
                ctypes.create_string_buffer(256),
                ctypes.c_size_t(),
            )
            major, minor = ctypes.c_int(), ctypes.c_int()
            cuda.cuDeviceGet(ctypes.byref(device), index)
            cuda.cuDeviceGetName(name, len(name), device)
            cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
            cuda.cuDeviceGetAttribute(
                ctypes.byref(major), 75, device
            )  # ..._COMPUTE_CAPABILITY_MAJOR
            cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
            found.append(
                Gpu(
                    name.value.decode(errors="replace"),
                    (major.value, minor.value),
                    memory.value >> 20,
                )
            )
    except (OSError, AttributeError):  # no driver, or none that has these functions
        return ()
    return tuple(found)


def _versions() -> tuple[tuple[str, str], ...]:
    prefixes = ("onnxruntime", "tensorrt", "nvidia-cudnn", "nvidia-cublas", "nvidia-cuda-runtime")
    found = {
        (str(dist.name), dist.version)
        for dist in metadata.distributions()
        if dist.name.startswith(prefixes)
    }
    return tuple(sorted(found))


def _cpu_name() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def _cpu_features() -> frozenset[str]:
    match = re.search(
        r"^(?:flags|Features)\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE
    )
    return frozenset(match[1].split()) if match else frozenset()


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
