"""Every GPU plan on a real GPU: `make gpu-test`. Skipped without one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import segrt
from segrt.backends import catalog
from segrt.backends.plan import Plan, every, plans
from segrt.backends.session import Session
from segrt.errors import DeviceError
from segrt.pipeline import Pipeline
from segrt.result import SegResult
from segrt.types import Device, Mode

MODELS = Path(segrt.__file__).with_name("models")
BUNDLED = MODELS / "PP-LiteSeg-T_camvid" / "model.onnx"
CUDA_OPTIONS = ({"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"})
AGREEMENT = {"fp32": 0.9999, "tf32": 0.995, "fp16": 0.995, "bf16": 0.98}

try:
    OFFERED = every(Device("gpu", (0,)), catalog.read())
except DeviceError as error:
    pytest.skip(f"needs an NVIDIA GPU: {error}", allow_module_level=True)

PLANS = [
    *OFFERED,
    *(
        replace(plan, options=tuple((dict(plan.options) | options).items()))
        for plan in OFFERED
        if plan.backend.name == "cuda"
        for options in CUDA_OPTIONS
    ),
]
each_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name} {plan.options}")


def _labels(pipeline: Pipeline, size: int) -> npt.NDArray[np.int32]:
    (result,) = pipeline.predict(MODELS / "sample.png", size)
    assert isinstance(result, SegResult)
    assert result.provider == pipeline.session.plan.provider
    return result.labels


@each_plan
def test_labels_are_those_of_the_cpu(plan: Plan) -> None:
    pipeline = Pipeline(Session(BUNDLED, plan))
    reference = Pipeline(Session(BUNDLED, plans(Device("cpu"), Mode.NORMAL, catalog.read())[0]))
    for size in (512, 384, 512):  # a CUDA graph is replayed for the third
        same = np.mean(_labels(pipeline, size) == _labels(reference, size))
        assert same >= AGREEMENT[plan.precision]


@each_plan
def test_two_pipelines_at_once(plan: Plan) -> None:
    pipelines = [Pipeline(Session(BUNDLED, plan)) for _ in range(2)]
    expected = _labels(pipelines[0], 384)
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(_labels, pipelines * 10, [384] * 20):
            assert np.mean(got == expected) > 0.999
