from __future__ import annotations

import ctypes
import importlib.util
import sys

import pytest

from segrt.errors import MissingExtraError
from segrt_export import requirements


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")
def test_a_library_that_paddle_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: module)
    requirements.require("onnx")
    with pytest.raises(MissingExtraError, match=r"needs libgomp\.so\.1, .* apt install libgomp1$"):
        requirements.require("paddle", "onnx")
