"""A cluster of two nodes, each a process on this machine with ports and resources of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.scale


def test_two_nodes_share_the_work(
    plain_labels: dict[str, Any],
    check_results: Callable[[dict[str, Any]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from segrt.ray import segment
    from segrt.ray.job import BlockWriter

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
        job = segment("in", "out", model="colours.onnx", block=2, address=nodes.address)
    finally:
        ray.shutdown()
        nodes.shutdown()

    assert (job.done, job.failed, job.blocks) == (40, 0, 20)
    shares = Counter(file.read_text() for file in seen.iterdir())
    assert sum(shares.values()) == 20
    assert len(shares) == 2
    assert min(shares.values()) >= 2, shares

    check_results(plain_labels)
