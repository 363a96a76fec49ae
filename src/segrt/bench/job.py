"""Everything one call of `segrt-bench` measures, model by model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from segrt.bench import models
from segrt.bench.contender import Contender, SegrtContender
from segrt.bench.measure import Entrant, ProgressCallback, Row, Settings, measure
from segrt.bench.models import BenchModel, Wanted
from segrt.bench.runtimes import OnnxRuntimeContender, OpenVinoContender, PaddleContender
from segrt.errors import SegrtError
from segrt.types import Mode


class Peer(str, Enum):
    """Runtimes that segrt can be compared with."""

    PADDLE = "paddle"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


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
        slide: sliding window, as for `Pipeline.predict`; excludes peers.
        peers: other runtimes to add; the first is the baseline.
        wanted: what to find or build for each model.
    """

    names: Sequence[str]
    contenders: Sequence[tuple[str, Mapping[str, Any]]]
    images: Sequence[Path]
    settings: Settings = field(default_factory=Settings)
    size: tuple[int, int] | None = None
    slide: str | None = None
    peers: Sequence[Peer] = ()
    wanted: Wanted = field(default_factory=Wanted)

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
                model = models.find(name, self.wanted)
            except (SegrtError, OSError) as error:
                yield [
                    Row(BenchModel(name), label, error=str(error)) for label, _ in self.contenders
                ]
                continue

            def model_progress(step: str, share: float, done: int = done) -> None:
                progress(step, done + share)

            yield measure(model, self._entrants(model), self.settings, model_progress)

    def _entrants(self, model: BenchModel) -> list[Entrant]:
        entrants = [entrant for peer in self.peers for entrant in self._peers(peer, model)]
        contenders = [
            (label, {**options, "model_dir": model.onnx}) for label, options in self.contenders
        ]
        if model.int8:
            base = next(iter(self.contenders))[1]
            options = {**base, "mode": Mode.HIGH_PERFORMANCE.value, "model_dir": model.int8}
            contenders.append(("int8", options))
        for label, options in contenders:
            arguments = (self.images, self.size, options, self.slide)
            entrants.append(Entrant(label, SegrtContender, arguments))
        return entrants

    def _peers(self, peer: Peer, model: BenchModel) -> Iterator[Entrant]:
        stock = (model.stock, model.paddle)
        ours = (model.onnx, None)
        if peer is Peer.PADDLE:
            found: list[tuple[str, Callable[..., Contender], tuple[Path | None, ...]]] = [
                ("paddle", PaddleContender, (model.paddle,))
            ]
        elif peer is Peer.ONNXRUNTIME:
            found = [("onnxruntime, stock graph", OnnxRuntimeContender, stock)]
        else:
            found = [
                ("openvino, stock graph", OpenVinoContender, stock),
                ("openvino, our graph", OpenVinoContender, ours),
            ]
        for label, make, files in found:
            arguments = (self.images, self.size, *files, self.settings.threads)
            yield Entrant(label, make, arguments, is_peer=True)
