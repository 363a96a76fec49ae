"""Everything one call of `segrt-bench` measures, model by model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segrt.bench import models
from segrt.bench.contender import SegrtContender
from segrt.bench.measure import Entrant, ProgressCallback, Row, Settings, measure
from segrt.bench.models import BenchModel
from segrt.bench.paddle import PaddleContender
from segrt.errors import SegrtError


@dataclass(frozen=True)
class Job:
    """What to measure, and how.

    Example:
        >>> job = Job(["PP-LiteSeg-T_camvid"], [("normal", {})], [Path("road.png")])
        >>> rows = [row for rows in job.run() for row in rows]

    Attributes:
        names: the models, as for `models.find`.
        contenders: label and arguments of `create_pipeline` for each; `model_dir` is added.
        images: image files, used in rotation.
        settings: how long to measure each model, and what to score it on.
        size: inference size (height, width); None for the size of each image.
        slide: sliding window, as for `Pipeline.predict`; excludes Paddle.
        paddle: whether to add Paddle Inference, as the baseline.
        untrained: whether to build untrained models where weights are not downloaded.
    """

    names: Sequence[str]
    contenders: Sequence[tuple[str, Mapping[str, Any]]]
    images: Sequence[Path]
    settings: Settings = field(default_factory=Settings)
    size: tuple[int, int] | None = None
    slide: str | None = None
    paddle: bool = False
    untrained: bool = False

    def run(self, progress: ProgressCallback = lambda step, done: None) -> Iterator[list[Row]]:
        """Measure the models one after the other.

        Args:
            progress: called with the current step and the number of models done, with a fraction.

        Yields:
            list[Row]: the results of one model. A model that fails leaves rows with `error`.
        """
        for done, name in enumerate(self.names):
            progress(f"{name}: finding or building it", done)
            try:
                model = models.find(name, untrained=self.untrained, paddle=self.paddle)
            except (SegrtError, OSError) as error:
                yield [
                    Row(BenchModel(name), label, error=str(error)) for label, _ in self.contenders
                ]
                continue

            def model_progress(step: str, share: float, done: int = done) -> None:
                progress(step, done + share)

            yield measure(model, self._entrants(model), self.settings, model_progress)

    def _entrants(self, model: BenchModel) -> list[Entrant]:
        entrants = []
        if self.paddle:
            arguments: tuple[Any, ...] = (self.images, self.size, model.paddle)
            entrants.append(Entrant("paddle", PaddleContender, (*arguments, self.settings.threads)))
        for label, options in self.contenders:
            arguments = (self.images, self.size, {**options, "model_dir": model.onnx}, self.slide)
            entrants.append(Entrant(label, SegrtContender, arguments))
        return entrants
