from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import segrt
from segrt import tuning
from segrt.backends.plan import BACKENDS, Plan
from segrt.backends.session import Session
from segrt.errors import DeviceError, ModelError
from segrt.tuning import Measurement, winner

NORMAL = Plan(BACKENDS["cpu"], "fp32", 2)
FAST = Plan(BACKENDS["openvino"], "fp32", 2)
HALF = Plan(BACKENDS["openvino"], "bf16", 2)


pytestmark = pytest.mark.usefixtures("home")


def test_fastest_plan_that_keeps_the_labels_wins() -> None:
    slow, fast = Measurement(NORMAL, 10.0, 1.0), Measurement(FAST, 5.0, 1.0)
    assert winner([slow, fast, Measurement(HALF, 1.0, 0.5, "labels")]) is fast
    assert winner([slow, Measurement(FAST, 9.9, 1.0)]) is slow  # within the noise
    assert winner([slow, Measurement(FAST, None, None, "broken")]) is slow
    with pytest.raises(DeviceError, match="openvino fp32: broken"):
        winner([Measurement(FAST, None, None, "broken")])


def test_plans_that_change_labels_or_fail_are_rejected(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch, tiles: npt.NDArray[np.uint8]
) -> None:
    wrong, holes, broken = (replace(NORMAL, threads=threads) for threads in (3, 4, 5))
    real = Session.run

    def run(self: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        logits = real(self, batch)
        if self.plan == broken:
            raise ModelError("out of order")
        return (
            logits[:, ::-1]
            if self.plan == wrong
            else logits * np.nan
            if self.plan == holes
            else logits
        )

    monkeypatch.setattr(Session, "run", run)
    steps: list[tuple[int, int]] = []
    measured = tuning.tune(
        colour_model,
        [NORMAL, wrong, holes, broken],
        NORMAL,
        [tiles],
        (64, 96),
        rounds=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [one.rejected for one in measured] == [
        "",
        pytest.approx("only 33.33% of its labels are those of FP32"),
        "its logits hold NaN or infinity",
        "out of order",
    ]
    assert measured[0].agreement == 1
    assert measured[0].milliseconds is not None
    assert measured[0].milliseconds > 0
    assert winner(measured) is measured[0]
    assert steps == [(done, 12) for done in range(1, 13)]


def test_tune_command_changes_high_performance_mode(
    colour_model: Path, home: Path, tiles: npt.NDArray[np.uint8]
) -> None:
    command = [
        sys.executable,
        "-m",
        "segrt",
        "tune",
        str(colour_model),
        "--size",
        "64x96",
        "--rounds",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "CPUExecutionProvider fp32" in done.stdout
    assert "high-performance mode runs" in done.stderr
    (record,) = json.loads((home / "tuning.json").read_text()).values()
    best = record["64x96"]["plan"]
    pipeline = segrt.create_pipeline(model_dir=colour_model, mode="high-performance", device="cpu")
    assert pipeline.session.plan.name == f"{best['backend']} {best['precision']}"
    (result,) = pipeline.predict(tiles)
    assert isinstance(result, segrt.SegResult)
    assert (result.provider, result.precision) == (pipeline.session.provider, best["precision"])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--size", "512"], 2, "size '512' is not valid"),
        (["--size", "big"], 2, "is not valid"),
        (["--device", "npu"], 1, "npu:0"),
        (["--images", "/nowhere"], 1, "/nowhere does not exist"),
    ],
)
def test_invalid_arguments_of_the_command(
    colour_model: Path, arguments: list[str], status: int, words: str
) -> None:
    command = [sys.executable, "-m", "segrt", "tune", str(colour_model), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
