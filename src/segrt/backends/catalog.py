"""What this machine offers: execution providers and whether they load, GPUs, CPU features, cores.

The data classes are plain values, so plans can be tested with made-up machines; `read` fills them.
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
from functools import cache, lru_cache
from importlib import import_module, metadata, util
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from segrt.errors import MissingExtraError

RUNTIMES = {
    "segrt[cpu]": "onnxruntime",
    "segrt[openvino]": "onnxruntime-openvino",
    "segrt[gpu]": "onnxruntime-gpu",
    "onnxruntime-cann": "onnxruntime-cann",
    "onnxruntime-migraphx": "onnxruntime-migraphx",
    "onnxruntime-rocm": "onnxruntime-rocm",
}
"""What to install, and its wheel. All contain the module `onnxruntime`: two in one environment
overwrite each other."""

_PLUGIN = "onnxruntime-ep-openvino"


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA can use.

    Attributes:
        name: the driver's name for it.
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
        name: model name.
        cores: cores that this process may use, limited by affinity and the control group's quota.
        features: instruction sets in Linux's spelling, such as "avx512_bf16" and "amx_bf16"; empty
            if unknown.
    """

    name: str
    cores: int
    features: frozenset[str] = frozenset()

    @property
    def fast_bf16(self) -> bool:
        """Whether bf16 is faster than FP32.

        Measured with OpenVINO: true with AMX, and with AVX-512 on AMD (1.9 times); false on Intel
        CPUs with bf16 in AVX-512 only (0.65 to 0.94 times).
        """
        return "amx_bf16" in self.features or (
            "avx512_bf16" in self.features and "AMD" in self.name
        )

    @property
    def gains_by_openvino(self) -> bool:
        """Whether OpenVINO is faster than ONNX Runtime's CPU provider in FP32, as far as known.

        Measured on models of the zoo: 1.0 to 1.6 times with AVX-512; 0.68 to 1.07 times, 0.87 as
        geometric mean, with AVX2 alone (`benchmarks/results/cpu-avx2.md`).
        """
        return not self.features or "avx512f" in self.features


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Attributes:
        name: ONNX Runtime's name.
        plugin: Python module that registers it; empty if it is built into ONNX Runtime's wheel.
        missing: shared libraries it needs that can't be found.
        error: any other reason why it can't load.
        fix: the command that fixes that error; empty for the one that installs the backend.
    """

    name: str
    plugin: str = ""
    missing: tuple[str, ...] = ()
    error: str = ""
    fix: str = ""

    @property
    def problem(self) -> str:
        """Why it can't load; empty if it can."""
        return self.error or (f"{', '.join(self.missing)} missing" if self.missing else "")


@dataclass(frozen=True)
class Catalog:
    """Everything planning needs to know about a machine.

    Attributes:
        cpu: the processor.
        gpus: in the order of their CUDA device indices.
        providers: in ONNX Runtime's order, plugins last.
        versions: (name, version) of the installed wheels that matter.
        has_openvino: whether OpenVINO's wheels exist for this system.
    """

    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    providers: tuple[Provider, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    has_openvino: bool = True

    def provider(self, name: str) -> Provider | None:
        """The provider with this name, or None."""
        return next((provider for provider in self.providers if provider.name == name), None)

    @property
    def collisions(self) -> tuple[str, ...]:
        """The wheels that overwrite each other; empty if at most one is installed."""
        found = tuple(name for name, _ in self.versions if name in RUNTIMES.values())
        return found if len(found) > 1 else ()

    def install(self, requirement: str) -> str:
        """The command that installs a key of `RUNTIMES`, in place of any other runtime.

        Example:
            >>> Catalog(Cpu("", 1), versions=(("onnxruntime", "1.31"),)).install("segrt[gpu]")
            "pip uninstall -y onnxruntime && pip install 'segrt[gpu]'"
        """
        keep = {RUNTIMES[requirement], *([_PLUGIN] if requirement == "segrt[gpu]" else [])}
        others = [
            name
            for name, _ in self.versions
            if name in {*RUNTIMES.values(), _PLUGIN} and name not in keep
        ]
        remove = f"pip uninstall -y {' '.join(others)} && " if others else ""
        return f"{remove}pip install '{requirement}'"


def onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: it is not installed, or can't load.
    """
    try:
        import onnxruntime as ort

        ort.get_available_providers  # noqa: B018  half-uninstalled wheels leave an empty module
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f"ONNX Runtime is not usable ({error}): run  pip install 'segrt[cpu]'"
        ) from None
    return ort


@cache
def read(*, gpus: bool = True, plugins: bool = True) -> Catalog:
    """Inspect this machine; the result is cached for the process.

    Args:
        gpus: whether to look for GPUs and the libraries that GPU providers need, which takes time.
        plugins: whether to register the installed plugin providers.

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
        cpu=Cpu(cpu_name(), usable_cores(), _cpu_features()),
        gpus=_gpus() if gpus else (),
        providers=(
            *providers,
            *(provider for provider in plugged if provider.name not in built_in),
        ),
        versions=_versions(),
        has_openvino=platform.machine() in ("x86_64", "AMD64")
        and sys.platform in ("linux", "win32"),
    )


def plugin_devices(name: str, kind: str) -> list[Any]:
    """The devices to pass to `SessionOptions.add_provider_for_devices`.

    Args:
        name: exact name of a provider, without variants such as "OpenVINOExecutionProvider.AUTO".
        kind: kind of device: "cpu", "gpu" or "npu".

    Returns:
        list of onnxruntime.OrtEpDevice: empty if the provider is built in or not installed.
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
    """CPU cores that this process may use: the smaller of its affinity and its quota, at least 1.

    A fractional quota, as of a control group with 1.5 CPUs, is rounded down.

    Args:
        root: the folder that contains /proc and /sys.
    """
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(affinity) or os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota(root) or cores)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota, in cores, of this process's control groups and their parents.

    Args:
        root: the folder that contains /proc and /sys.
    """
    quotas = []
    for level, version_1 in _control_groups(root, "cpu"):
        quota = _text(level / "cpu.max").split()  # "max 100000" or "150000 100000"
        if version_1:
            quota = [
                *_text(level / "cpu.cfs_quota_us").split(),
                *_text(level / "cpu.cfs_period_us").split(),
            ]
        # "-1" and "max" mean no limit.
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
            quotas.append(int(quota[0]) / int(quota[1]))
    return min(quotas, default=None)


def usable_memory(root: Path = Path("/")) -> int | None:
    """Memory in bytes that this process may use: that of the machine or of its control groups.

    Args:
        root: the folder that contains /proc and /sys.
    """
    sizes = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for level, version_1 in _control_groups(root, "memory"):
        name = "memory.limit_in_bytes" if version_1 else "memory.max"
        limit = _text(level / name).strip()
        if limit.isdigit():  # "max" means no limit
            sizes.append(int(limit))
    return min(sizes, default=None)


def _control_groups(root: Path, controller: str) -> tuple[tuple[Path, bool], ...]:
    """The folders of this process's control groups and their parents; whether of version 1."""
    return _levels(_text(root / "proc/self/cgroup"), root, controller)


@lru_cache(maxsize=4)  # asked for each image
def _levels(groups: str, root: Path, controller: str) -> tuple[tuple[Path, bool], ...]:
    found: list[tuple[Path, bool]] = []
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controllers and controller)
        folder = base / group.strip("/")
        # A container may see its own group as the root while /proc still shows the host's path.
        parents = (parent for parent in folder.parents if base in parent.parents)
        found += [(level, bool(controllers)) for level in {base, folder, *parents}]
    return tuple(found)


def missing_libraries(library: Path | None, also: Iterable[str] = ()) -> tuple[str, ...]:
    """The shared libraries that `library` needs but that can't be found.

    Args:
        library: a shared library; None gives an empty result.
        also: names of libraries it opens only at run time.
    """
    if library is None:
        return ()
    try:
        done = subprocess.run(
            ["ldd", str(library)], capture_output=True, text=True, timeout=20, check=False
        )
        names = [*re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE), *also]
    except (OSError, subprocess.SubprocessError):  # without ldd: the loader names the first one
        error = _load_error(str(library))
        return (
            tuple(re.findall(r"(lib\S+\.so[.\d]*): cannot open", error)[:1] or [error])
            if error
            else ()
        )
    # ldd does not know the libraries that come from pip packages and are loaded by now.
    return tuple(name for name in dict.fromkeys(names) if _load_error(name))


# The CUDA provider opens cuDNN at the first convolution.
_ALSO = {"CUDAExecutionProvider": ("libcudnn.so.9",)} if sys.platform == "linux" else {}


def _load_error(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""


def _library(ort: Any, provider: str) -> Path | None:
    """The shared library of a built-in provider that needs other libraries."""
    stem = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}.get(provider)
    file = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{stem}.so"
    return file if stem and file.is_file() else None


def _preload(ort: Any) -> None:
    """Load the CUDA, cuDNN and TensorRT libraries of pip packages, which the loader can't find."""
    if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in _built_in():
        from contextlib import redirect_stdout
        from io import StringIO

        with redirect_stdout(
            StringIO()
        ):  # it prints what it can't find, which `missing_libraries` reports
            ort.preload_dlls()
        spec = util.find_spec("tensorrt_libs")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
                for file in Path(folder).glob(name):
                    _load_error(str(file))


@cache
def _built_in() -> tuple[str, ...]:
    """The providers of the wheel itself; once registered, ONNX Runtime lists plugins too."""
    return tuple(onnxruntime().get_available_providers())


@cache
def _plugins() -> tuple[Provider, ...]:
    """Register every installed module that follows the convention of ONNX Runtime's plugins."""
    _built_in()
    ort, found = onnxruntime(), []
    for module in iter_modules():
        if not module.name.startswith("onnxruntime_ep_"):
            continue
        try:
            plugin = import_module(module.name)
            library, names = plugin.get_library_path(), plugin.get_ep_names()
        except Exception as error:  # foreign code: a broken plugin must not break the others
            found.append(Provider(module.name, module.name, error=_line(error)))
            continue
        try:
            ort.register_execution_provider_library(module.name, library)
            why = ""
        except Exception as error:  # onnxruntime has its own class per status code
            why = _line(error)
        taken = {device.ep_name for device in ort.get_ep_devices()}
        for name in names:
            fix = ""
            if not why and name not in taken:
                why = f"{module.name} takes no device of this machine"
                if name == "OpenVINOExecutionProvider" and sys.version_info >= (3, 14):
                    # With 1.8.1 the plugin skips CPUs other than Intel's; the wheel does not.
                    fix = "python3.13 -m pip install 'segrt[openvino]'"
            found.append(Provider(name, module.name, error=why, fix=fix))
    return tuple(found)


def _gpus() -> tuple[Gpu, ...]:
    """Ask the CUDA driver, which numbers GPUs as ONNX Runtime does (CUDA_VISIBLE_DEVICES too)."""
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
    except (OSError, AttributeError):  # no driver, or one without these functions
        return ()
    return tuple(found)


def _versions() -> tuple[tuple[str, str], ...]:
    nvidia = ("nvidia-cudnn", "nvidia-cublas", "nvidia-cuda-runtime")
    prefixes = ("onnxruntime", "tensorrt", "opencv-", *nvidia)
    found = set()
    for dist in metadata.distributions():
        # `dist.name` and `dist.version` parse the whole file, twice: 0.1 s for 100 wheels.
        text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
        fields = dict(re.findall(r"^(Name|Version): *(\S+)", text, re.MULTILINE)[:2])
        name = fields.get("Name", "").replace("_", "-")
        if name == "onnx" or name.startswith(prefixes):
            found.add((name, fields.get("Version", "")))
    return tuple(sorted(found))


def cpu_name() -> str:
    """The model name of the processor."""
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
