from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import segrt
from segrt.backends import memory
from segrt.backends.memory import BUDGET, Budget
from segrt.errors import ConfigError, TooLargeError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _default_limit() -> Iterator[None]:
    yield
    BUDGET.limit = None


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Budget:
    monkeypatch.setattr(memory, "resident", lambda: 100 * MIB)
    return Budget(limit=400 * MIB)


def test_what_the_process_uses_itself_is_subtracted(budget: Budget) -> None:
    assert budget.capacity() == 300 * MIB
    with budget.reserve(200 * MIB, "a run"):
        assert budget.capacity() == 300 * MIB
        assert budget.reserved == 200 * MIB
    assert budget.reserved == 0


def test_what_can_never_fit_is_refused_with_the_numbers(budget: Budget) -> None:
    words = r"a run needs about 301 MiB of memory, but only 300 MiB of the limit of 400 MiB"
    with pytest.raises(TooLargeError, match=words), budget.reserve(301 * MIB, "a run"):
        raise AssertionError
    assert budget.reserved == 0


def test_what_does_not_fit_now_waits(budget: Budget) -> None:
    order: list[str] = []
    reserved, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with budget.reserve(200 * MIB, "a run"):
            reserved.set()
            may_end.wait(30)
            order.append("first")

    def second() -> None:
        with budget.reserve(200 * MIB, "a run"):
            order.append("second")

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    assert reserved.wait(30)
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    with budget.reserve(100 * MIB, "a small run"):  # fits beside the first
        assert order == []
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second"]


def test_memory_is_released_when_the_work_fails(budget: Budget) -> None:
    with pytest.raises(KeyError), budget.reserve(300 * MIB, "a run"):
        raise KeyError
    assert budget.reserved == 0


@pytest.mark.parametrize(
    ("limit", "size"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5g", 1_500_000_000)]
)
def test_limits_are_parsed(limit: str, size: int) -> None:
    segrt.limit_memory(limit)
    assert BUDGET.total == size
    segrt.limit_memory(size)
    assert BUDGET.total == size


@pytest.mark.parametrize("limit", ["", "2 apples", "-1GiB", "63MiB", "nan", "inf", "1e400", "GiB"])
def test_invalid_limits_are_refused(limit: str) -> None:
    with pytest.raises(ConfigError, match="max_memory"):
        segrt.limit_memory(limit)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_blocks_of_images_are_returned_when_they_are_free() -> None:
    code = """
import numpy as np
from segrt.backends.memory import resident, tune_malloc
tune_malloc()
np.ones(30 << 20, np.uint8)  # by default, the next ones would come from the pool
before = resident()
images = [np.ones(8 << 20, np.uint8) for _ in range(40)]
last = bytes(1000)
del images[:39]
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 << 20


def test_idle_memory_can_be_released_again_and_again() -> None:
    memory.release()
    memory.release()
