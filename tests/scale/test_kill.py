"""A driver that is killed with SIGKILL in the middle of its job, and then an actor."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    plain_labels: dict[str, Any],
    check_results: Callable[[dict[str, Any]], None],
    tmp_path: Path,
) -> None:
    import ray

    from segrt.ray import segment

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

    check_results(plain_labels)
