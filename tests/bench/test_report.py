from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segrt import zoo
from segrt.accuracy import ConfusionMatrix
from segrt.bench.contender import Facts
from segrt.bench.environment import observe
from segrt.bench.measure import Row
from segrt.bench.models import BenchModel
from segrt.bench.pairs import Samples, ratio
from segrt.bench.plot import check, plot
from segrt.bench.report import STEPS, Format, Report
from segrt.errors import ConfigError


def _report() -> Report:
    lite = BenchModel(
        "PP-LiteSeg-T",
        Path("gone.onnx"),
        spec=zoo.get("PP-LiteSeg-T"),
        untrained=True,
        build_s=3,
        export_s=4,
    )
    slow, fast = Samples((40.0, 50.0, 60.0)), Samples((20.0, 20.0, 20.0))
    confusion = ConfusionMatrix(2, 255)
    confusion.add(np.array([[0, 1, 1]], np.int32), np.array([[0, 1, 0]], np.int32))
    rows = [
        Row(
            lite,
            "paddle",
            is_peer=True,
            facts=Facts("Paddle Inference 3.2.2", "fp32", 1.0, {"threads": 2}),
            first_ms=99.0,
            steps=dict.fromkeys(STEPS, slow),
            peak_bytes=10**8,
            harness=0.001,
        ),
        Row(
            lite,
            "normal",
            facts=Facts("CPUExecutionProvider", "fp32", 0.5, {"threads": 2}),
            steps=dict.fromkeys(STEPS, fast),
            ratio=ratio(slow, fast),
            baseline="paddle",
            agreement=0.99999,
            confusion=confusion,
            class_names=("road", "sky"),
            images=1,
            scored_as="fp32",
            scored_agreement=(0.75, 0.5),
        ),
        Row(lite, "high-performance", error="no | provider"),
        Row(BenchModel("nosuch"), "normal", error="unknown model 'nosuch'"),
    ]
    environment = replace(observe(()), load_before=0.0)
    return Report("--all", environment, threads=2, size="512x1024", clock_ms=0.0004, rows=rows)


def test_markdown_and_table_hold_every_row() -> None:
    report = _report()
    for text in (report.render(Format.MARKDOWN), report.render(Format.TABLE, width=250)):
        assert "2.50 (2.00 to 3.00)" in text
        assert "failed: unknown model 'nosuch'" in text
        assert "CPU fp32 x2" in text
        assert "420.07 / 235.01" in text  # as published
        assert "NVIDIA Tesla T4" in text
        assert "untrained" in text
        assert "0.0020% of the fastest" in text
        assert "BUSY" not in text
        assert "99.999% as paddle" in text
        assert "62.500% as fp32" in text
    markdown = report.render(Format.MARKDOWN)
    assert "| normal | paddle | 1 | 2.50 | 2.50 (PP-LiteSeg-T) | 2.50 (PP-LiteSeg-T) |" in markdown
    assert "failed: no \\| provider" in markdown
    for block in markdown.split("\n\n"):
        if block.startswith("|"):
            assert (
                len({line.replace("\\|", "").count("|") for line in block.strip().split("\n")}) == 1
            )
    assert "BUSY" in replace(
        report, environment=replace(report.environment, load_before=99.0)
    ).render(Format.MARKDOWN)


def test_a_fitted_twin_is_named_in_every_row() -> None:
    report = _report()
    twin = replace(report.rows[0].model, untrained=False, fitted=True)
    rows = [replace(row, model=twin) for row in report.rows[:2]]
    blocks = replace(report, rows=rows).render(Format.MARKDOWN).split("\n\n")
    speeds = next(block for block in blocks if block.startswith("| model"))
    table = [line for line in speeds.splitlines() if line.startswith("| PP-LiteSeg-T")]
    assert all("| fitted twin |" in line for line in table)
    assert len(table) == 2
    assert "fitted by ridge regression" in blocks[-1]


def test_json_and_csv_can_be_read_again() -> None:
    report = _report()
    content = json.loads(report.render(Format.JSON))
    assert [row["error"] for row in content["rows"]] == [
        None,
        None,
        "no | provider",
        "unknown model 'nosuch'",
    ]
    normal = content["rows"][1]
    assert normal["ms"]["total"]["all"] == [20.0, 20.0, 20.0]
    assert normal["ratio"] == {"median": 2.5, "low": 2.0, "high": 3.0, "pairs": [2.0, 2.5, 3.0]}
    assert normal["accuracy"]["confusion"] == [[1, 1], [0, 1]]
    assert normal["published"]["cpu_ms"] == "420.07 / 235.01"
    assert content["environment"]["busy"] is False
    rows = list(csv.DictReader(io.StringIO(report.render(Format.CSV))))
    assert [row["mode"] for row in rows] == ["paddle", "normal", "high-performance", "normal"]
    assert (rows[1]["ms.total.median"], rows[1]["size"]) == ("20.0", "512x1024")


def test_published_times_are_never_part_of_a_ratio() -> None:
    report = _report()
    assert "ratio" not in json.loads(report.render(Format.JSON))["rows"][1]["published"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_chart_is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"chart{suffix}"
    check(file)
    assert plot(_report().rows, file, subtitle="a machine")
    if suffix == ".png":
        with Image.open(file) as image:
            assert image.size[0] > 800
    else:
        assert file.read_text("utf-8").startswith("<?xml")
    alone = Row(BenchModel("a"), "normal", steps=_report().rows[0].steps)
    assert not plot([alone], tmp_path / "none.png", subtitle="")
    assert not (tmp_path / "none.png").exists()


def test_a_chart_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.png"):
        check(tmp_path / "chart.bmp")
