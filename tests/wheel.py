"""Helpers for the tests of real ONNX Runtime wheels."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from segrt.backends.catalog import RUNTIMES


def only(name: str) -> None:
    """Skip the module unless `name` is the only installed ONNX Runtime wheel."""
    installed = {str(dist.name) for dist in metadata.distributions()} & set(RUNTIMES.values())
    if installed != {name}:
        pytest.skip(
            f"needs {name} and no other ONNX Runtime; see the Makefile", allow_module_level=True
        )


def segrt(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `segrt` command."""
    command = [sys.executable, "-m", "segrt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
