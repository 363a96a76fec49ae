"""A cluster of two nodes, each a process on this machine with ports and resources of its own."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

import segrt

pytestmark = pytest.mark.scale


def test_two_nodes_share_the_work(
    isolated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from segrt.ray import segment, shards
    from segrt.ray.job import BlockWriter
    from segrt.ray.stores import Folder

    monkeypatch.chdir(tmp_path)
    model = write_colour_model(tmp_path / "colours.onnx")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(19)
    names = [f"in/{number:02}.png" for number in range(40)]
    for name in names:
        tiles = rng.integers(0, 256, (50, 60, 3), np.uint8)
        Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(name, compress_level=1)
    with segrt.create_pipeline(model_dir=str(model), device="cpu") as pipeline:
        plain = {result.input_path: result.labels for result in pipeline.predict(names)}

    seen = tmp_path / "nodes"
    seen.mkdir()

    class Seen(BlockWriter):
        def __call__(self, batch: Any) -> Any:
            node = ray.get_runtime_context().get_node_id()
            for block in batch.column("block").to_pylist():
                (seen / block).write_text(node)
            return super().__call__(batch)

    monkeypatch.setattr("segrt.ray.job.BlockWriter", Seen)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        nodes.add_node(num_cpus=2)
        job = segment("in", "out", model=model, block=2, address=nodes.address)
    finally:
        ray.shutdown()
        nodes.shutdown()

    assert (job.done, job.failed, job.blocks) == (40, 0, 20)
    shares = Counter(file.read_text() for file in seen.iterdir())
    assert sum(shares.values()) == 20
    assert len(shares) == 2
    assert min(shares.values()) >= 2, shares

    folder = Folder("out")
    blocks = [name.removesuffix(".parquet") for name in folder.names("results")]
    rows = [row for name in blocks for row in shards.read(folder, f"results/{name}")]
    assert sorted(os.path.relpath(row.input) for row, _ in rows) == names
    for row, data in rows:
        assert data
        labels = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(labels, plain[os.path.relpath(row.input)])
