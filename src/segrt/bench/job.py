"""All that one call of `segrt-bench` is to do, model after model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segrt.bench import models
from segrt.bench.contender import SegrtContender
from segrt.bench.datasets import Pair, Truth
from segrt.bench.measure import Entrant, Row, measure
from segrt.bench.models import BenchModel
from segrt.bench.paddle import PaddleContender
from segrt.errors import SegrtError


@dataclass(frozen=True)
class Job:
    """What to measure, and how.

    Attributes:
        names: models, as `models.find` takes them.
        contenders: label and arguments of `create_pipeline`; `model_dir` is added.
        photos: images to run in turn.
        size: (height, width) of inference; None for that of each image.
        slide: sliding window, as `Pipeline.predict` takes it; Paddle can't take part then.
        threads: of each contender.
        repeat: most timed rounds.
        seconds: that the rounds of a model should take.
        paddle: whether Paddle Inference takes part, as the baseline.
        untrained: whether twins stand in for weights that are not here.
        pairs: a data set to score on.
        truth: how its labels are read.
    """

    names: Sequence[str]
    contenders: Sequence[tuple[str, Mapping[str, Any]]]
    photos: Sequence[Path]
    size: tuple[int, int] | None = None
    slide: str | None = None
    threads: int = 1
    repeat: int = 30
    seconds: float = 30
    paddle: bool = False
    untrained: bool = False
    pairs: Sequence[Pair] = field(default=(), repr=False)
    truth: Truth | None = None

    def run(
        self, told: Callable[[str, float], None] = lambda what, done: None
    ) -> Iterator[list[Row]]:
        """Measure one model after the other.

        Args:
            told: hears what is being done, and how many models are done, as a fraction.

        Yields:
            list[Row]: those of one model. A model that fails leaves rows that say why.
        """
        for done, name in enumerate(self.names):
            told(f"{name}: finding or building it", done)
            try:
                model = models.find(name, untrained=self.untrained, paddle=self.paddle)
            except (SegrtError, OSError) as error:
                yield [
                    Row(BenchModel(name), label, error=str(error)) for label, _ in self.contenders
                ]
                continue
            yield measure(
                model,
                self._entrants(model),
                repeat=self.repeat,
                seconds=self.seconds,
                threads=self.threads,
                pairs=self.pairs,
                truth=self.truth,
                told=lambda what, share, done=done: told(what, done + share),  # type: ignore[misc]
            )

    def _entrants(self, model: BenchModel) -> list[Entrant]:
        found = [
            Entrant("paddle", PaddleContender, (self.photos, self.size, model.paddle, self.threads))
        ]
        for label, options in self.contenders:
            arguments = (self.photos, self.size, {**options, "model_dir": model.onnx}, self.slide)
            found.append(Entrant(label, SegrtContender, arguments))
        return found if self.paddle else found[1:]
