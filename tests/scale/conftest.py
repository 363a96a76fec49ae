"""Ray for tests: only in a network namespace of its own, since it listens on all interfaces."""

from __future__ import annotations

import io
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

import segrt

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def _why_not() -> str | None:
    if (names := {name for _, name in socket.if_nameindex()}) != {"lo"}:
        return f"Ray would listen on {', '.join(sorted(names - {'lo'}))}: run make scale-test"
    return None


@pytest.fixture(autouse=True, scope="session")
def isolated() -> None:
    """Skip everything outside such a namespace."""
    if reason := _why_not():
        pytest.skip(reason)
    pytest.importorskip("ray.data", reason="needs segrt[ray]: run make scale-test")


@pytest.fixture(scope="module")
def cluster(isolated: None) -> Generator[None]:
    """A cluster of one node with two CPUs."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    yield
    ray.shutdown()


@pytest.fixture
def kill_actors() -> Callable[[], list[int]]:
    """Kills the actors of the jobs in this network namespace, and returns their processes."""
    own = os.readlink("/proc/self/ns/net")

    def kill() -> list[int]:
        killed = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_actor = b"MapWorker" in (folder / "cmdline").read_bytes()
                if is_actor and os.readlink(folder / "ns" / "net") == own:
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed.append(int(folder.name))
            except OSError:  # it has ended
                continue
        return killed

    return kill


@pytest.fixture
def plain_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """40 photos in the folder "in", for "colours.onnx", and the labels of each in a plain run."""
    monkeypatch.chdir(tmp_path)
    write_colour_model(tmp_path / "colours.onnx")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(19)
    names = [f"in/{number:02}.png" for number in range(40)]
    for name in names:
        tiles = rng.integers(0, 256, (50, 60, 3), np.uint8)
        Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(name, compress_level=1)
    with segrt.create_pipeline(model_dir="colours.onnx", device="cpu") as pipeline:
        return {str(result.input_path): result.labels for result in pipeline.predict(names)}


@pytest.fixture
def check_results() -> Callable[[Mapping[str, Any]], None]:
    """Checks that the folder "out" has one row for each image, with the labels given."""

    def check(expected: Mapping[str, Any]) -> None:
        from segrt.ray import shards
        from segrt.ray.stores import Folder

        folder = Folder("out")
        blocks = [name.removesuffix(".parquet") for name in folder.names("results")]
        rows = [row for name in blocks for row in shards.read(folder, f"results/{name}")]
        assert sorted(os.path.relpath(row.input) for row, _ in rows) == sorted(expected)
        for row, data in rows:
            assert row.error is None
            assert data
            labels = np.asarray(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(labels, expected[os.path.relpath(row.input)])

    return check
