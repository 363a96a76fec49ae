from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segrt import forks
from segrt.errors import SegrtError
from segrt.schedule import in_threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

_PREDICT = """
import faulthandler, os, sys, threading, time
import numpy as np
import segrt
from segrt.errors import SegrtError

pipeline = segrt.create_pipeline(model_dir=sys.argv[1], device="cpu")
images = [np.zeros((64, 96, 3), np.uint8)] * 6
if sys.argv[2] in ("used", "busy"):
    list(pipeline.predict(images))
if sys.argv[2] == "busy":
    def work():
        while True:
            list(pipeline.predict(images))
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
begun = pipeline.predict(images)
next(begun)
for _ in range(3):
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(20, exit=True)
        assert len(list(pipeline.predict(images))) == 6
        try:
            list(begun)
        except SegrtError as error:
            assert "forked" in str(error)
        else:
            raise AssertionError("the child read what the parent's thread reads")
        sys.exit(7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 7, status
assert len(list(begun)) == 5
os._exit(0)
"""


@pytest.mark.parametrize("before", ["unused", "used", "busy"])
def test_a_pipeline_works_on_both_sides_of_a_fork(colour_model: Path, before: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _PREDICT, str(colour_model), before]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_held_lock_is_free_after_a_fork() -> None:
    lock, taken, release = threading.Lock(), threading.Event(), threading.Event()
    forks.hold(lock)

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(0.2)  # the fork waits for this

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    child = os.fork()
    if not child:
        os._exit(0 if lock.acquire(timeout=10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join(30)
    assert not lock.locked()


def test_objects_are_renewed_in_the_child_alone() -> None:
    class Value:
        renewed = False

        def renew(self) -> None:
            self.renewed = True

    value = Value()
    forks.renew_in_child(value)
    child = os.fork()
    if not child:
        os._exit(0 if value.renewed else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not value.renewed


def test_a_pool_that_was_locked_at_the_fork_does_not_block_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = in_threads(lambda item: item, iter(range(9)), 2)
    assert next(results) == 0
    monkeypatch.setattr(
        ThreadPoolExecutor, "shutdown", lambda *_, **__: pytest.fail("waits for ever")
    )
    with monkeypatch.context() as child:
        process = os.getpid()
        child.setattr(os, "getpid", lambda: process + 1)
        with pytest.raises(SegrtError, match="forked"):
            list(results)
