"""`segrt predict --engine ray`: the files and rows of the local engine, also after kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import write_colour_model
from PIL import Image

from segrt import manifest

pytestmark = pytest.mark.scale


def _command(*options: str) -> list[str]:
    command = [sys.executable, "-m", "segrt", "predict", "in", "--model_dir", "colours.onnx"]
    return [*command, "--device", "cpu", "--label-format", "png", *options]


def _rows(file: Path) -> dict[tuple[str, int | None], dict[str, object]]:
    """Those so far, without what differs between two runs."""
    rows = list(manifest.read(file)[1]) if file.exists() else []
    found = {row.key: row.to_dict() | {"milliseconds": None} for row in rows}
    assert len(found) == len(rows)
    return found


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*_res.*")}


def _saved(folder: Path) -> dict[str, int]:
    """The time of each file with a result."""
    times = {}
    for file in folder.glob("*_res.*"):
        with suppress(FileNotFoundError):  # it has just been renamed
            times[file.name] = file.stat().st_mtime_ns
    return times


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """95 photos, two of one name, a broken file, and a document of three frames."""
    write_colour_model(tmp_path / "colours.onnx")
    rng = np.random.default_rng(19)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name in (*(f"{number:02}.png" for number in range(94)), "more/07.png"):
        tiles = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(
            tmp_path / "in" / name, compress_level=1
        )
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    frames = rng.integers(0, 256, (3, 32, 48, 3), np.uint8)
    tifffile.imwrite(tmp_path / "in" / "doc.tif", frames, photometric="rgb")
    return tmp_path


def test_rows_and_files_are_those_of_the_local_engine(
    cluster: None, kill_actors: Callable[[], list[int]], folder: Path
) -> None:
    import ray

    local = subprocess.run(
        _command("--save-path", "local", "--manifest", "local/m.jsonl"),
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = _rows(folder / "local" / "m.jsonl")
    assert len(expected) == 99

    address = ray.get_runtime_context().gcs_address
    options = ["--save-path", "out", "--manifest", "out/m.jsonl", "--resume"]
    command = _command(*options, "--engine", "ray", "--ray-address", address)
    first = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while not (before := _rows(folder / "out" / "m.jsonl")):
        assert first.poll() is None, "it ended by itself"
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    kill_actors()  # Ray would end them a little later
    before = _rows(folder / "out" / "m.jsonl")
    assert 0 < len(before) < 99
    saved = _saved(folder / "out")

    second = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while _saved(folder / "out") == saved and second.poll() is None:
        time.sleep(0.001)
    assert kill_actors(), "it ended before an actor could be killed"
    printed, said = second.communicate()

    assert second.returncode == local.returncode == 1  # of the broken file
    assert _rows(folder / "out" / "m.jsonl") == expected
    assert _files(folder / "out") == _files(folder / "local")
    done_before = {f"{name}: " for name, page in before if page is None}
    lines = printed.splitlines()
    assert set(lines) <= set(local.stdout.splitlines())
    assert not any(line.startswith(name) for line in lines for name in done_before)
    assert "inputs before" in said

    again = subprocess.run(
        _command(*options), cwd=folder, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr  # the local engine finds nothing left to do
    assert "97 of 97 inputs before" in again.stderr
    assert _rows(folder / "out" / "m.jsonl") == expected


def test_an_address_where_no_cluster_is_is_refused_at_once(folder: Path) -> None:
    command = _command("--save-path", "out", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "segrt: there is no Ray cluster at 127.0.0.1:1: Connection refused" in done.stderr


def test_what_an_actor_refuses_is_one_line(cluster: None, folder: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    command = _command("--save-path", "out", "--engine", "ray", "--ray-address", address)
    command += ["--mode", "high-performance", "--hpi-config", '{"backend": "none"}']
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2  # as of the local engine
    assert "segrt: hpi_config: backend: unknown backend 'none'" in done.stderr
