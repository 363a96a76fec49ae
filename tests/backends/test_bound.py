from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segrt.backends import catalog
from segrt.backends.bound import Captured, Place, run

PLACE = Place("x", "logits", "cpu", 0)


@pytest.fixture
def session(colour_model: Path) -> Any:
    return catalog.onnxruntime().InferenceSession(
        str(colour_model), providers=["CPUExecutionProvider"]
    )


def _batch(seed: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (1, 3, 8, 12)).astype(np.float32)


def test_bound_tensors_do_not_change_results(session: Any) -> None:
    for seed in range(3):
        batch = _batch(seed)
        np.testing.assert_array_equal(
            run(session, batch, PLACE), session.run(None, {"x": batch})[0]
        )


def test_captured_session_keeps_its_addresses(session: Any) -> None:
    captured, addresses = Captured(session), set()
    for seed in range(4):
        batch = _batch(seed)
        # Not contiguous: what is copied is the values, not the memory.
        got = captured.run(np.flip(np.flip(batch)), PLACE)
        np.testing.assert_array_equal(got, session.run(None, {"x": batch})[0])
        assert captured._bound is not None
        binding, tensor = captured._bound
        addresses.add((tensor.data_ptr(), binding.get_outputs()[0].data_ptr()))
    assert len(addresses) == 1


def test_results_of_earlier_runs_stay(session: Any) -> None:
    captured = Captured(session)
    first = captured.run(_batch(0), PLACE)
    copy = first.copy()
    captured.run(_batch(1), PLACE)
    np.testing.assert_array_equal(first, copy)


def test_threads_that_share_a_captured_session_get_their_own_results(session: Any) -> None:
    captured, batches = Captured(session), [_batch(seed) for seed in range(8)]
    expected = [session.run(None, {"x": batch})[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(lambda number: captured.run(batches[number % 8], PLACE), range(80))
        for number, output in enumerate(got):
            np.testing.assert_array_equal(output, expected[number % 8])
