"""A driver that is killed with SIGKILL in the middle of its job, and then an actor."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

import segrt

pytestmark = pytest.mark.scale

DRIVER = """
import sys, segrt.ray
segrt.ray.segment("in", "out", model="colours.onnx", block=2, address=sys.argv[1])
"""
KILLS = 2


def kill_driver(folder: Path, address: str, results: int) -> None:
    """Begin or resume the job, and kill it once it has `results` files."""
    job = subprocess.Popen([sys.executable, "-c", DRIVER, address], cwd=folder)
    while len(list(folder.glob("out/results/0*.parquet"))) < results:
        assert job.poll() is None, "the job ended by itself"
        time.sleep(0.01)
    job.kill()
    assert job.wait() == -signal.SIGKILL


def test_killed_drivers_and_an_actor(
    cluster: None,
    kill_actors: Callable[[], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from segrt.ray import segment, shards
    from segrt.ray.stores import Folder

    monkeypatch.chdir(tmp_path)
    write_colour_model(tmp_path / "colours.onnx")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(19)
    names = [f"in/{number:02}.png" for number in range(40)]
    for name in names:
        tiles = rng.integers(0, 256, (50, 60, 3), np.uint8)
        Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(name, compress_level=1)
    with segrt.create_pipeline(model_dir="colours.onnx", device="cpu") as pipeline:
        plain = {result.input_path: result.labels for result in pipeline.predict(names)}

    chance = random.Random(19)
    address = ray.get_runtime_context().gcs_address
    for number in range(KILLS):
        kill_driver(tmp_path, address, 6 * number + chance.randint(1, 5))

    killed: list[int] = []

    def kill_actor(done: int, total: int) -> None:
        if not killed:
            killed.extend(kill_actors())

    job = segment("in", "out", model="colours.onnx", block=2, progress=kill_actor)
    assert killed
    assert (job.failed, job.blocks) == (0, 20)
    assert 7 <= job.before < 20

    folder = Folder("out")
    blocks = [name.removesuffix(".parquet") for name in folder.names("results")]
    rows = [row for name in blocks for row in shards.read(folder, f"results/{name}")]
    assert sorted(os.path.relpath(row.input) for row, _ in rows) == names
    for row, data in rows:
        assert row.error is None
        assert data
        labels = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(labels, plain[os.path.relpath(row.input)])
