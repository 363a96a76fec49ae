"""The private environment: a real one, with a package from a local folder in place of Paddle."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from fake_converter import child

from segrt import consent, converter
from segrt.errors import ConfigError, DownloadError, ExportError, ModelError

SETUP = (
    "from segrt import converter, files\n"
    "converter.requirements = lambda: ['fakepaddle==1']\n"
    "converter._MODULES = ('no_such_module',)\n"
)


@pytest.fixture(autouse=True)
def packages(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, the only place where pip looks."""
    for name in list(os.environ):
        if name.startswith(("SEGRT_", "PIP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SEGRT_HOME", str(home))
    folder = tmp_path / "packages"
    folder.mkdir()
    info = "fakepaddle-1.dist-info"
    with zipfile.ZipFile(folder / "fakepaddle-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fakepaddle.py", "answer = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fakepaddle\nVersion: 1\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(converter, "requirements", lambda: ["fakepaddle==1"])
    monkeypatch.setattr(converter, "_MODULES", ("no_such_module",))
    monkeypatch.setattr(consent, "_ask", [])
    return folder


def _answer(python: Path) -> str:
    code = "import fakepaddle; print(fakepaddle.answer)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_is_made_once_with_consent_and_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return False

    consent.ask_with(ask)
    with pytest.raises(ModelError, match="set SEGRT_YES=1"):
        converter.require("X")
    assert asked == [
        f"X must be converted to ONNX, which requires Paddle: install it, 1.9 GB, into "
        f"{home / 'converter'}? (`segrt models remove --converter` deletes it)"
    ]
    assert not home.exists()
    monkeypatch.setenv("SEGRT_YES", "1")
    python = converter.require("X")
    assert _answer(python) == "42"
    assert python.is_relative_to(home / "converter")
    assert len(caplog.messages) == 1
    assert str(python.parents[1]) in caplog.messages[0]
    assert converter.find() == converter.require("X") == python
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    assert converter.require("X") == python
    assert converter.remove() > 1000
    assert converter.find() is None
    assert not python.exists()
    with pytest.raises(ModelError, match="there is no converter"):
        converter.remove()
    with pytest.raises(ModelError, match="SEGRT_OFFLINE forbids installing it"):
        converter.require("X")


def test_other_requirements_make_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first = converter.make()
    assert converter.make() == first
    monkeypatch.setattr(converter, "requirements", lambda: ["fakepaddle>=1"])
    assert converter.find() is None
    second = converter.make()
    assert _answer(second) == "42"
    assert not first.exists()


@pytest.mark.parametrize(
    ("step", "function"),  # -m venv, pip --version, pip install, ready.json
    [(0, "_run"), (1, "_run"), (2, "_run"), (0, "write_atomic")],
)
def test_killed_at_any_step_the_next_call_completes(home: Path, step: int, function: str) -> None:
    process = child(f"{SETUP}die_at({step}, (converter, {function!r}))\nconverter.make()")
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert converter.find() is None
    python = converter.make()
    assert _answer(python) == "42"
    assert list((home / "converter").glob("env-*")) == [python.parents[1]]


def test_two_processes_make_one() -> None:
    code = f"{SETUP}print(converter.make())"
    both = [child(code), child(code)]
    outputs = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(outputs) == 1


def test_failures_of_pip_are_one_line(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "requirements", lambda: ["fakepaddle==2"])
    with pytest.raises(DownloadError) as caught:
        converter.make()
    assert "pip can't install Paddle into" in str(caught.value)
    assert "No matching distribution found for fakepaddle==2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert converter.find() is None
    assert not list(converter.folder().glob("env-*"))  # which could fill the disk


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda path: usage(500_000_000))
        with pytest.raises(DownloadError, match=r"has 0\.5 GB free, and Paddle needs 1\.9"):
            converter.make()
    output = "Installing\nERROR: Could not install: [Errno 28] No space left on device\nnotice\n"
    monkeypatch.setattr(converter, "_run", lambda *_, **__: (1, output))
    with pytest.raises(DownloadError, match=r"^the disk is full: ERROR: .* on device; free some"):
        converter.make()


def test_an_interpreter_without_pip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = converter._run

    def no_pip(command: list[str], *_: object, **__: object) -> tuple[int, str]:
        return (1, "No module named pip") if "pip" in command else run(command, os.environ.copy())

    monkeypatch.setattr(converter, "_run", no_pip)
    with pytest.raises(DownloadError, match=f"{sys.executable} has no pip, which installs Paddle"):
        converter.make()


def test_a_stopped_command_ends_what_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path / 'pid'}; echo started; wait"
    process = child(
        "from segrt import converter\n"
        f"converter._run(['sh', '-c', {script!r}], dict(os.environ), step=print)"
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    sleeping = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{sleeping}/stat")
    for _ in range(500):  # a busy machine takes a moment to end a killed process
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"process {sleeping} still runs")


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")
@pytest.mark.parametrize("bare", [True, False])
def test_openmp_of_scikit_learn_is_used_where_the_system_has_none(
    bare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> str:
        if bare:
            raise OSError(f"{name}: cannot open shared object file")
        return name

    monkeypatch.setattr(ctypes, "CDLL", find)
    links = tmp_path / "links"
    assert converter._openmp(tmp_path, links, "/mine") == {}
    copy = tmp_path / "scikit_learn.libs" / "libgomp-a34b3233.so.1.0.0"
    copy.parent.mkdir()
    copy.write_text("library")
    found = converter._openmp(tmp_path, links, "/mine")
    assert found == ({"LD_LIBRARY_PATH": f"{links}:/mine"} if bare else {})
    assert not bare or (links / "libgomp.so.1").read_text() == "library"


def test_a_frozen_program_converts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "_MODULES", ("json",))
    assert converter.find() == Path(sys.executable)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("SEGRT_YES", "1")
    assert converter.find() is None
    with pytest.raises(ModelError, match="which a frozen program can't do: run `segrt models"):
        converter.require("X")


def test_requirements_are_those_of_segrt_and_its_export_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    found = converter.requirements()
    names = {text.partition(";")[0].rstrip("0123456789.=<>,") for text in found}
    assert {"numpy", "paddlepaddle", "paddle2onnx", "onnxruntime", "onnxslim"} <= names
    assert not {"onnxruntime-gpu", "onnxruntime-ep-openvino", "fastapi", "pytest"} & names
    assert not [text for text in found if "extra" in text]


def test_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not consent.given("?")
    consent.agree()
    assert consent.given("?")
    monkeypatch.setenv("SEGRT_YES", "perhaps")
    with pytest.raises(ConfigError, match="SEGRT_YES 'perhaps' is not valid: use 1 or 0"):
        consent.given("?")


def test_conversions_that_fail_are_one_line(tmp_path: Path) -> None:
    def job(text: str) -> Path:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    arguments = (tmp_path / "x.tar", "X", tmp_path)
    with pytest.raises(ExportError, match=r"^X can't be converted: .* exit status 3: second$"):
        converter.convert(job("echo first; echo second >&2; exit 3"), *arguments)
    shutil.rmtree(tmp_path / "code")
    with pytest.raises(ExportError, match=r"ended early, killed by signal 9: no output"):
        converter.convert(job("kill -9 $$"), *arguments)
    shutil.rmtree(tmp_path / "code")
    with pytest.raises(ExportError, match=r"^X can't be converted: the model has no output$"):
        converter.convert(job("echo the model has no output > error.txt; exit 1"), *arguments)
    shutil.rmtree(tmp_path / "code")
    with pytest.raises(DownloadError, match="the disk is full"):
        converter.convert(job("echo 'No space left on device' > error.txt; exit 1"), *arguments)


@pytest.mark.parametrize("form", ["source", "installed", "zip"])
def test_the_environment_runs_this_very_segrt(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way segrt is installed, its code is found, and nothing else from there."""
    import segrt

    packages = tmp_path / "site-packages"
    shutil.copytree(Path(segrt.__file__).parent, packages / "segrt")
    spec = importlib.util.find_spec("segrt_export")
    assert spec
    assert spec.origin
    shutil.copytree(Path(spec.origin).parent, packages / "segrt_export")
    (packages / "neighbour.py").touch()
    shutil.copyfile(
        Path(segrt.__file__).parents[2] / "model_zoo.yaml", packages / "segrt/model_zoo.yaml"
    )
    if form == "zip":
        shutil.make_archive(str(tmp_path / "segrt"), "zip", packages)
        packages = tmp_path / "segrt.zip"
    code = (
        "import json, sys\nfrom pathlib import Path\nimport numpy\nfrom segrt import converter\n"
        f"if {form == 'installed'}: numpy.__file__ = {str(packages / 'numpy/__init__.py')!r}\n"
        "print(json.dumps(converter._code(Path(sys.argv[1]))))"
    )
    path = os.environ.get("PYTHONPATH", "") if form == "source" else str(packages)
    if form == "source":
        path = os.pathsep.join(filter(None, sys.path))
    made = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "code"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    check = (
        "import importlib.metadata, importlib.util, segrt, segrt_export\nfrom segrt import zoo\n"
        "zoo.load()\nprint(importlib.metadata.version('segrt'), segrt.__file__, "
        "importlib.util.find_spec('neighbour') is None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(json.loads(made.stdout))},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    version, file, alone = done.stdout.split()
    assert version == segrt.__version__
    root = {"source": Path(segrt.__file__).parent, "zip": packages}.get(form, tmp_path / "code")
    assert Path(file).is_relative_to(root)
    assert alone == str(form != "zip")
