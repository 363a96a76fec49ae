from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from segrt.errors import ExportError
from segrt_export.convert import OPENMP, with_openmp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux looks for libgomp")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system without libgomp; returns the folder in which packages are found."""

    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "packages")])
    return tmp_path / "packages"


def test_openmp_of_the_system_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    assert with_openmp({"A": "1"}, tmp_path) == {"A": "1"}


def test_openmp_of_scikit_learn_is_linked_under_its_usual_name(bare: Path, tmp_path: Path) -> None:
    copy = bare / "scikit_learn.libs" / "libgomp-a34b3233.so.1.0.0"
    copy.parent.mkdir(parents=True)
    copy.write_text("library")
    env = with_openmp({"A": "1", "LD_LIBRARY_PATH": "/mine"}, tmp_path)
    assert env == {"A": "1", "LD_LIBRARY_PATH": f"{tmp_path}:/mine"}
    assert (tmp_path / OPENMP).read_text() == "library"


def test_without_a_copy_the_error_names_the_package(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"needs libgomp\.so\.1: on Debian, run  apt install"):
        with_openmp({}, tmp_path)
