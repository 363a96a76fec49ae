from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_colour_model

COMMAND = [sys.executable, "-m", "segrt.bench.cli"]


def _bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_measures_a_model_and_says_why_another_fails(colour_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = _bench(
        colour_model,
        "nosuch",
        "--mode",
        "normal",
        "--size",
        "64x96",
        "--repeat",
        "3",
        "--device",
        "cpu",
        "-o",
        out,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "failed: unknown model 'nosuch'" in done.stdout
    good, bad = json.loads(out.read_text())["rows"]
    assert (good["model"], good["provider"], good["precision"]) == (
        "colours",
        "CPUExecutionProvider",
        "fp32",
    )
    assert good["ms"]["total"]["rounds"] == 3
    assert good["file_bytes"] == colour_model.stat().st_size
    assert bad["ms"] == {}


def test_a_sliding_window_is_measured(colour_model: Path, tmp_path: Path) -> None:
    whole = write_colour_model(tmp_path / "whole.onnx", labels=True)
    common = [
        "--mode",
        "normal",
        "--size",
        "64x96",
        "--repeat",
        "1",
        "--device",
        "cpu",
        "--format",
        "json",
    ]
    done = _bench(colour_model, whole, "--slide", "32,24", *common)
    assert done.returncode == 1, done.stderr
    good, bad = json.loads(done.stdout)["rows"]
    assert good["ms"]["total"]["rounds"] == 1
    assert "nothing to average in a window" in bad["error"]


def test_the_data_set_gives_what_the_model_card_says(camvid: Path) -> None:
    done = _bench(
        "--mode",
        "normal",
        "--device",
        "cpu",
        "--repeat",
        "1",
        "--dataset",
        camvid,
        "--format",
        "json",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]  # of every plan that the machine offers
    assert rows[0]["provider"] == "CPUExecutionProvider"
    for row in rows:
        assert row["accuracy"]["images"] == 40
        tolerance = 0.001 if row["precision"] == "fp32" else 0.003
        assert row["accuracy"]["miou"] == pytest.approx(0.5568, abs=tolerance)
        assert row["accuracy"]["pixel_accuracy"] == pytest.approx(0.8582, abs=tolerance)


def test_ctrl_c_prints_what_is_done(colour_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    many = [
        *COMMAND,
        str(colour_model),
        *[str(colour_model)] * 50,
        "--mode",
        "normal",
        "--repeat",
        "2",
        "-o",
        str(out),
    ]
    with subprocess.Popen(
        many, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    assert "colours" in stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--size", "huge"], 2, "--size 'huge' is not valid"),
        (["--slide", "huge"], 2, "slide 'huge' is not valid"),
        (["--compare", "paddle", "--slide", "512,512"], 2, "can't be compared with --slide"),
        (["--mode", "fast"], 2, "unknown mode 'fast'"),
        (["--mode", "normal,normal"], 2, "two contenders are alike"),
        (["--plan", "[]"], 2, "--plan '[]' is not valid"),
        (["--all", "PP-LiteSeg-T"], 2, "not both"),
        (["--threads", "9999"], 2, "--threads 9999 is not valid"),
        (["--compare", "paddle", "--device", "gpu:0"], 2, "can't be compared"),
        (["--plot", "chart.bmp"], 2, "must end in .png"),
        (["--images", os.devnull + "x"], 1, "holds no image"),
        (["--dataset", "nowhere"], 1, "nowhere holds no data set"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], status: int, words: str) -> None:
    done = _bench(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
