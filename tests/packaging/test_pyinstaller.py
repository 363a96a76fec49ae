"""Programs frozen by PyInstaller, run where no Python is found. See `make pyinstaller-test`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from segrt import create_pipeline, package_data
from segrt.errors import ConfigError
from segrt.result import SegResult
from segrt.serve.decoding import Decoders

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-pyinstaller" / "bin" / "python"
SAMPLE = package_data.path(package_data.SAMPLE)

LIBRARY = """
import sys
import segrt
from segrt.postprocess import load_loop

assert segrt.__file__.startswith(sys._MEIPASS), segrt.__file__
assert all(path.startswith(sys._MEIPASS) for path in sys.path), sys.path
source, folder = sys.argv[1:]
load_loop()  # one image alone is labelled without Numba
pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
for result in pipeline.predict(source):
    result.save_all(folder)
    result.save_overlay(folder)
"""

COMMAND = """
from segrt.cli import main

main()
"""


def _build(script: str, folder: Path) -> Path:
    """Freeze a script; returns the program."""
    if not PYTHON.exists():
        pytest.skip("needs .venv-pyinstaller, which make pyinstaller-test creates")
    (folder / "program.py").write_text(script)
    command = [str(PYTHON), "-m", "PyInstaller", "--noconfirm", "--log-level=WARN", "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / "program" / "program"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(LIBRARY, tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(COMMAND, tmp_path_factory.mktemp("command"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in an empty folder, without environment variables."""

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env={},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


def _labels(source: Path) -> npt.NDArray[np.int32]:
    (result,) = create_pipeline("semantic_segmentation", device="cpu").predict(source)
    assert isinstance(result, SegResult)
    return result.labels


def _saved(folder: Path, stem: str) -> npt.NDArray[Any]:
    with Image.open(folder / f"{stem}_res.png") as picture:
        return np.asarray(picture)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.pyinstaller
def test_a_program_that_imports_segrt(library: Path, run: Run, tmp_path: Path) -> None:
    done = run(library, SAMPLE, "output")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(_saved(tmp_path / "output", "sample"), _labels(SAMPLE))
    content = json.loads((tmp_path / "output" / "sample_res.json").read_bytes())
    assert np.array_equal(content["pred"][0], _labels(SAMPLE))
    assert (tmp_path / "output" / "sample_overlay.png").is_file()
    # Machine code is kept for the next start.
    assert list(library.parent.rglob("label_loop.*.nbi"))


@pytest.mark.pyinstaller
def test_the_command(command: Path, run: Run, tmp_path: Path) -> None:
    done = run(command, "predict", SAMPLE, "--save_path", "output", "--overlay", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(_saved(tmp_path / "output", "sample"), _labels(SAMPLE))
    assert "bundled" in run(command, "models").stdout
    assert run(command, "--version").stdout == run(PYTHON, "-m", "segrt", "--version").stdout
    wrong = run(command, "predict", "missing.png")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 2)


@pytest.mark.pyinstaller
def test_it_offers_the_providers_of_the_environment_it_was_built_in(
    command: Path, run: Run
) -> None:
    assert run(command, "doctor").stdout == run(PYTHON, "-m", "segrt", "doctor").stdout


@pytest.mark.pyinstaller
@pytest.mark.parametrize("codec", ["lzw", "zstd", "jpeg2000"])
def test_codecs_are_included(command: Path, run: Run, tmp_path: Path, codec: str) -> None:
    with Image.open(SAMPLE) as sample:
        pixels = np.asarray(sample.convert("RGB").resize((96, 64)))
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=codec, photometric="rgb")
    done = run(command, "predict", "a.tif", "--save_path", "output", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "output" / "a_0_res.tif") as picture:
        assert picture.size == (96, 64)


@pytest.mark.pyinstaller
def test_documents_are_read(command: Path, run: Run, tmp_path: Path) -> None:
    with Image.open(SAMPLE) as sample:
        sample.convert("RGB").resize((96, 64)).save(tmp_path / "a.pdf")
    done = run(command, "predict", "a.pdf", "--save_path", "output", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / "a_0_res.png").is_file()


@contextmanager
def _server(command: Path, folder: Path) -> Iterator[str]:
    log = folder / "log"
    arguments = [str(command), "serve", "--port", "0", "--device", "cpu"]
    with log.open("w") as output:
        server = subprocess.Popen(arguments, cwd=folder, env={}, stdout=output, stderr=output)
    try:
        deadline = monotonic() + 60
        while " at http://" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert monotonic() < deadline, log.read_text()
            sleep(0.1)
        yield log.read_text().partition(" at ")[2].split()[0]
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.pyinstaller
def test_the_server_decodes_images_in_workers(command: Path, tmp_path: Path) -> None:
    with _server(command, tmp_path) as url:
        headers = {"Content-Type": "image/png"}
        answer = httpx.post(
            f"{url}/semantic-segmentation",
            content=SAMPLE.read_bytes(),
            headers=headers,
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        labels = _labels(SAMPLE)
        assert answer.json()["result"]["labelMap"] == labels.ravel().tolist()
        assert "<html" in httpx.get(url).text
        assert httpx.get(f"{url}/example-street.webp").content[8:12] == b"WEBP"


def test_other_frozen_programs_refuse_to_start_themselves_as_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigError, match="build it with PyInstaller"):
        Decoders(1, max_pixels=100, seconds=1)
