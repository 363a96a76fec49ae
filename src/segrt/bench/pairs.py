"""Interleaved timing: A B A B ..., and the ratio of each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

Run = Callable[[], float]
"""Does the work once; returns the seconds that it took, measured where it was done."""


@dataclass(frozen=True)
class Samples:
    """The times of one contender.

    Attributes:
        ms: milliseconds of each run, in the order they were made.
    """

    ms: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, in milliseconds."""
        return median(self.ms)

    @property
    def p95(self) -> float:
        """95th percentile, in milliseconds; of a few runs, the slowest."""
        return max(self.ms) if len(self.ms) < 20 else quantiles(self.ms, n=20)[-1]

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median: how far the machine, or the contender, wavers."""
        if len(self.ms) < 2:
            return 0.0
        low, _, high = quantiles(self.ms, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contender is than the other, pair by pair.

    Attributes:
        pairs: time of the baseline over time of the contender, for each round.
    """

    pairs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the pairs' ratios."""
        return median(self.pairs)

    @property
    def low(self) -> float:
        """The smallest ratio."""
        return min(self.pairs)

    @property
    def high(self) -> float:
        """The largest ratio."""
        return max(self.pairs)


def interleave(
    contenders: Mapping[str, Run], *, repeat: int, warmup: int = 1
) -> dict[str, Samples]:
    """Run all contenders in turns.

    Args:
        contenders: what to time, by name.
        repeat: timed rounds.
        warmup: rounds before them that don't count: first runs allocate, and some backends compile.

    Returns:
        dict: the times of each contender; run i of one was made right beside run i of the others.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeat):
        for name, run in contenders.items():
            seconds = run()
            if turn >= warmup:
                times[name].append(1000 * seconds)
    return {name: Samples(tuple(ms)) for name, ms in times.items()}


def ratio(baseline: Samples, contender: Samples) -> Ratio:
    """How many times faster `contender` is than `baseline`; both must come from one `interleave`."""
    return Ratio(tuple(b / c for b, c in zip(baseline.ms, contender.ms, strict=True)))
