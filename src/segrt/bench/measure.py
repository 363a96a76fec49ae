"""One model: start all contenders, let them take turns, and write down what each did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from segrt.bench.accuracy import ConfusionMatrix
from segrt.bench.contender import Contender, Facts, Steps
from segrt.bench.datasets import Pair, Truth
from segrt.bench.models import BenchModel
from segrt.bench.pairs import Ratio, Run, Samples, interleave, ratio
from segrt.bench.worker import Worker
from segrt.errors import SegrtError

MIN_ROUNDS = 5
PAUSE_S = 0.25
"""Rest between two turns: the threads of some runtimes (Intel's OpenMP: 0.2 s) go on spinning after the work."""

Told = Callable[[str, float], None]
"""Hears what is being done, and which share of the model is done."""


@dataclass(frozen=True)
class Entrant:
    """A contender that is still to be started.

    Attributes:
        label: its name in the tables.
        make: what makes it, in a process of its own.
        arguments: what `make` is called with.
    """

    label: str
    make: Callable[..., Contender]
    arguments: tuple[Any, ...]


@dataclass
class Row:
    """What one contender did with one model; empty beyond the point at which it failed.

    Attributes:
        model: what was measured.
        contender: the label.
        error: why it failed.
        facts: what ran it.
        first_ms: the first image, which allocates and may compile.
        warm_up_s: seconds to compile for the size of inference, where the backend does that.
        steps: times by name of the step, of the timed rounds.
        ratio: how many times faster than `baseline`.
        baseline: label of the contender that ratio and agreement refer to.
        agreement: share of the pixels of the last image that got the same label as from `baseline`.
        peak_bytes: most memory that its process held.
        harness: CPU time of the process that measures during the timed rounds, as a share of what those had.
        confusion: over the data set.
        class_names: of the matrix.
        images: that were scored.
    """

    model: BenchModel
    contender: str
    error: str | None = None
    facts: Facts | None = None
    first_ms: float | None = None
    warm_up_s: float | None = None
    steps: dict[str, Samples] = field(default_factory=dict)
    ratio: Ratio | None = None
    baseline: str | None = None
    agreement: float | None = None
    peak_bytes: int | None = None
    harness: float | None = None
    confusion: ConfusionMatrix | None = None
    class_names: tuple[str, ...] = ()
    images: int = 0


def measure(
    model: BenchModel,
    entrants: Sequence[Entrant],
    *,
    repeat: int,
    seconds: float,
    threads: int,
    pairs: Sequence[Pair] = (),
    truth: Truth | None = None,
    told: Told = lambda what, share: None,
) -> list[Row]:
    """Measure one model.

    Args:
        model: what the contenders run.
        entrants: at least one; the first that starts is the baseline of ratios and agreement.
        repeat: most timed rounds.
        seconds: that the timed rounds of a model should take; fewer rounds if need be, but `MIN_ROUNDS`.
        threads: that each contender uses.
        pairs: a data set to score the labels on; not for untrained models.
        truth: how its labels are read.
        told: hears of the progress.

    Returns:
        list[Row]: one for each entrant, in their order. A contender that fails leaves a row that says why.
    """
    rows = {entrant.label: Row(model, entrant.label) for entrant in entrants}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for entrant in entrants:
            told(f"{model.name}: loading {entrant.label}", 0)
            try:
                workers[entrant.label] = stack.enter_context(_start(entrant, rows[entrant.label]))
            except SegrtError as error:
                rows[entrant.label].error = str(error)
        try:
            if workers:
                _time(model.name, workers, rows, repeat, seconds, threads, told)
                if truth and not model.untrained:
                    _score(model.name, workers, rows, pairs, truth, told)
        except SegrtError as error:
            for label in workers:
                rows[label].error = str(error)
    return list(rows.values())


def overhead_ms() -> float:
    """Milliseconds that the clock itself adds to one image: an empty contender, with as many looks at the clock."""

    def empty() -> float:
        start = perf_counter()
        for _ in range(5):  # as Pipeline does between the steps of an image
            perf_counter()
        return perf_counter() - start

    return interleave({"empty": empty}, repeat=2000)["empty"].median


def _start(entrant: Entrant, row: Row) -> Worker:
    worker = Worker(entrant.make, *entrant.arguments)
    try:
        row.facts = worker.call("facts")
        row.first_ms = worker.call("run", 0).total
        row.warm_up_s = worker.call("warm_up")
    except BaseException:
        worker.close()
        raise
    return worker


def _time(
    name: str,
    workers: dict[str, Worker],
    rows: dict[str, Row],
    repeat: int,
    seconds: float,
    threads: int,
    told: Told,
) -> None:
    taken: dict[str, list[Steps]] = {label: [] for label in workers}
    rounds = 0

    def turns(label: str) -> Run:
        turn = count()

        def run() -> float:
            told(
                f"{name}: {label}",
                sum(map(len, taken.values())) / (len(workers) * (rounds + 1)) if rounds else 0,
            )
            steps: Steps = workers[label].call("run", next(turn))
            taken[label].append(steps)
            if len(workers) > 1:
                sleep(PAUSE_S)
            return steps.total / 1000

        return run

    runs = {label: turns(label) for label in workers}
    start = perf_counter()
    interleave(runs, repeat=1, warmup=0)  # warms up, and shows how long a round takes
    rounds = max(min(MIN_ROUNDS, repeat), min(repeat, int(seconds / (perf_counter() - start))))
    cpu = process_time()
    total = interleave(runs, repeat=rounds, warmup=0)
    cpu = process_time() - cpu
    harness = cpu / (threads * sum(sum(samples.ms) for samples in total.values()) / 1000)
    baseline = next(iter(workers))
    expected = workers[baseline].call("labels")
    for label, worker in workers.items():
        row, timed = rows[label], taken[label][-rounds:]
        row.steps = {
            step: Samples(tuple(getattr(t, step) for t in timed)) for step in Steps._fields
        }
        row.harness = harness
        row.peak_bytes = worker.call("peak_memory")
        if label != baseline:
            row.baseline, row.ratio = baseline, ratio(total[baseline], total[label])
            row.agreement = float(np.mean(worker.call("labels") == expected))


def _score(
    name: str,
    workers: dict[str, Worker],
    rows: dict[str, Row],
    pairs: Sequence[Pair],
    truth: Truth,
    told: Told,
) -> None:
    for done, pair in enumerate(pairs):
        told(f"{name}: {pair.image.name}", done / len(pairs))
        for worker in workers.values():
            worker.call("score", pair, truth)
    for label, worker in workers.items():
        rows[label].confusion, rows[label].class_names = worker.call("confusion")
        rows[label].images = len(pairs)
