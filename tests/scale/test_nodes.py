"""A cluster of two nodes, each a process on this machine with ports and resources of its own."""

from __future__ import annotations

import io
from pathlib import Path

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

    from segrt.ray import cluster, segment, shards
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

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        nodes.add_node(num_cpus=2)
        cluster.start(nodes.address)
        job = segment("in", "out", model="colours.onnx", block=2, progress=see)
    finally:
        ray.shutdown()
        nodes.shutdown()
