"""A converter that needs no Paddle, for this process, and ways to die at a given step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from segrt import converter

ONNX = b"\x08\x09"
"""What the fake converter writes: the start of an ONNX file, which is not loaded here."""


def install(wait: Path | None = None) -> None:
    """Replace the converter; a conversion lasts until `wait` exists."""

    def find() -> Path:
        return Path(sys.executable)

    def convert(python: Path, archive: Path, name: str, work: Path) -> None:
        print("converting", flush=True)
        while wait and not wait.exists():
            time.sleep(0.01)
        (work / "model.onnx").write_bytes(ONNX)
        report = {"model": name, "parity": {"agreement": 1.0}}
        (work / "model.parity.json").write_text(json.dumps(report))

    setattr(converter, "find", find)  # noqa: B010 - mypy refuses plain assignments
    setattr(converter, "convert", convert)  # noqa: B010


def die_at(step: int, *functions: tuple[Any, str]) -> None:
    """Kill this process at the `step`-th call of any of these functions, counted from 0."""
    calls = iter(range(1000))

    def deadly(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for owner, name in functions:
        setattr(owner, name, deadly(getattr(owner, name)))


def child(code: str) -> subprocess.Popen[str]:
    """A process that runs `code` with this module's names."""
    command = [sys.executable, "-c", f"from fake_converter import *\n{code}"]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Served:
    """A folder at an address on 127.0.0.1.

    Attributes:
        url: the address.
        requests: the paths that were requested.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        served = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                served.requests.append(self.path)
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
