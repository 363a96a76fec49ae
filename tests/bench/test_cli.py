from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import fake_converter
import numpy as np
import pytest
from conftest import write_colour_model
from fake_converter import Served
from PIL import Image
from tars import model_tar

import segrt
from segrt import consent, converter, zoo
from segrt.bench import cli

COMMAND = [sys.executable, "-m", "segrt.bench.cli"]


def _bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_reports_a_good_model_and_why_another_fails(colour_model: Path, tmp_path: Path) -> None:
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


def _measured(*arguments: str) -> list[dict[str, Any]]:
    """The rows of a short run in this process, whose converter is a fake."""
    short = ["--mode", "normal", "--device", "cpu", "--size", "64x96", "--repeat", "1"]
    with NamedTemporaryFile(suffix=".json") as out:
        command, bound, _ = cli.app.parse_args([*arguments, *short, "-o", out.name])
        command(*bound.args, **bound.kwargs)
        rows: list[dict[str, Any]] = json.loads(Path(out.name).read_text())["rows"]
    return rows


def test_a_named_model_is_converted_with_the_consent_of_yes(
    home: Path, tmp_path: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = zoo.get("PP-LiteSeg-B")
    archive = tmp_path / "mirror" / spec.archives[0].path
    archive.parent.mkdir(parents=True)
    archive.write_bytes(model_tar())
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.delenv("SEGRT_YES", raising=False)
    monkeypatch.setattr(consent, "_ask", [])
    monkeypatch.setattr(converter, "convert", converter.convert)
    monkeypatch.setattr(fake_converter, "ONNX", colour_model.read_bytes())
    fake_converter.install()
    monkeypatch.setattr(converter, "find", lambda: None)
    monkeypatch.setattr(converter, "make", lambda: Path(sys.executable))
    (refused,) = _measured(spec.name)
    assert "--yes" in refused["error"]
    assert not (home / "onnx").exists()
    (row,) = _measured(spec.name, "--yes")
    assert (row["error"], row["model"]) == (None, spec.name)
    assert row["ms"]["total"]["rounds"] == 1


def test_the_url_of_a_model(
    home: Path, tmp_path: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    served = Served(tmp_path)
    try:
        rows = [_measured(f"{served.url}/{colour_model.name}?key=1")[0] for _ in range(2)]
    finally:
        served.close()
    assert [(row["error"], row["model"]) for row in rows] == [(None, colour_model.stem)] * 2
    assert served.requests == [f"/{colour_model.name}?key=1"]  # once
    assert [*(home / "urls").glob("*/*.onnx")]


def test_measures_a_sliding_window(colour_model: Path, tmp_path: Path) -> None:
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


def test_data_set_reproduces_the_model_card(camvid: Path) -> None:
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
    rows = json.loads(done.stdout)["rows"]  # one for each available plan
    assert rows[0]["provider"] == "CPUExecutionProvider"
    for row in rows:
        assert row["accuracy"]["images"] == 40
        tolerance = 0.001 if row["precision"] == "fp32" else 0.003
        assert row["accuracy"]["miou"] == pytest.approx(0.5568, abs=tolerance)
        assert row["accuracy"]["pixel_accuracy"] == pytest.approx(0.8582, abs=tolerance)


def test_ctrl_c_prints_the_results_so_far(colour_model: Path, tmp_path: Path) -> None:
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
        (["--size", "huge"], 2, "size 'huge' is not valid"),
        (["--slide", "huge"], 2, "slide 'huge' is not valid"),
        (["--compare", "paddle", "--slide", "512,512"], 2, "can't be compared with --slide"),
        (["--compare", "paddle", "--compare", "paddle"], 2, "given twice"),
        (["--compare", "tensorflow"], 2, "--compare"),
        (["--fitted", "photos", "--dataset", "photos"], 2, "--fitted implies"),
        (["--fitted", "nowhere"], 1, "nowhere contains no data set"),
        (["--dataset-size", "huge"], 2, "size 'huge' is not valid"),
        (["--mode", "fast"], 2, "unknown mode 'fast'"),
        (["--mode", "normal,normal"], 2, "two contenders are alike"),
        (["--plan", "[]"], 2, "--plan '[]' is not valid"),
        (["--plan", '{"backend": "openvin"}'], 2, "did you mean 'openvino'?"),
        (["--nosuch"], 2, "Unknown option: --nosuch"),
        (["--repeat", "0"], 2, "--repeat"),
        (["--ignore-index", "256"], 2, "--ignore-index"),
        (["--format", "xml"], 2, "--format"),
        (["--format-dataset", "coco"], 2, "ade20k"),
        (["-o"], 2, "requires an argument"),
        (["--threads", "9999"], 2, "--threads 9999 is not valid"),
        (["--compare", "paddle", "--device", "gpu:0"], 2, "can't be compared"),
        (["--plot", "chart.bmp"], 2, "must end in .png"),
        (["--images", os.devnull + "x"], 1, "does not exist"),
        (["--dataset", "nowhere"], 1, "nowhere contains no data set"),
    ],
)
def test_usage_error_is_one_line(arguments: list[str], status: int, words: str) -> None:
    done = _bench(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_spelling_of_an_option(colour_model: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.md", "b.csv", "c.txt")]
    done = _bench(
        "--mode=normal",
        "--device=cpu",
        colour_model,
        "--plan",
        '{"backend": "cpu", "threads": 1}',
        "--plan={backend: cpu, precision: fp32}",
        "--size=64X96",
        "--seconds",
        "0.1",
        "--repeat=1",
        "--threads=1",
        "--format_dataset",
        "ade20k",
        "--format=json",
        f"--output={files[0]}",
        "-o",
        files[1],
        "--output",
        files[2],
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["mode"] for row in rows] == ["normal", "cpu 1", "cpu fp32"]
    assert all(file.is_file() for file in files)


def test_masks_with_a_value_without_class_and_a_gallery(colour_model: Path, tmp_path: Path) -> None:
    photo = np.zeros((32, 48, 3), np.uint8)
    photo[..., 0], photo[:, 30:] = 250, (0, 250, 0)
    for folder, pixels in (("images", photo), ("labels", np.where(photo[..., 0], 0, 255))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / "a&b.png")
    page = tmp_path / "out" / "gallery.html"
    page.parent.mkdir()
    common = ["--mode", "normal", "--repeat", "1", "--device", "cpu", "--plan", '{"threads": 1}']
    done = _bench(colour_model, "--dataset", tmp_path, "--gallery", page, *common)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "37.5% of the pixels of the masks have the value 255, for which colours has no" in said
    assert "1 of its 3 classes occur" in said
    text = page.read_text()
    assert text.count("<img ") == 4
    assert "a&amp;b.png: mIoU 100.0%" in text
    for wrong, message in (
        (["--gallery", "a.png", "--dataset", tmp_path], "--gallery a.png is not valid"),
        (["--gallery", "a.html"], "add --dataset or --fitted"),
    ):
        done = _bench(colour_model, *wrong)
        assert (done.returncode, message in done.stderr) == (2, True)


def test_a_quantized_file_is_one_more_contender(colour_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "int8"
    folder.mkdir()
    # Which precision a file runs in is the plan's business: any model serves here.
    shutil.copy(colour_model, folder / "colours.onnx")
    other = shutil.copy(colour_model, tmp_path / "other.onnx")
    common = ["--mode", "normal", "--repeat", "1", "--device", "cpu", "--format", "json"]
    done = _bench(colour_model, other, "--int8", folder, *common)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["model"], row["mode"]) for row in rows] == [
        ("colours", "normal"),
        ("colours", "int8"),
        ("other", "normal"),
    ]
    assert (rows[1]["baseline"], rows[1]["label_agreement"]) == ("normal", 1.0)


def test_help_and_version() -> None:
    shown = subprocess.run(
        [*COMMAND, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "80"},
    ).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for option in (
        "--all",
        "--fitted",
        "--int8",
        "--dataset-size",
        "--format-dataset",
        "-o",
        "--plot",
        "--compare",
        "--ignore-index",
    ):
        assert option in shown
    assert "--format_dataset" not in shown
    assert _bench("-h").returncode == 0
    assert _bench("--version").stdout.strip() == segrt.__version__
