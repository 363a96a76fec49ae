from __future__ import annotations

import os
import signal

import pytest

from segrt.bench.worker import Worker
from segrt.errors import ModelError, SegrtError


class Subject:
    def __init__(self, number: int) -> None:
        if number < 0:
            raise ModelError(f"{number} is negative")
        self.number = number

    def add(self, other: int) -> int:
        self.number += other
        return self.number

    def pid(self) -> int:
        return os.getpid()

    def interrupted(self) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "still here"

    def fail(self) -> None:
        raise RuntimeError("first line\nsecond line")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_runs_in_another_process_and_keeps_state() -> None:
    with Worker(Subject, 1) as worker:
        assert worker.call("pid") != os.getpid()
        assert (worker.call("add", 2), worker.call("add", 3)) == (3, 6)
        assert worker.call("interrupted") == "still here"
        with pytest.raises(SegrtError, match=r"^RuntimeError: first line$"):
            worker.call("fail")
        assert worker.call("add", 0) == 6


def test_errors_keep_their_class() -> None:
    with pytest.raises(ModelError, match="-1 is negative"):
        Worker(Subject, -1)


def test_a_process_that_is_killed_is_an_error() -> None:
    with Worker(Subject, 1) as worker:
        for _ in range(2):
            with pytest.raises(
                SegrtError, match="killed by signal 9, as happens when memory runs out"
            ):
                worker.call("die")
