"""Measure one model: start all contenders, run them alternately, and collect the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from segrt.accuracy import ConfusionMatrix
from segrt.bench.contender import Contender, Facts, Steps
from segrt.bench.models import BenchModel
from segrt.bench.pairs import Ratio, Run, Samples, interleave, ratio
from segrt.bench.worker import Worker
from segrt.bench.worst import Scored, Worst
from segrt.datasets import Pair, Truth
from segrt.errors import SegrtError
from segrt.types import TargetSize

MIN_ROUNDS = 5
PAUSE_S = 0.25
"""Pause between runs: threads of OpenMP runtimes keep spinning after the work (Intel's: 0.2 s)."""

ProgressCallback = Callable[[str, float], None]
"""Called with a description of the current step and the fraction that is done."""


@dataclass(frozen=True)
class Settings:
    """How long to measure each model, and the data set to score it on.

    Attributes:
        threads: number of threads of each contender.
        repeat: maximum number of timed rounds.
        seconds: time budget for the timed rounds; at least `MIN_ROUNDS` run (or `repeat` if less).
        pairs: labelled images to score each contender on; unused for untrained models.
        truth: how to read their labels.
        scored_size: inference size for these images, as for `Pipeline.predict`.
        score_peers: whether other runtimes are scored too.
        keep_worst: whether to keep the photos with the lowest mIoU.
    """

    threads: int = 1
    repeat: int = 30
    seconds: float = 30
    pairs: Sequence[Pair] = field(default=(), repr=False)
    truth: Truth = field(default_factory=Truth)
    scored_size: TargetSize = None
    score_peers: bool = True
    keep_worst: bool = False


@dataclass(frozen=True)
class Entrant:
    """A contender that has not been started.

    Attributes:
        label: its name in the tables.
        make: creates the contender, in a separate process.
        arguments: arguments of `make`.
        is_peer: whether it is another runtime, which segrt is compared with.
    """

    label: str
    make: Callable[..., Contender]
    arguments: tuple[Any, ...]
    is_peer: bool = False


@dataclass
class Row:
    """The results of one contender for one model; after a failure, the remaining ones are empty.

    Attributes:
        model: the model.
        contender: label of the contender.
        is_peer: whether it is another runtime, which segrt is compared with.
        error: why it failed.
        facts: how it ran.
        first_ms: time of the first image, which includes allocation and possibly compilation.
        warm_up_s: seconds to compile for the inference size, if the backend does that.
        steps: times of the timed rounds, by name of the step.
        ratio: speed-up over `baseline`.
        baseline: label of the contender that `ratio` and `agreement` refer to.
        agreement: fraction of the pixels of the last image with the same label as `baseline`.
        peak_bytes: peak resident memory of its process.
        harness: CPU time of the measuring process during the timed rounds, as a fraction of the CPU
            time available to the contenders.
        confusion: confusion matrix over the data set.
        class_names: classes of the matrix.
        scored_as: label of the first contender that was scored.
        scored_agreement: fraction of the pixels with the same label as `scored_as`, for each image
            of the data set; empty for that contender itself.
        images: number of images scored.
        worst: the photos with the lowest mIoU, for the first contender if they are wanted.
    """

    model: BenchModel
    contender: str
    is_peer: bool = False
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
    scored_as: str | None = None
    scored_agreement: tuple[float, ...] = ()
    images: int = 0
    worst: Sequence[Scored] = ()


def measure(
    model: BenchModel,
    entrants: Sequence[Entrant],
    settings: Settings,
    progress: ProgressCallback = lambda step, share: None,
) -> list[Row]:
    """Measure one model.

    Example:
        >>> entrant = Entrant("normal", SegrtContender, ([image], None, {"device": "cpu"}))
        >>> [row] = measure(find("PP-LiteSeg-T_camvid"), [entrant], Settings(threads=2))
        >>> row.steps["total"].median
        41.3

    Args:
        model: the model that the contenders run.
        entrants: at least one; the first that starts is the baseline.
        settings: how long to measure, and what to score.
        progress: called with the current step and the fraction of the model that is done.

    Returns:
        list[Row]: one for each entrant, in order. A contender that fails leaves a row with `error`.
    """
    contest = _Contest(model, settings, progress)
    with ExitStack() as stack:
        for entrant in entrants:
            contest.start(entrant, stack)
        try:
            if contest.workers:
                contest.time()
                if settings.pairs and not model.untrained:
                    contest.score(settings.truth)
        except SegrtError as error:
            for label in contest.workers:
                contest.rows[label].error = str(error)
    return list(contest.rows.values())


def overhead_ms() -> float:
    """Milliseconds that reading the clock adds to one image, measured with an empty contender."""

    def empty() -> float:
        start = perf_counter()
        for _ in range(5):  # as often as Pipeline does between the steps of an image
            perf_counter()
        return perf_counter() - start

    return interleave({"empty": empty}, repeat=2000)["empty"].median


class _Contest:
    """The contenders of one model that have started, and the rows of all."""

    def __init__(self, model: BenchModel, settings: Settings, progress: ProgressCallback) -> None:
        self.model = model
        self.settings = settings
        self.progress = progress
        self.rows: dict[str, Row] = {}
        self.workers: dict[str, Worker] = {}

    def start(self, entrant: Entrant, stack: ExitStack) -> None:
        """Start a contender and run its first image; a failure goes into its row."""
        self.progress(f"{self.model.name}: loading {entrant.label}", 0)
        row = self.rows[entrant.label] = Row(self.model, entrant.label, entrant.is_peer)
        try:
            with ExitStack() as started:
                worker = started.enter_context(Worker(entrant.make, *entrant.arguments))
                row.first_ms = worker.call("run", 0).total
                row.warm_up_s = worker.call("warm_up")
                row.facts = worker.call("facts")  # now it runs where the timed images will run
                stack.push(started.pop_all())
        except SegrtError as error:
            row.error = str(error)
        else:
            self.workers[entrant.label] = worker

    def time(self) -> None:
        """Run the timed rounds and fill in times, ratios, agreement and memory."""
        settings = self.settings
        taken: dict[str, list[Steps]] = {label: [] for label in self.workers}
        rounds = 0

        def turns(label: str) -> Run:
            turn = count()

            def run() -> float:
                done = sum(map(len, taken.values()))
                share = done / (len(self.workers) * (rounds + 1)) if rounds else 0
                self.progress(f"{self.model.name}: {label}", share)
                steps: Steps = self.workers[label].call("run", next(turn))
                taken[label].append(steps)
                if len(self.workers) > 1:
                    sleep(PAUSE_S)
                return steps.total / 1000

            return run

        runs = {label: turns(label) for label in self.workers}
        start = perf_counter()
        interleave(runs, repeat=1, warmup=0)  # warms up, and shows how long a round takes
        affordable = int(settings.seconds / (perf_counter() - start))
        rounds = max(min(MIN_ROUNDS, settings.repeat), min(settings.repeat, affordable))
        cpu = process_time()
        totals = interleave(runs, repeat=rounds, warmup=0)
        cpu = process_time() - cpu
        busy_s = sum(sum(samples.ms) for samples in totals.values()) / 1000
        for label, row in self._running():
            row.steps = {
                step: Samples(tuple(getattr(steps, step) for steps in taken[label][-rounds:]))
                for step in Steps._fields
            }
            row.harness = cpu / (settings.threads * busy_s)
            row.peak_bytes = self.workers[label].call("peak_memory")
        self._compare(totals)

    def score(self, truth: Truth) -> None:
        """Score the contenders on the data set, and compare their labels with the first one's."""
        settings = self.settings
        rows = [row for _, row in self._running() if settings.score_peers or not row.is_peer]
        agreement: dict[str, list[float]] = {row.contender: [] for row in rows}
        worst: Worst | None = None
        for done, pair in enumerate(settings.pairs):
            self.progress(f"{self.model.name}: {pair.image.name}", done / len(settings.pairs))
            found = [
                self.workers[label].call("score", pair, truth, settings.scored_size)
                for label in agreement
            ]
            for shares, labels in zip(agreement.values(), found, strict=True):
                shares.append(float(np.mean(labels == found[0])))
            if settings.keep_worst:
                if worst is None:
                    _, names = self.workers[rows[0].contender].call("confusion")
                    worst = Worst(len(names), truth.ignore_index(len(names)))
                worst.add(pair, found[0], truth.read(pair.label))
        if worst is not None:
            rows[0].worst = worst.photos
        for row in rows:
            row.confusion, row.class_names = self.workers[row.contender].call("confusion")
            row.images, row.scored_as = len(settings.pairs), rows[0].contender
            if row is not rows[0]:
                row.scored_agreement = tuple(agreement[row.contender])

    def _running(self) -> list[tuple[str, Row]]:
        return [(label, self.rows[label]) for label in self.workers]

    def _compare(self, totals: dict[str, Samples]) -> None:
        """Compare all contenders with the first."""
        (baseline, _), *others = self._running()
        expected = self.workers[baseline].call("labels")
        for label, row in others:
            labels = self.workers[label].call("labels")
            row.baseline, row.ratio = baseline, ratio(totals[baseline], totals[label])
            row.agreement = float(np.mean(labels == expected))
