"""The converter: a Python interpreter with Paddle, which turns Paddle archives into ONNX files.

That is the running interpreter if the export extra is installed. Otherwise segrt makes a private
environment in the cache folder, once and with the user's consent:

    converter/ready.json    its interpreter and requirements, written when it is complete
    converter/env-<id>/     the environment; several if one was interrupted
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from threading import TIMEOUT_MAX, Timer

import numpy as np

import segrt
from segrt import consent, mirrors, store
from segrt.errors import DownloadError, ExportError, ModelError
from segrt.files import write_atomic
from segrt.waiting import spinner

log = logging.getLogger("segrt")

SIZE_GB = 1.9
"""Size of the private environment, in GB."""

TIMEOUT_S = 3600
"""Seconds after which a conversion is killed."""

Step = Callable[[str], None]
"""Called with what is going on."""

_MODULES = ("paddle", "paddle2onnx", "onnx", "onnxslim", "onnxruntime")
_FULL = "No space left on device"
_OPENMP = "libgomp.so.1"


def folder() -> Path:
    """The folder of the private environment, which may not exist.

    Example:
        >>> folder()
        PosixPath('/home/me/.cache/segrt/converter')
    """
    return store.home() / "converter"


def find() -> Path | None:
    """The interpreter that can convert models now; None if there is none.

    Example:
        >>> find() is None
        True
    """
    if not _frozen() and all(importlib.util.find_spec(module) for module in _MODULES):
        return Path(sys.executable)
    return _ready()


def require(name: str) -> Path:
    """The interpreter that can convert models; made if there is none, with the user's consent.

    Example:
        >>> require("PP-LiteSeg-B")  # SEGRT_YES=1
        PosixPath('/home/me/.cache/segrt/converter/env-0123abcd/bin/python')

    Args:
        name: the model to convert, for messages.

    Raises:
        ModelError: there is none, and the user does not agree, or SEGRT_OFFLINE is set.
        DownloadError: the environment can't be made.
        ConfigError: SEGRT_YES or SEGRT_OFFLINE is invalid.
    """
    if python := find() or offer(name):
        return python
    if mirrors.offline():
        raise ModelError(
            f"{name} must be converted to ONNX, which requires Paddle, and SEGRT_OFFLINE forbids "
            f'installing it: run `segrt models fetch "{name}"` where there is a network, and set '
            "SEGRT_MIRROR to what `segrt models share` writes there"
        )
    if _frozen():
        raise ModelError(
            f"{name} must be converted to ONNX, which a frozen program can't do: run "
            f'`segrt models fetch "{name}"` beforehand'
        )
    raise ModelError(
        f"{name} must be converted to ONNX, which requires Paddle: run "
        f'`segrt models fetch "{name}" --yes`, which installs it, {SIZE_GB} GB, into '
        f"{folder()}; or run `pip install 'segrt[export]'`, or set SEGRT_YES=1 (in commands, --yes)"
    )


def offer(name: str) -> Path | None:
    """Make the private environment if that is possible and the user agrees.

    Example:
        >>> offer("PP-LiteSeg-B") is None
        True

    Args:
        name: the model to convert, for the question.

    Returns:
        Path: its interpreter; None if it was not made.

    Raises:
        DownloadError: the environment can't be made.
        ConfigError: SEGRT_YES or SEGRT_OFFLINE is invalid.
    """
    question = (
        f"{name} must be converted to ONNX, which requires Paddle: install it, {SIZE_GB} GB, into "
        f"{folder()}? (`segrt models remove --converter` deletes it)"
    )
    if mirrors.offline() or _frozen() or not consent.given(question):
        return None
    return make()


def _frozen() -> bool:
    return bool(getattr(sys, "frozen", False)) or not sys.executable


def make() -> Path:
    """Make the private environment, unless it exists. Consent is the caller's business.

    Example:
        >>> make()
        PosixPath('/home/me/.cache/segrt/converter/env-0123abcd/bin/python')

    Raises:
        DownloadError: the environment can't be made.
    """
    with store.locked(folder(), "the converter", "installing"):
        if python := _ready():
            return python
        wanted = requirements()
        if (free := shutil.disk_usage(folder()).free / 1e9) < SIZE_GB:
            raise DownloadError(
                f"{folder()} has {free:.1f} GB free, and Paddle needs {SIZE_GB}: free some space, "
                "or set SEGRT_HOME to a folder on another disk"
            )
        _sweep()
        # A pip that outlives a killed segrt goes on writing: never into the next attempt.
        env = folder() / f"env-{secrets.token_hex(4)}"
        try:
            with spinner(f"installing Paddle, {SIZE_GB} GB, into {folder()}") as step:
                _install(env, wanted, step)
        except BaseException:
            _sweep()
            raise
        ready = {"python": f"{env.name}/bin/python", "requirements": _digest(wanted)}
        write_atomic(folder() / "ready.json", json.dumps(ready).encode())
    log.warning(
        "installed Paddle, which converts models, in %s: %.1f GB, deleted by  segrt models remove "
        "--converter",
        env,
        _size(env) / 1e9,
    )
    return env / "bin" / "python"


def remove() -> int:
    """Delete the private environment, and what interrupted attempts left of others.

    Example:
        >>> remove()
        1912345678

    Returns:
        int: bytes freed.

    Raises:
        ModelError: there is none.
        DownloadError: it can't be deleted.
    """
    if not any(folder().glob("env-*")):
        raise ModelError(f"there is no converter in {folder()}")
    with store.locked(folder(), "the converter", "using"):
        size = _size(folder())
        (folder() / "ready.json").unlink(missing_ok=True)
        with spinner(f"deleting {folder()}"):
            _sweep()
    return size


def convert(python: Path, source: Path, name: str, work: Path) -> None:
    """Convert a Paddle model in a process of its own, which Paddle may abort.

    Example:
        >>> convert(require("PP-LiteSeg-B"), archive, "PP-LiteSeg-B", Path("work"))

    Args:
        python: an interpreter with Paddle.
        source: an archive, or a folder.
        name: the model's name.
        work: folder for `model.onnx` and `model.parity.json`.

    Raises:
        ExportError: the model can't be converted.
        DownloadError: the disk is full.
    """
    command = [str(python), "-m", "segrt_export.job", str(source.absolute()), name, str(work)]
    if python == Path(sys.executable):
        site = Path(np.__file__).parents[1]
        status, output = _run_job(command, work, [*filter(None, sys.path)], site)
    else:
        with store.locked(folder(), "the converter", "using"):
            site = next(python.parents[1].glob("lib/python*/site-packages"), python.parent)
            status, output = _run_job(command, work, _code(work / "code"), site)
    if (error := work / "error.txt").is_file():
        output = error.read_text("utf-8")
    elif status:
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        output = f"the converter ended early, {how}: {_last(output)}"
    elif (work / "model.onnx").is_file():
        return
    _raise_if_full(output)
    raise ExportError(f"{name} can't be converted: {_last(output)}")


def _run_job(command: list[str], work: Path, paths: list[str], site: Path) -> tuple[int, str]:
    """Run a command in `work`, because Python finds modules in the working folder first."""
    found = os.pathsep.join(map(os.path.abspath, paths))
    env = _environment() | {"PYTHONPATH": found, "GLOG_minloglevel": "2"}
    env |= _openmp(site, work / "libraries", env.get("LD_LIBRARY_PATH", ""))
    return _run(command, env, cwd=work, timeout=TIMEOUT_S)


def _openmp(site: Path, links: Path, paths: str) -> dict[str, str]:
    """Variables with which Paddle finds the OpenMP library of GCC, which bare systems lack.

    The wheel of scikit-learn contains a copy under another name, to which a link is made.
    """
    copies = sorted(site.glob("scikit_learn.libs/libgomp*.so*"))
    try:
        if not sys.platform.startswith("linux") or not copies or ctypes.CDLL(_OPENMP):
            return {}
    except OSError:
        pass
    links.mkdir()
    (links / _OPENMP).symlink_to(copies[0].absolute())
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(links.absolute()), paths)))}


def requirements() -> list[str]:
    """What the private environment contains: segrt's own requirements, and its export extra.

    Example:
        >>> [text for text in requirements() if text.startswith("paddle")]
        ['paddle2onnx==2.1.0', 'paddlepaddle==3.2.2']

    Raises:
        ModelError: segrt runs without its metadata.
    """
    try:
        declared = metadata.requires("segrt") or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            "the requirements of segrt are unknown, as it was not installed by pip: run  "
            "pip install 'segrt[export]'  in another environment, and segrt-export there"
        ) from None
    found = []
    for text in declared:
        requirement, _, marker = (part.strip() for part in text.partition(";"))
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if extra is None or extra[1] in ("cpu", "export"):
            rest = re.sub(r"(\s*and\s*)?extra == ['\"]\w+['\"]", "", marker).strip()
            found.append(f"{requirement}; {rest}" if rest else requirement)
    return found


def _digest(wanted: list[str]) -> str:
    text = json.dumps([sys.version_info[:2], sorted(wanted)])
    return hashlib.sha256(text.encode()).hexdigest()


def _ready() -> Path | None:
    """The interpreter of the private environment, if that is complete and of this version."""
    with suppress(OSError, ValueError, LookupError, TypeError, ModelError):
        ready = json.loads((folder() / "ready.json").read_text("utf-8"))
        python = folder() / str(ready["python"])
        if python.is_file() and ready["requirements"] == _digest(requirements()):
            return python
    return None


def _install(env: Path, wanted: list[str], step: Step) -> None:
    python, listed, temporary = env / "bin" / "python", env / "requirements.txt", env / "tmp"
    step("python -m venv")
    # Debian's python3 has no ensurepip, so pip installs into the environment from outside.
    status, output = _run([sys.executable, "-m", "venv", "--without-pip", str(env)], _environment())
    if status:
        _raise_if_full(output)
        raise DownloadError(f"{sys.executable} can't make {env}: {_last(output)}")
    temporary.mkdir()
    listed.write_text("\n".join(wanted) + "\n", "utf-8")
    command = [_with_pip(), "-m", "pip", "--python", str(python), "install", "--no-input"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--only-binary=:all:"]
    env_variables = _environment() | {"TMPDIR": str(temporary)}
    status, output = _run([*command, "-r", str(listed)], env_variables, step=step)
    if status:
        _raise_if_full(output)
        raise DownloadError(f"pip can't install Paddle into {env}: {_last(output)}")
    shutil.rmtree(temporary, ignore_errors=True)


def _with_pip() -> str:
    """The running interpreter if it has pip, else the one that its environment is based on."""
    for python in dict.fromkeys((sys.executable, getattr(sys, "_base_executable", ""))):
        if python and not _run([python, "-m", "pip", "--version"], _environment())[0]:
            return python
    raise DownloadError(
        f"{sys.executable} has no pip, which installs Paddle: install pip (on Debian, apt install "
        "python3-pip), or run  pip install 'segrt[export]'"
    )


def _environment() -> dict[str, str]:
    """The environment variables for an interpreter that must not see this one's packages."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _run(
    command: list[str],
    env: dict[str, str],
    *,
    cwd: Path | None = None,
    timeout: float = TIMEOUT_MAX,
    step: Step = lambda line: None,
) -> tuple[int, str]:
    """Run a command, which ends when this process is stopped; returns exit status and output.

    Args:
        command: the program and its arguments.
        env: its environment variables.
        cwd: its working folder.
        timeout: seconds after which it is killed.
        step: called with each line of output.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
        start_new_session=True,
    ) as process:
        timer = Timer(timeout, _kill, [process])
        lines = []
        try:
            timer.daemon = True
            timer.start()
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                step(line.strip()[:60])
        except BaseException:
            _kill(process)
            raise
        finally:
            timer.cancel()
    return process.returncode, "".join(lines)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and those that it started."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _code(target: Path) -> list[str]:
    """The paths at which another interpreter finds this very segrt, and none of its neighbours."""
    packages = Path(segrt.__file__).parents[1]
    exporter = importlib.util.find_spec("segrt_export")
    assert exporter is not None
    assert exporter.origin is not None
    info = target / f"segrt-{segrt.__version__}.dist-info"
    info.mkdir(parents=True)
    version = f"Metadata-Version: 2.1\nName: segrt\nVersion: {segrt.__version__}\n"
    (info / "METADATA").write_text(version, "utf-8")
    if packages != Path(np.__file__).parents[1]:  # a source checkout, or a zip file
        return [str(target), str(packages), str(Path(exporter.origin).parents[1])]
    for package in (Path(segrt.__file__).parent, Path(exporter.origin).parent):
        (target / package.name).symlink_to(package, target_is_directory=True)
    return [str(target)]


def _sweep() -> None:
    for env in folder().glob("env-*"):
        shutil.rmtree(env, ignore_errors=True)


def _size(path: Path) -> int:
    files = (Path(top, name) for top, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


def _raise_if_full(output: str) -> None:
    if _FULL in output:
        raise DownloadError(
            f"the disk is full: {_last(output)}; free some space, or set SEGRT_HOME to a folder on "
            "another disk"
        )


def _last(output: str) -> str:
    """The line of a program's output that states the error; by default its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    stated = [line for line in lines if re.match(r"(ERROR|error):|.*" + _FULL, line)]
    return (stated or lines or ["no output"])[-1][:300]
