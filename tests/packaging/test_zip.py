"""segrt imported from a zip file, as by zipapp, PEX or Spark's --py-files."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import installed
import numpy as np
import numpy.typing as npt
import pytest

from segrt import create_pipeline, package_data
from segrt.result import SegResult

PROGRAM = """
import sys
import numpy as np
import segrt
from fastapi.testclient import TestClient
from segrt import package_data
from segrt.serve.app import create_app
from segrt.serve.decoding import Decoders
from segrt.serve.settings import Settings

assert segrt.__file__.startswith(sys.argv[1]), segrt.__file__
sample = package_data.path(package_data.SAMPLE)
assert sample == package_data.path(package_data.SAMPLE)
pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
(result,) = pipeline.predict(sample)
result.save_all("output")
np.save("labels.npy", result.labels)
decoders = Decoders(1, max_pixels=10_000_000, seconds=20)
assert np.array_equal(decoders.decode(sample.read_bytes())[0], result.image)
decoders.close()

with TestClient(create_app(pipeline, Settings())) as client:
    tops = ("page", "serve/page")
    served = [f"{top}/{name}" for top in tops for name in package_data.names(top)]
    for path in served:
        name, content = path.rpartition("/")[2], package_data.path(path).read_bytes()
        assert client.get("/" if name == "index.html" else f"/{name}").content == content
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip file with what the wheel contains."""
    path = tmp_path_factory.mktemp("zip") / "segrt.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file, name in installed.files():
            target.write(file, name)
    return path


def _run(archive: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    return installed.run(archive, *arguments, cwd=folder, environment=environment)


def _expected() -> npt.NDArray[np.int32]:
    pipeline = create_pipeline("semantic_segmentation", device="cpu")
    (result,) = pipeline.predict(package_data.path(package_data.SAMPLE))
    assert isinstance(result, SegResult)
    return result.labels


def test_models_and_pages_are_read_from_a_zip_file(archive: Path, tmp_path: Path) -> None:
    done = _run(archive, tmp_path, "-c", PROGRAM, str(archive))
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "labels.npy"), _expected())
    assert len(list((tmp_path / "output").iterdir())) == 2
    assert not list((tmp_path / "tmp").glob("[!.]*"))  # extracted files are deleted


def test_the_command_runs_from_a_zip_file(archive: Path, tmp_path: Path) -> None:
    done = _run(archive, tmp_path, "-m", "segrt", "models")
    assert done.returncode == 0, done.stderr
    assert "bundled" in done.stdout


def test_a_missing_file_is_named(archive: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.zip"
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(bare, "w") as part:
        for name in whole.namelist():
            if not name.endswith((".onnx", ".yaml")):
                part.writestr(name, whole.read(name))
    done = _run(bare, tmp_path, "-m", "segrt", "models")
    assert done.returncode == 2
    assert "model_zoo.yaml" in done.stderr
    assert "Traceback" not in done.stderr
