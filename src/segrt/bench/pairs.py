"""Interleaved timing, A B A B ..., and the ratio within each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

Run = Callable[[], float]
"""Do the work once and return the seconds it took, measured where the work is done."""


@dataclass(frozen=True)
class Samples:
    """The times of one contender.

    Example:
        >>> Samples((10.0, 12.0, 11.0)).median
        11.0

    Attributes:
        ms: milliseconds of each run, in order.
    """

    ms: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, in milliseconds."""
        return median(self.ms)

    @property
    def p95(self) -> float:
        """95th percentile, in milliseconds; the maximum if there are fewer than 20 runs."""
        return max(self.ms) if len(self.ms) < 20 else quantiles(self.ms, n=20)[-1]

    @property
    def spread(self) -> float:
        """Interquartile range as a fraction of the median."""
        if len(self.ms) < 2:
            return 0.0
        low, _, high = quantiles(self.ms, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True)
class Ratio:
    """Speed-up of a contender over a baseline, round by round.

    Example:
        >>> Ratio((2.0, 3.0, 2.5)).median
        2.5

    Attributes:
        pairs: time of the baseline divided by time of the contender, for each round.
    """

    pairs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the ratios."""
        return median(self.pairs)

    @property
    def low(self) -> float:
        """Smallest ratio."""
        return min(self.pairs)

    @property
    def high(self) -> float:
        """Largest ratio."""
        return max(self.pairs)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def interleave(
    contenders: Mapping[str, Run], *, repeat: int, warmup: int = 1
) -> dict[str, Samples]:
    """Run all contenders alternately.

    Example:
        >>> samples = interleave({"a": run_a, "b": run_b}, repeat=10)
        >>> print(ratio(samples["a"], samples["b"]))
        1.52 (1.47 to 1.60)

    Args:
        contenders: the functions to time, by name.
        repeat: number of timed rounds.
        warmup: number of untimed rounds first: first runs allocate, and some backends compile.

    Returns:
        dict: the times of each contender; run i of each belongs to the same round.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeat):
        for name, run in contenders.items():
            seconds = run()
            if turn >= warmup:
                times[name].append(1000 * seconds)
    return {name: Samples(tuple(ms)) for name, ms in times.items()}


def ratio(baseline: Samples, contender: Samples) -> Ratio:
    """Compute the speed-up of `contender` over `baseline`, both from the same `interleave` call."""
    return Ratio(tuple(b / c for b, c in zip(baseline.ms, contender.ms, strict=True)))
