from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import FileFinder
from pathlib import Path
from pkgutil import ModuleInfo

import machines as m
import pytest

from segrt.backends import catalog
from segrt.backends.catalog import (
    RUNTIMES,
    Catalog,
    Provider,
    missing_libraries,
    usable_cores,
)
from segrt.backends.plan import BACKENDS
from segrt.doctor import doctor, problems, report


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        (
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/job\n1:name=systemd:/x\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 16),
    ],
)
def test_usable_cores_respects_cgroup_quotas(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(_write(tmp_path, files)) == cores


def test_this_machine() -> None:
    machine = catalog.read()
    assert machine.provider("CPUExecutionProvider") == Provider("CPUExecutionProvider")
    assert 1 <= machine.cpu.cores <= (os.cpu_count() or 1)
    assert machine.cpu.name
    assert any(name.startswith("onnxruntime") for name, _ in machine.versions)
    assert catalog.read() is machine
    assert catalog.plugin_devices("CPUExecutionProvider", "cpu") == []


@pytest.mark.skipif(
    not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler and Linux"
)
def test_all_missing_libraries_are_listed(tmp_path: Path) -> None:
    def build(name: str, *dependencies: str) -> Path:
        libraries = [f"-l:{dependency}" for dependency in dependencies]
        command = [
            "cc",
            "-shared",
            "-xc",
            "/dev/null",
            "-Wl,--no-as-needed",
            f"-Wl,-soname,{name}",
            "-L",
            ".",
        ]
        subprocess.run([*command, *libraries, "-o", name], cwd=tmp_path, check=True)
        return tmp_path / name

    one, two = build("libsegrt_one.so.1"), build("libsegrt_two.so.2")
    top = build("libsegrt_top.so", one.name, two.name)
    one.unlink()
    two.unlink()
    assert missing_libraries(top) == (one.name, two.name)
    assert missing_libraries(top, also=("libsegrt_late.so.3",))[-1] == "libsegrt_late.so.3"
    assert missing_libraries(tmp_path / "does not exist") == ()
    assert missing_libraries(None) == ()


def test_without_ldd_the_loader_error_names_a_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(catalog, "_load_error", lambda library: error)
    assert missing_libraries(tmp_path / "x.so") == ("libcublasLt.so.13",)


def test_doctor_reports_no_problem_on_a_working_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(m.GPU_H100) == []
    assert doctor(m.GPU_H100)
    out = capsys.readouterr().out
    assert "NVIDIA H100, compute capability 9.0, 81559 MiB" in out
    assert "amx_bf16" in out
    assert "normal mode would run CUDAExecutionProvider fp32 on gpu:0" in out
    assert "high-performance mode would run TensorrtExecutionProvider fp16 on gpu:0" in out


def test_doctor_names_what_runs_sizes_that_do_not_recur() -> None:
    modes = report(m.OPENVINO)["modes"]
    assert modes["normal"] == (
        "OpenVINOExecutionProvider fp32 on cpu, 4 threads; "
        "CPUExecutionProvider for image sizes that don't recur"
    )
    assert modes["high-performance"] == "OpenVINOExecutionProvider fp32 on cpu, 4 threads"


def test_doctor_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    for machine, can_run in ((m.GPU_H100, True), (m.GPU_WHEEL_NO_GPU, True), (m.NOTHING, False)):
        assert doctor(machine, as_json=True) == can_run
        found = json.loads(capsys.readouterr().out)
        assert found == report(machine)
        assert found["can_run"] == can_run
        assert found["problems"] == problems(machine)
    gpu = report(m.GPU_H100)["gpus"][0]
    assert gpu == {"name": "NVIDIA H100", "compute_capability": "9.0", "memory_mb": 81559}
    assert report(m.NOTHING)["modes"]["normal"].startswith("can't run: ")


def test_plugin_without_devices_has_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        get_library_path = staticmethod(lambda: "plugin.so")
        get_ep_names = staticmethod(lambda: ["OpenVINOExecutionProvider"])

    runtime = catalog.onnxruntime()
    monkeypatch.setattr(catalog, "import_module", lambda name: Plugin)
    monkeypatch.setattr(
        catalog,
        "iter_modules",
        lambda: [ModuleInfo(FileFinder("."), "onnxruntime_ep_made_up", False)],
    )
    monkeypatch.setattr(runtime, "register_execution_provider_library", lambda name, library: None)
    monkeypatch.setattr(runtime, "get_ep_devices", list)
    (provider,) = catalog._plugins.__wrapped__()
    assert provider.problem == "onnxruntime_ep_made_up takes no device of this machine"
    assert ("python3.13" in provider.fix) == (sys.version_info >= (3, 14))


def test_doctor_reports_the_fix_for_a_plugin_without_devices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor(m.NO_DEVICE)
    out = capsys.readouterr().out
    assert "OpenVINOExecutionProvider: takes no device; run  pip install x" in out
    assert "high-performance mode would run CPUExecutionProvider" in out


def test_doctor_reports_each_missing_library_and_its_fix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor(m.GPU_WHEEL_NO_GPU)
    out = capsys.readouterr().out
    for library in m.CUDA_LIBRARIES:
        assert f"CUDAExecutionProvider: {library} is missing; run  pip install 'segrt[gpu]'" in out
    assert (
        "TensorrtExecutionProvider: libnvinfer.so.10 is missing; run  pip install 'segrt[gpu]'"
        in out
    )
    assert "libcuda.so.1 is missing; it is part of the NVIDIA driver" in out


def test_doctor_reports_colliding_wheels() -> None:
    machine = Catalog(
        m.PLAIN,
        (),
        m.OPENVINO.providers,
        (("onnxruntime", "1.31.1"), ("onnxruntime-gpu", "1.31.1")),
    )
    (problem,) = problems(machine)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem
    one = Catalog(
        m.PLAIN,
        (),
        m.OPENVINO.providers,
        (("onnxruntime", "1.31.1"), ("onnxruntime-ep-openvino", "1.8.1")),
    )
    assert problems(one) == []


def test_doctor_reports_two_wheels_of_opencv() -> None:
    versions = (("opencv-python", "5.0.0"), ("opencv-python-headless", "5.0.0"))
    (problem,) = problems(Catalog(m.PLAIN, (), m.OPENVINO.providers, versions))
    assert "pip uninstall -y opencv-python opencv-python-headless" in problem
    assert "pip install opencv-python  (" in problem
    assert problems(Catalog(m.PLAIN, (), m.OPENVINO.providers, versions[1:])) == []


def test_doctor_reports_unused_hardware_and_broken_plugins() -> None:
    (gpu,) = problems(Catalog(m.PLAIN, (m.T4,), m.CPU_ONLY.providers))
    assert "Tesla T4 is not used" in gpu
    assert "segrt[gpu]" in gpu
    broken = Provider(
        "OpenVINOExecutionProvider", "onnxruntime_ep_openvino", error="wrong API version"
    )
    (problem,) = problems(Catalog(m.PLAIN, (), (broken,)))
    assert (
        problem
        == "OpenVINOExecutionProvider: wrong API version; run  pip install 'segrt[openvino]'"
    )
    other = Provider("OtherExecutionProvider", "onnxruntime_ep_other", error="too old")
    assert problems(Catalog(m.PLAIN, (), (*m.OPENVINO.providers, other))) == [
        "OtherExecutionProvider: too old; run  pip install --upgrade onnxruntime "
        "onnxruntime-ep-other"
    ]


def test_doctor_offers_openvino_where_it_exists() -> None:
    installed = (("onnxruntime", "1.31.1"),)
    (problem,) = problems(Catalog(m.PLAIN, (), m.CPU_ONLY.providers, installed))
    assert "run  pip uninstall -y onnxruntime && pip install 'segrt[openvino]'" in problem
    assert not problems(Catalog(m.PLAIN, (), m.CPU_ONLY.providers, installed, has_openvino=False))
    assert not problems(Catalog(m.AVX2, (), m.CPU_ONLY.providers, installed))


def test_doctor_does_not_give_up_a_gpu_for_openvino() -> None:
    cuda = m.CUDA_ONLY.providers
    assert not problems(Catalog(m.ZEN, (m.H100,), cuda))
    assert not problems(Catalog(m.ZEN, (m.H100,), (*cuda, *m.NO_DEVICE.providers[1:])))


@pytest.mark.parametrize(
    ("requirement", "installed", "removed"),
    [
        ("segrt[openvino]", [], ""),
        ("segrt[openvino]", ["onnxruntime-openvino"], ""),
        ("segrt[openvino]", ["onnxruntime-ep-openvino"], "onnxruntime-ep-openvino"),
        ("segrt[gpu]", ["onnxruntime-ep-openvino", "onnxruntime-gpu"], ""),
        (
            "segrt[gpu]",
            ["onnxruntime", "onnxruntime-openvino", "opencv-python"],
            "onnxruntime onnxruntime-openvino",
        ),
        ("onnxruntime-cann", ["onnxruntime"], "onnxruntime"),
    ],
)
def test_a_runtime_replaces_the_others(
    requirement: str, installed: list[str], removed: str
) -> None:
    machine = Catalog(m.PLAIN, versions=tuple((name, "1.0") for name in installed))
    expected = f"pip uninstall -y {removed} && " if removed else ""
    assert machine.install(requirement) == f"{expected}pip install '{requirement}'"


def test_every_backend_can_be_installed() -> None:
    assert {backend.install for backend in BACKENDS.values()} <= set(RUNTIMES)


def test_doctor_fails_if_nothing_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not doctor(m.NOTHING)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    catalog.read.cache_clear()
    assert not doctor()
    assert "pip install 'segrt[cpu]'" in capsys.readouterr().out
    assert not doctor(as_json=True)
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "pip install 'segrt[cpu]'" in problem
    catalog.read.cache_clear()
