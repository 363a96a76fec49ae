"""onnxruntime-gpu and the OpenVINO plugin, without CUDA and a GPU: `make test-gpu-wheel`."""

from __future__ import annotations

import wheel

wheel.only("onnxruntime-gpu")

from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

import segrt
from segrt.backends import catalog

SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
CATALOG = catalog.read()
OPENVINO = CATALOG.provider("OpenVINOExecutionProvider")
# The plugin ignores CPUs of other makers than Intel; doctor reports that.
assert OPENVINO is not None
GAINS = CATALOG.cpu.gains_by_openvino and not OPENVINO.problem
FAST = "OpenVINOExecutionProvider" if GAINS else "CPUExecutionProvider"
"""What both modes run here for sizes that recur."""

no_gpu = pytest.mark.skipif(bool(CATALOG.gpus), reason="there is a GPU")
no_cuda = pytest.mark.skipif(
    "libcublas.so.13" not in getattr(CATALOG.provider("CUDAExecutionProvider"), "missing", ()),
    reason="CUDA is installed",
)


@no_cuda
def test_doctor_reports_each_missing_library() -> None:
    done = wheel.segrt("doctor")
    assert done.returncode == 0
    for library in ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"):
        assert (
            f"CUDAExecutionProvider: {library} is missing; run  pip install 'segrt[gpu]'"
            in done.stdout
        )
    for library in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        assert (
            f"TensorrtExecutionProvider: {library} is missing; run  pip install 'segrt[gpu]'"
            in done.stdout
        )
    for mode in ("normal", "high-performance"):
        assert f"\n{mode} mode would run {FAST} " in done.stdout


@no_gpu
@pytest.mark.parametrize("mode", ["normal", "high-performance"])
def test_requested_gpu_raises_immediately(mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    begin = perf_counter()
    with pytest.raises(segrt.DeviceError, match="'gpu:0' can't run here"):
        segrt.create_pipeline("semantic_segmentation", device="gpu:0", mode=mode)
    assert perf_counter() - begin < 5  # no model was loaded, nor a library searched for long
    assert capfd.readouterr().err == ""


@no_gpu
def test_cpu_and_openvino_run(caplog: pytest.LogCaptureFixture) -> None:
    labels = []
    for mode, provider in (("normal", "CPUExecutionProvider"), ("high-performance", FAST)):
        pipeline = segrt.create_pipeline("semantic_segmentation", mode=mode)
        assert "the GPU is not used" in caplog.text
        (result,) = pipeline.predict(SAMPLE)
        assert isinstance(result, segrt.SegResult)
        assert result.provider == provider
        assert pipeline.session.share == 1
        labels.append(result.labels)
    assert np.mean(labels[0] == labels[1]) > 0.9999
    for backend in ("cuda", "tensorrt"):
        with pytest.raises(segrt.DeviceError, match=f"{backend} can't run here"):
            segrt.create_pipeline(
                "semantic_segmentation", mode="high-performance", hpi_config={"backend": backend}
            )
