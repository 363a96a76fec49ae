"""Ray for tests: only in a network namespace of its own, since it listens on all interfaces."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path

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
