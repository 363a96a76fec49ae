"""Measuring with fake contenders, whose times are made up, so that no test depends on a clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segrt.bench import measure as module
from segrt.bench.contender import Contender, Facts, Steps
from segrt.bench.measure import Entrant, Settings, measure, overhead_ms
from segrt.bench.models import BenchModel
from segrt.datasets import Truth, find
from segrt.errors import DeviceError, ModelError
from segrt.types import TargetSize

MODEL = BenchModel("fake")


class Fake(Contender):
    """Reports `ms` and, below the first row, `label`; fails in run number `fails`."""

    class_names = ("zero", "one")

    def __init__(self, images: Sequence[Path], ms: float, label: int = 0, fails: int = -2) -> None:
        super().__init__(images, None)
        self._ms, self._label, self._fails = ms, label, fails
        if fails == -1:
            raise DeviceError("no such device")

    def facts(self) -> Facts:
        return Facts("FakeExecutionProvider", "fp32", 0.5, {"threads": 2})

    def segment(
        self, image: npt.NDArray[np.uint8], size: TargetSize
    ) -> tuple[npt.NDArray[np.int32], Steps]:
        labels = np.full(image.shape[:2], self._label, np.int32)
        labels[0] = 0
        return labels, Steps(1, self._ms - 3, 1, self._ms)

    def run(self, turn: int) -> Steps:
        if turn == self._fails:
            raise ModelError("out of memory")
        return super().run(turn)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)


@pytest.fixture
def photo(tmp_path: Path) -> list[Path]:
    path = tmp_path / "images" / "photo.png"
    path.parent.mkdir()
    Image.new("RGB", (6, 4)).save(path)
    return [path]


def test_rows_contain_what_the_contenders_report(photo: list[Path]) -> None:
    entrants = [
        Entrant("slow", Fake, (photo, 20.0)),
        Entrant("missing", Fake, (photo, 1.0, 0, -1)),
        Entrant("fast", Fake, (photo, 5.0, 1)),
    ]
    shares: list[float] = []
    settings = Settings(repeat=7, seconds=60, threads=2)
    slow, missing, fast = measure(
        MODEL, entrants, settings, lambda step, share: shares.append(share)
    )
    assert (slow.error, missing.error, fast.error) == (None, "no such device", None)
    assert not missing.steps
    assert slow.steps["total"].ms == (20.0,) * 7
    assert fast.steps["run"].ms == (2.0,) * 7
    assert fast.ratio
    assert (slow.ratio, fast.ratio.pairs, fast.baseline) == (None, (4.0,) * 7, "slow")
    assert fast.agreement == 0.25
    assert slow.peak_bytes
    assert slow.peak_bytes > 1e6
    assert shares == sorted(shares)
    assert 0 <= shares[-1] <= 1


def test_few_rounds_when_time_is_short(photo: list[Path]) -> None:
    entrants = [Entrant("a", Fake, (photo, 5.0))]
    (row,) = measure(MODEL, entrants, Settings(repeat=50, seconds=0))
    assert len(row.steps["total"].ms) == module.MIN_ROUNDS
    (row,) = measure(MODEL, entrants, Settings(repeat=2, seconds=0))
    assert len(row.steps["total"].ms) == 2


def test_a_failure_while_measuring_goes_into_every_row(photo: list[Path]) -> None:
    entrants = [Entrant("a", Fake, (photo, 5.0)), Entrant("b", Fake, (photo, 5.0, 0, 3))]
    rows = measure(MODEL, entrants, Settings(repeat=5, seconds=60))
    assert ["out of memory" in str(row.error) for row in rows] == [True, True]


def test_scores_on_a_data_set(photo: list[Path], tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    truth = np.array([[0] * 6, [1] * 6, [0] * 6, [255] * 6], np.uint8)
    Image.fromarray(truth).save(tmp_path / "labels" / "photo.png")
    pairs = find(tmp_path, Truth().layout)
    entrants = [
        Entrant("zeros", Fake, (photo, 5.0, 0)),
        Entrant("ones", Fake, (photo, 5.0, 1)),
    ]
    settings = Settings(repeat=1, seconds=1, pairs=pairs, truth=Truth())
    zeros, ones = measure(MODEL, entrants, settings)
    assert zeros.confusion
    assert ones.confusion
    assert zeros.confusion.counts.tolist() == [[12, 0], [6, 0]]
    assert ones.confusion.counts.tolist() == [[6, 6], [0, 6]]
    assert (ones.images, ones.class_names) == (1, ("zero", "one"))
    assert (zeros.scored_as, zeros.scored_agreement) == ("zeros", ())
    assert (ones.scored_as, ones.scored_agreement) == ("zeros", (0.25,))


def test_other_runtimes_need_not_be_scored(photo: list[Path], tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "labels" / "photo.png")
    entrants = [
        Entrant("other", Fake, (photo, 5.0, 1), is_peer=True),
        Entrant("ours", Fake, (photo, 5.0, 0)),
    ]
    pairs = find(tmp_path, Truth().layout)
    settings = Settings(repeat=1, seconds=1, pairs=pairs, score_peers=False)
    other, ours = measure(MODEL, entrants, settings)
    assert (other.is_peer, other.confusion, other.scored_agreement) == (True, None, ())
    assert (ours.scored_as, ours.scored_agreement) == ("ours", ())
    assert ours.confusion
    assert ours.agreement == 0.25


def test_the_clock_costs_something() -> None:
    assert overhead_ms() >= 0
