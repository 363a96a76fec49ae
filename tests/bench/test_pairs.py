from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.bench.pairs import Run, Samples, interleave, ratio


def test_contenders_alternate_and_warm_up_does_not_count() -> None:
    order: list[str] = []

    def make(name: str, seconds: float) -> Run:
        def run() -> float:
            order.append(name)
            return seconds * len(order)

        return run

    contenders = {"a": make("a", 1.0), "b": make("b", 10.0)}
    samples = interleave(contenders, repeat=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert samples["a"].ms == (5000.0, 7000.0, 9000.0)
    assert samples["b"].ms == (60000.0, 80000.0, 100000.0)


def test_ratio_is_by_pair() -> None:
    result = ratio(Samples((10.0, 40.0, 90.0)), Samples((10.0, 20.0, 30.0)))
    assert result.pairs == (1.0, 2.0, 3.0)
    assert (result.low, result.median, result.high) == (1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        ratio(Samples((1.0,)), Samples((1.0, 2.0)))


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=60))
def test_summaries_lie_within_the_samples(ms: list[float]) -> None:
    samples = Samples(tuple(ms))
    assert min(ms) <= samples.median <= max(ms)
    assert samples.spread >= 0
    if len(ms) < 20:
        assert samples.p95 == max(ms)
