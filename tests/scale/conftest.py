"""Ray for tests: only in a network namespace of its own, since it listens on all interfaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator

import pytest

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
    pytest.importorskip("ray", reason="needs segrt[ray]: run make scale-test")


@pytest.fixture(scope="module")
def cluster(isolated: None) -> Generator[None]:
    """A cluster of one node with two CPUs."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    yield
    ray.shutdown()
