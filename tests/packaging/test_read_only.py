"""segrt installed where its user can't write, as by a system's packages or in a container."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import installed
import numpy as np
import pytest
from PIL import Image

from segrt import create_pipeline, package_data
from segrt.result import SegResult

if sys.platform != "linux":
    pytest.skip("changes the permissions of folders", allow_module_level=True)

# Root may write anywhere, unless it gives up its capabilities.
UNPRIVILEGED = (
    ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    if os.getuid() == 0
    else ()
)


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    if UNPRIVILEGED and not shutil.which(UNPRIVILEGED[0]):
        pytest.skip("root needs setpriv to give up its capabilities")
    folder = tmp_path / "site-packages"
    for file, name in installed.files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    (tmp_path / "home").mkdir()
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir()), tmp_path / "home"]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


@pytest.mark.parametrize("home", ["home", "other"])
def test_the_bundled_model_runs(package: Path, tmp_path: Path, home: str) -> None:
    sample = package / "segrt" / package_data.SAMPLE
    (tmp_path / "other").mkdir()
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    done = installed.run(
        package,
        *("-m", "segrt", "predict", str(sample), "--save_path", "output", "--overlay"),
        cwd=tmp_path,
        environment={"HOME": str(tmp_path / home), "PATH": os.environ["PATH"]},
        before=UNPRIVILEGED,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 segmented, 0 failed" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*")} == before
    assert not list((tmp_path / "home").iterdir())
    (result,) = create_pipeline("semantic_segmentation", device="cpu").predict(sample)
    assert isinstance(result, SegResult)
    with Image.open(tmp_path / "output" / "sample_res.png") as picture:
        assert np.array_equal(np.asarray(picture), result.labels)
