from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import segrt
from segrt.backends.plan import HpiConfig
from segrt.errors import ConfigError
from segrt.paddle_settings import parse_engine_config, parse_hpi, parse_pp_option
from segrt.types import Mode


def _about_settings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages, but for that of machines without OpenVINO."""
    return [text for text in caplog.messages if not text.startswith("high-performance mode runs")]


class Option:
    """Like PaddleX's PaddlePredictorOption: it raises Exception for options that are not set."""

    def __init__(self, **options: object) -> None:
        self._cfg = options

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._cfg:
            raise Exception(f"The key ({name}) is not found")
        return self._cfg[name]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ({"backend": "openvino"}, {"backend": "openvino"}),
        ({"backend": "onnxruntime"}, {"backend": "onnxruntime"}),
        ({"backend": "om"}, {"backend": "cann"}),
        ({"backend": "paddle"}, {}),
        ("{'backend': 'tensorrt', 'auto_config': True}", {"backend": "tensorrt"}),
        (
            {"backend": "tensorrt", "backend_config": {"precision": "fp16"}},
            {"backend": "tensorrt", "precision": "fp16"},
        ),
        (
            {"backend": "openvino", "backend_config": {"cpu_num_threads": 10}},
            {"backend": "openvino", "threads": 10},
        ),
        (
            {"backend": "paddle", "backend_config": {"run_mode": "trt_fp16"}},
            {"backend": "tensorrt", "precision": "fp16"},
        ),
        ({"backend_config": {"cpu_num_threads": 10}, "threads": 2}, {"threads": 2}),
    ],
)
def test_hpi_config(value: object, expected: dict[str, Any]) -> None:
    assert parse_hpi(value).hpi == HpiConfig(**expected)


def test_hpi_config_object_of_paddlex() -> None:
    class Theirs(BaseModel):
        device_type: str = "gpu"
        device_id: int = 1
        backend: str = "tensorrt"
        hpi_info: dict[str, Any] | None = None

    running = parse_hpi(Theirs())
    assert (running.hpi, running.device) == (HpiConfig(backend="tensorrt"), "gpu:1")
    assert parse_hpi(HpiConfig(threads=3)).hpi.threads == 3


@pytest.mark.parametrize(
    ("run_mode", "mode", "expected"),
    [
        ("paddle", None, {}),
        ("paddle_fp32", None, {}),
        ("mkldnn", None, {}),
        ("mkldnn_bf16", Mode.HIGH_PERFORMANCE, {"precision": "bf16"}),
        ("paddle_fp16", Mode.HIGH_PERFORMANCE, {"precision": "fp16"}),
        ("trt_fp32", Mode.HIGH_PERFORMANCE, {"backend": "tensorrt", "precision": "fp32"}),
        ("trt_fp16", Mode.HIGH_PERFORMANCE, {"backend": "tensorrt", "precision": "fp16"}),
    ],
)
def test_run_modes(run_mode: str, mode: Mode | None, expected: dict[str, Any]) -> None:
    options = {"run_mode": run_mode, "device_type": "gpu", "device_id": 2, "cpu_threads": 4}
    for given in (options, Option(**options, trt_use_dynamic_shapes=True, delete_pass=[])):
        running = parse_pp_option(given)
        assert (running.mode, running.device) == (mode, "gpu:2")
        assert running.hpi == HpiConfig(threads=4, **expected)
        assert not running.ignored


def test_settings_without_effect_are_named_once(
    colour_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = {"x": [[1, 3, 32, 32], [1, 3, 64, 64], [1, 3, 96, 96]]}
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"pp_option": {"enable_cinn": True, "delete_pass": [], "trt_dynamic_shapes": shapes}},
            "delete_pass, enable_cinn (segrt does not use Paddle Inference); trt_dynamic_shapes "
            "(TensorRT engines are built for each image size)",
        ),
        (
            {"use_hpip": True, "pp_option": {"cpu_threads": 2}},
            "pp_option (hpi_config or engine_config applies)",
        ),
        (
            {"use_hpip": True, "hpi_config": {"backend": "paddle", "auto_paddle2onnx": False}},
            "auto_paddle2onnx (segrt runs ONNX models only); backend (segrt does not use Paddle "
            "Inference; it chooses another backend)",
        ),
        (
            {
                "use_hpip": True,
                "hpi_config": {
                    "backend": "onnxruntime",
                    "backend_config": {"dynamic_shapes": shapes, "use_dynamic_shapes": True},
                    "hpi_info": {},
                },
            },
            "hpi_info, use_dynamic_shapes, dynamic_shapes (TensorRT engines are built for each "
            "image size)",
        ),
        (
            {
                "engine": "onnxruntime",
                "engine_config": {"providers": ["CPUExecutionProvider"], "execution_mode": "x"},
            },
            "execution_mode, providers (segrt makes this choice for ONNX Runtime)",
        ),
    ]
    for arguments, expected in cases:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "segrt"):
            segrt.create_pipeline(model_dir=colour_model, device="cpu", **arguments)
        assert _about_settings(caplog) == [f"PaddleX settings without effect: {expected}"]


@pytest.mark.parametrize(
    ("arguments", "mode", "threads"),
    [
        ({"pp_option": {"run_mode": "mkldnn", "cpu_threads": 1}}, "normal", 1),
        ({"pp_option": Option(run_mode="paddle", cpu_threads=1)}, "normal", 1),
        ({"pp_option": {"device_type": "cpu", "device_id": None}}, "normal", None),
        ({"engine": "paddle"}, "normal", None),
        ({"engine": "paddle_static", "engine_config": {"cpu_threads": 1}}, "normal", 1),
        ({"engine": "onnxruntime", "engine_config": {"intra_op_num_threads": 1}}, "normal", 1),
        ({"engine": "hpi"}, "high-performance", None),
        ({"engine": "hpi", "hpi_config": {"threads": 1}}, "high-performance", 1),
        (
            {"engine": "hpi", "engine_config": {"backend_config": {"cpu_num_threads": 1}}},
            "high-performance",
            1,
        ),
        ({"engine": "hpi", "engine_config": {"paddle_static": {}}}, "high-performance", None),
        ({"use_hpip": False}, "normal", None),
        ({"use_hpip": None, "hpi_config": None}, "normal", None),
        ({"use_hpip": True, "engine": "paddle"}, "normal", None),  # as in PaddleX
    ],
)
def test_arguments_of_create_pipeline(
    colour_model: Path,
    caplog: pytest.LogCaptureFixture,
    arguments: dict[str, Any],
    mode: str,
    threads: int | None,
) -> None:
    pipeline = segrt.create_pipeline(
        "semantic_segmentation", model_dir=colour_model, device="cpu", **arguments
    )
    assert pipeline.mode.value == mode
    assert threads in (None, pipeline.session.plan.threads)
    assert not _about_settings(caplog)


def test_arguments_win_over_the_yaml(colour_model: Path) -> None:
    config = {
        "use_hpip": True,
        "hpi_config": {"backend": "onnxruntime", "threads": 1},
        "SubModules": {
            "SemanticSegmentation": {"use_hpip": True, "hpi_config": {"threads": 1}},
        },
    }

    def create(**arguments: Any) -> segrt.Pipeline:
        return segrt.create_pipeline(
            config=config, model_dir=colour_model, device="cpu", **arguments
        )

    assert create().session.plan.threads == 1
    assert create(use_hpip=False).mode is Mode.NORMAL
    assert create(engine="paddle").mode is Mode.NORMAL
    assert create(mode="normal").mode is Mode.NORMAL
    assert create(hpi_config={"threads": 2}).session.plan.threads == 2
    assert create(hpi_config='{"threads": 2}').session.plan.threads == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "hpi", "mode": "normal"}, "engine='hpi' and mode='normal' disagree"),
        ({"engine": "flexible"}, "engine 'flexible' is not valid for semantic segmentation: use"),
        ({"engine_config": "fast"}, "engine_config 'fast' is not valid"),
        ({"engine_config": {"threads": 1}}, "engine_config: threads: there is no such key"),
        ({"pp_option": {"runmode": "x"}}, r"pp_option: runmode: .* mean 'run_mode'\?"),
        ({"pp_option": {"cpu_threads": 0}}, "pp_option: cpu_threads"),
        ({"pp_option": 3}, "pp_option is not valid: give a PaddlePredictorOption, or a mapping"),
        ({"pp_option": {"run_mode": "trt_fp16"}, "mode": "normal"}, "leave out the mode"),
        ({"use_hpip": True, "hpi_config": [1]}, r"hpi_config \[1\] is not a mapping"),
    ],
)
def test_invalid_arguments(colour_model: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        segrt.create_pipeline(model_dir=colour_model, device="cpu", **arguments)


def test_a_run_mode_runs_where_it_can_or_raises(colour_model: Path) -> None:
    with pytest.raises(segrt.DeviceError, match="tensorrt fp16"):
        segrt.create_pipeline(
            model_dir=colour_model, device="cpu", pp_option={"run_mode": "trt_fp16"}
        )


@pytest.mark.parametrize("word", ["topk", "llm_name", "chat_bot_config"])
def test_unknown_arguments_are_one_clear_type_error(word: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^create_pipeline\(\) has no argument '{word}'.*: use pip"
    ):
        segrt.create_pipeline("semantic_segmentation", **{word: 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"did you mean 'use_hpip'\?"):
        segrt.create_pipeline(usehpip=True)  # type: ignore[arg-type]


def test_engine_config_buckets() -> None:
    config = {"hpi": {"backend": "openvino"}, "paddle_static": {"cpu_threads": 3}}
    assert parse_engine_config("hpi", config).hpi == HpiConfig(backend="openvino")
    assert parse_engine_config("paddle", config).hpi == HpiConfig(threads=3)
    assert parse_engine_config("onnxruntime", config).hpi == HpiConfig()
    assert parse_engine_config("paddle", {}).hpi == HpiConfig()
    with pytest.raises(ConfigError, match="engine_config: hpi"):
        parse_engine_config("paddle", {"hpi": {}, "cpu_threads": 3})
