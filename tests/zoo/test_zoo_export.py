"""Exports of all published networks, with random weights, compared with Paddle Inference.

These tests take many minutes and are run by `make zoo-test`, not by `make test`. Set
`SEGRT_ZOO_OUT` to a folder to keep the exports and their reports.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from segrt import zoo
from segrt_export.exporter import export
from segrt_export.parity import SAMPLE
from segrt_export.program import PaddleModel
from segrt_export.untrained import build_untrained, parameter_count

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(
        not (find_spec("paddle") and find_spec("paddle2onnx") and find_spec("paddleseg")),
        reason="needs the export extra and paddleseg: make zoo-test",
    ),
]

NAMES = [spec.name for spec in zoo.load().models if not spec.bundled]
SIZES = ((256, 512), (333, 517))
FLOORS = {"256x512": 0.9999, "333x517": 0.9999}
# Maximum share of the stock graph's multiply-adds that may remain after rewrites, at 512x1024.
WORK = {
    "Deeplabv3-R50": 0.90,
    "OCRNet_HRNet-W48": 0.96,
    "SegFormer-B0 (slice)": 0.55,
    "SegFormer-B2 (slice)": 0.45,
    "SegFormer-B3 (slice)": 0.57,
    "SegFormer-B4 (slice)": 0.65,
    "SegFormer-B5 (slice)": 0.73,
}
# Millions of parameters of the official networks, as PaddleSeg counts them.
PARAMETERS = {
    "OCRNet_HRNet-W18": 12.123,
    "OCRNet_HRNet-W48": 70.466,
    "PP-LiteSeg-T": 8.153,
    "PP-LiteSeg-B": 12.384,
    "Deeplabv3-R50": 39.125,
    "Deeplabv3-R101": 58.169,
    "Deeplabv3_Plus-R50": 26.794,
    "Deeplabv3_Plus-R101": 45.839,
    "SegFormer-B0 (slice)": 3.720,
    "SegFormer-B1 (slice)": 13.683,
    "SegFormer-B2 (slice)": 27.363,
    "SegFormer-B3 (slice)": 47.239,
    "SegFormer-B4 (slice)": 64.009,
    "SegFormer-B5 (slice)": 84.609,
    "SeaFormer_tiny (slice)": 1.690,
    "SeaFormer_small (slice)": 4.031,
    "SeaFormer_base(slice)": 8.673,
    "SeaFormer_large (slice)": 14.044,
}


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SEGRT_ZOO_OUT")
    return Path(kept) if kept else tmp_path_factory.mktemp("zoo")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The sample, smaller: the large networks take seconds for each image."""
    with Image.open(SAMPLE) as image:
        image.resize((480, 352)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _check(report: dict[str, Any]) -> None:
    assert ("parity_float32" in report) == bool(report["passes"]["winograd"])
    for parity in (report["parity"], report.get("parity_float32", report["parity"])):
        cases = {case["case"]: case for case in parity["cases"]}
        for size, floor in FLOORS.items():
            (case,) = (c for name, c in cases.items() if name.endswith(size))
            assert case["agreement"] >= floor, case
        assert cases["a batch of 3"]["agreement"] >= 0.999


@pytest.mark.parametrize("name", NAMES)
def test_the_export_agrees_with_paddle(name: str, tmp_path: Path, photo: Path, out: Path) -> None:
    spec = zoo.get(name)
    folder = build_untrained(name, tmp_path / "folder", class_names=spec.class_names)
    file = out / f"{name}.onnx"
    source = PaddleModel.open(folder, name=name)
    report = export(source, file, images=[photo], sizes=SIZES).report
    _check(report)
    model = onnx.load(str(file))
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, "H", "W"]
    assert {node.domain for node in model.graph.node} == {""}
    work = report["multiply_adds"]
    assert min(work.values()) <= WORK.get(name, 1) * work["stock"]
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(spec.class_names)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    assert parameter_count(name) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.0005)


@pytest.mark.parametrize("name", ["PP-LiteSeg-T", "SegFormer-B0 (slice)"])
def test_the_paddle_2_format_agrees_with_paddle(name: str, tmp_path: Path, photo: Path) -> None:
    folder = build_untrained(name, tmp_path / "folder", format="pdmodel")
    assert (folder / "inference.pdmodel").is_file()
    source = PaddleModel.open(folder)
    _check(export(source, tmp_path / "m.onnx", images=[photo], sizes=SIZES).report)
