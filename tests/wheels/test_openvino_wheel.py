"""The all-in-one wheel: `make test-openvino-wheel`."""

from __future__ import annotations

import wheel

wheel.only("onnxruntime-openvino")

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import segrt
from segrt.backends import catalog

SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"


def _labels(**options: object) -> tuple[segrt.Pipeline, npt.NDArray[np.int32]]:
    pipeline = segrt.create_pipeline("semantic_segmentation", **options)  # type: ignore[arg-type]
    (result,) = pipeline.predict(SAMPLE)
    assert isinstance(result, segrt.SegResult)
    assert result.provider == pipeline.session.provider
    return pipeline, result.labels


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_is_built_in_and_runs_the_model(precision: str) -> None:
    if precision == "bf16" and "avx512_bf16" not in catalog.read().cpu.features:
        pytest.skip("this CPU has no bf16")
    provider = catalog.read().provider("OpenVINOExecutionProvider")
    assert provider is not None
    assert provider.plugin == ""
    hpi = {"backend": "openvino", "precision": precision, "threads": 2}
    pipeline, labels = _labels(mode="high-performance", hpi_config=hpi)
    assert pipeline.session.provider == "OpenVINOExecutionProvider"
    assert pipeline.session.share in (1.0, None)
    plain, expected = _labels()
    assert plain.session.provider == "CPUExecutionProvider"
    assert (labels == expected).mean() > (0.9999 if precision == "fp32" else 0.99)
    # This wheel ignores invalid hints, so only the numbers prove that the precision is right.
    batch = np.random.default_rng(0).uniform(-1, 1, (1, 3, 96, 128)).astype(np.float32)
    rounding = np.abs(pipeline.session.run(batch) - plain.session.run(batch)).max()
    assert (rounding < 1e-3) == (precision == "fp32")


FAST = (
    "OpenVINOExecutionProvider" if catalog.read().cpu.gains_by_openvino else "CPUExecutionProvider"
)
"""What high-performance mode runs on this CPU."""


def test_high_performance_mode() -> None:
    pipeline, _ = _labels(mode="high-performance")
    assert pipeline.session.provider == FAST


def test_normal_mode_runs_openvino_for_sizes_that_recur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog.Cpu, "gains_by_openvino", True)
    pipeline = segrt.create_pipeline("semantic_segmentation")
    results = [r for r in pipeline.predict([SAMPLE] * 6) if isinstance(r, segrt.SegResult)]
    assert [r.precision for r in results] == ["fp32"] * 6
    first, *_, last = results
    assert first.provider == "CPUExecutionProvider"
    assert last.provider == "OpenVINOExecutionProvider"
    assert (first.labels == last.labels).mean() > 0.9999


def test_doctor() -> None:
    done = wheel.segrt("doctor")
    assert done.returncode == 0
    assert f"high-performance mode would run {FAST}" in done.stdout
    assert "problem" not in done.stdout
