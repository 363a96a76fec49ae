from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import machines as m
import pytest

from segrt import zoo
from segrt.backends.catalog import Catalog, Cpu
from segrt.backends.plan import (
    BACKENDS,
    HpiConfig,
    Plan,
    every,
    parse_choice,
    plans,
)
from segrt.errors import ConfigError, DeviceError
from segrt.graph_tail import Rounded
from segrt.types import DEVICE_KINDS, Device, Mode

FAST = Mode.HIGH_PERFORMANCE
MACHINES = {name: value for name, value in vars(m).items() if isinstance(value, Catalog)}


def _names(device: str | None, mode: Mode, machine: Catalog, **options: Any) -> list[str]:
    return [
        plan.name
        for plan in plans(Device.parse(device) if device else None, mode, machine, **options)
    ]


def _try(
    device: Device | None, mode: Mode, machine: Catalog, hpi: HpiConfig | None = None
) -> tuple[tuple[Plan, ...], str]:
    try:
        return plans(device, mode, machine, hpi_config=hpi), ""
    except DeviceError as error:
        return (), str(error)


@pytest.mark.parametrize(
    ("device", "machine", "normal", "fast"),
    [
        ("cpu", m.CPU_ONLY, "cpu fp32", "cpu fp32"),
        ("cpu", m.OPENVINO, "openvino fp32", "openvino fp32"),
        ("cpu", m.OPENVINO_AVX2, "cpu fp32", "cpu fp32"),
        # bf16 without AMX only if measured
        ("cpu", m.OPENVINO_BF16, "openvino fp32", "openvino fp32"),
        ("cpu", m.OPENVINO_ZEN, "openvino fp32", "openvino bf16"),
        ("cpu", m.NO_DEVICE, "cpu fp32", "cpu fp32"),
        ("cpu", m.OPENVINO_AMX, "openvino fp32", "openvino bf16"),
        ("cpu", m.GPU_T4, "openvino fp32", "openvino fp32"),
        ("gpu:0", m.GPU_T4, "cuda fp32", "tensorrt fp16"),
        ("gpu:1", m.GPU_H100, "cuda fp32", "tensorrt fp16"),
        ("gpu", m.GPU_P40, "cuda fp32", "tensorrt fp32"),
        ("gpu", m.CUDA_ONLY, "cuda fp32", "cuda tf32"),
        ("gpu", m.NO_TENSORRT, "cuda fp32", "cuda fp32"),  # a T4 has no TF32
        ("npu:0", m.ASCEND, "cann fp32", "cann fp16"),
        ("dcu:0", m.MIGRAPHX, "migraphx fp32", "migraphx fp16"),
        (None, m.CPU_ONLY, "cpu fp32", "cpu fp32"),
        (None, m.GPU_H100, "cuda fp32", "tensorrt fp16"),
        (None, m.NO_CUDNN, "openvino fp32", "openvino fp32"),
        (None, m.GPU_WHEEL_NO_GPU, "cpu fp32", "cpu fp32"),
        (None, m.ASCEND, "cpu fp32", "cpu fp32"),
    ],
)
def test_first_choice(device: str | None, machine: Catalog, normal: str, fast: str) -> None:
    assert _names(device, Mode.NORMAL, machine)[0] == normal
    assert _names(device, FAST, machine)[0] == fast


@pytest.mark.parametrize(
    ("device", "machine", "rounded", "normal", "fast"),
    [
        ("cpu", m.CPU_ONLY, "uint8", "cpu fp32", "cpu int8"),
        ("cpu", m.OPENVINO, "uint8", "cpu fp32", "cpu int8"),  # inexact without VNNI
        ("cpu", m.OPENVINO_VNNI, "uint8", "cpu fp32", "openvino int8"),
        ("cpu", m.OPENVINO_VNNI, "int8", "cpu fp32", "cpu int8"),  # inexact
        ("gpu", m.GPU_T4, "int8", "cuda fp32", "tensorrt int8"),
        ("gpu", m.GPU_T4, "uint8", "cuda fp32", "cuda fp32"),  # TensorRT has none
        ("gpu", m.CUDA_ONLY, "int8", "cuda fp32", "cuda tf32"),
    ],
)
def test_quantised_models_run_in_int8(
    device: str, machine: Catalog, rounded: Rounded, normal: str, fast: str
) -> None:
    where = Device.parse(device)
    (first, *_) = plans(where, Mode.NORMAL, machine, quantised=rounded)
    assert first.name == normal
    assert "high-performance mode runs int8" in first.note
    assert _names(device, FAST, machine, quantised=rounded)[0] == fast
    names = [plan.name for plan in every(where, machine, quantised=rounded)]
    assert names[0] == normal
    assert len(set(names)) == len(names)
    # OpenVINO and TensorRT would run any other plan in int8 too.
    assert not {"openvino fp32", "openvino bf16", "tensorrt fp16", "tensorrt fp32"} & {*names}
    for plan in every(where, machine):
        assert plan.precision != "int8"


def test_openvino_runs_int8_only_in_sessions_for_one_size() -> None:
    device, mode = Device.parse("cpu"), Mode.HIGH_PERFORMANCE
    plan = plans(device, mode, m.OPENVINO_VNNI, quantised="uint8")[0]
    assert (plan.name, plan.shapes) == ("openvino int8", "repeated")
    assert plan.first is not None
    assert plan.first.name == "cpu int8"
    hpi = HpiConfig(backend="openvino", precision="int8")
    (alone,) = plans(device, mode, m.OPENVINO_VNNI, hpi_config=hpi, quantised="uint8")
    assert (alone.first, alone.shapes) == (None, "fixed")


def test_options_of_int8() -> None:
    def options(device: str, machine: Catalog) -> dict[str, str]:
        rounded: Rounded = "uint8" if device == "cpu" else "int8"
        return dict(plans(Device.parse(device), FAST, machine, quantised=rounded)[0].options)

    def hint(machine: Catalog) -> str:
        settings = json.loads(options("cpu", machine)["load_config"])["CPU"]
        return str(settings["INFERENCE_PRECISION_HINT"])

    assert (hint(m.OPENVINO_VNNI), hint(m.OPENVINO_AMX)) == ("f32", "bf16")
    tensorrt = options("gpu", m.GPU_T4)
    assert (tensorrt["trt_int8_enable"], tensorrt["trt_fp16_enable"]) == ("1", "1")


@pytest.mark.parametrize(
    ("device", "machine", "quantised", "words"),
    [
        ("cpu", m.CPU_ONLY, "", "the model is not quantised: make its int8 form with segrt"),
        ("gpu", m.GPU_T4, "", "the model is not quantised"),
        ("gpu", m.GPU_T4, "uint8", "TensorRT takes signed values only: .* --device gpu"),
        ("gpu", m.CUDA_ONLY, "int8", "has no TensorrtExecutionProvider"),
    ],
)
def test_int8_needs_a_quantised_model(
    device: str, machine: Catalog, quantised: Rounded, words: str
) -> None:
    hpi = HpiConfig(precision="int8")
    with pytest.raises(DeviceError, match=words):
        plans(Device.parse(device), FAST, machine, hpi_config=hpi, quantised=quantised)
    hpi = HpiConfig(backend="openvino", precision="int8")
    with pytest.raises(DeviceError, match="inexact on CPUs without VNNI"):
        plans(Device.parse("cpu"), FAST, m.OPENVINO, hpi_config=hpi, quantised="uint8")
    with pytest.raises(DeviceError, match=r"inexact with signed values: .* --device cpu"):
        plans(Device.parse("cpu"), FAST, m.OPENVINO_VNNI, hpi_config=hpi, quantised="int8")


@pytest.mark.parametrize("backend", [None, "cpu"])
def test_the_cpu_provider_has_no_options(backend: str | None) -> None:
    hpi = HpiConfig(backend=backend, provider_options={"foo": "bar"})
    with pytest.raises(DeviceError, match=r"CPUExecutionProvider has no provider options \(foo\)"):
        plans(Device.parse("cpu"), FAST, m.CPU_ONLY, hpi_config=hpi)
    if backend is None:
        found = plans(Device.parse("cpu"), FAST, m.OPENVINO, hpi_config=hpi)
        assert {plan.backend.name for plan in found} == {"openvino"}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_requested_device_is_used_on_every_machine(machine: Catalog, mode: Mode) -> None:
    for kind, index in product(DEVICE_KINDS, (0, 1)):
        device = Device(kind, () if kind == "cpu" else (index,))
        found, error = _try(device, mode, machine)
        assert bool(found) != bool(error)
        assert not error or str(device) in error
        assert "\n" not in error
        for plan in found:
            assert (plan.device, plan.device_id) == (kind, index if kind != "cpu" else 0)
            assert plan.threads <= max(1, machine.cpu.cores)
            assert mode is FAST or (plan.precision, plan.threads <= 8) == ("fp32", True)
            provider = machine.provider(plan.provider)
            assert provider is not None
            assert not provider.problem
            assert plan.note == "" or (mode is FAST and plan.precision == "fp32")
    for backend in BACKENDS:
        found, error = _try(None, FAST, machine, HpiConfig(backend=backend))
        assert backend in error or {plan.name.split()[0] for plan in found} == {backend}


@pytest.mark.parametrize("machine", MACHINES.values())
def test_high_performance_mode_can_fall_back_to_the_normal_plan(machine: Catalog) -> None:
    if machine is m.NOTHING:
        return
    for device in (None, "cpu"):
        assert set(_names(device, Mode.NORMAL, machine)) <= set(_names(device, FAST, machine))
        assert (
            every(Device.parse(device) if device else None, machine)[0].name
            == _names(device, Mode.NORMAL, machine)[0]
        )


@pytest.mark.parametrize(
    ("device", "machine", "words"),
    [
        ("gpu:0", m.CPU_ONLY, ["no GPU", "device 'cpu' would run CPUExecutionProvider fp32"]),
        ("gpu:0", m.GPU_WHEEL_NO_GPU, ["no GPU", "libcuda.so.1"]),
        ("gpu:0", m.NO_CUDNN, ["libcudnn.so.9 missing", "pip install 'segrt[gpu]'"]),
        ("gpu:2", m.GPU_H100, ["no GPU 2, only 0, 1"]),
        (
            "gpu:0",
            Catalog(m.PLAIN, (m.T4,), m.CPU_ONLY.providers),
            ["has no CUDAExecutionProvider", "segrt[gpu]"],
        ),
        ("npu:0", m.OPENVINO, ["has no CANNExecutionProvider", "device 'cpu' would run"]),
        ("dcu:0", m.CPU_ONLY, ["MIGraphXExecutionProvider", "ROCMExecutionProvider"]),
        ("xpu:0", m.OPENVINO, ["Kunlun", "device 'cpu' would run OpenVINOExecutionProvider fp32"]),
        ("mlu:0", m.GPU_T4, ["Cambricon", "device 'gpu' would run TensorrtExecutionProvider fp16"]),
        ("gcu:0", m.CPU_ONLY, ["Enflame"]),
        ("iluvatar_gpu:0", m.CPU_ONLY, ["Iluvatar"]),
        ("metax_gpu:0", m.CPU_ONLY, ["MetaX"]),
        ("gpu:0,1", m.GPU_H100, ["'gpu:0,1' names several", "gpu:0"]),
        (None, m.NOTHING, ["nothing can run here"]),
    ],
)
def test_errors_contain_the_cause_and_an_alternative(
    device: str | None, machine: Catalog, words: list[str]
) -> None:
    with pytest.raises(DeviceError) as caught:
        _names(device, FAST, machine)
    for word in words:
        assert word in str(caught.value)


def test_only_the_default_device_falls_back_with_a_note() -> None:
    plan, _ = plans(None, Mode.NORMAL, m.NO_CUDNN)
    assert plan.device == "cpu"
    assert "GPU is not used" in plan.note
    assert "libcudnn.so.9" in plan.note
    assert plans(None, Mode.NORMAL, m.CPU_ONLY)[0].note == ""  # no GPU is expected there
    assert plans(None, Mode.NORMAL, m.GPU_T4)[0].note == ""


@pytest.mark.parametrize(
    ("device", "machine", "words"),
    [
        (
            None,
            m.CPU_ONLY,
            ["has no OpenVINOExecutionProvider: run  pip install 'segrt[openvino]'"],
        ),
        ("cpu", m.NO_DEVICE, ["takes no device", "run  pip install x"]),
        ("gpu:0", m.NO_TENSORRT, ["libnvinfer.so.10", "run  pip install 'segrt[gpu]'"]),
    ],
)
def test_high_performance_mode_in_plain_fp32_says_what_would_be_faster(
    device: str | None, machine: Catalog, words: list[str]
) -> None:
    where = Device.parse(device) if device else None
    plan = plans(where, FAST, machine)[0]
    assert plan.precision == "fp32"
    assert plan.note.startswith(f"high-performance mode runs {plan}, though it can be faster: ")
    assert "\n" not in plan.note
    for word in words:
        assert word in plan.note
    assert plans(where, Mode.NORMAL, machine)[0].note == ""
    fixed = HpiConfig(backend=plan.backend.name)
    assert plans(where, FAST, machine, hpi_config=fixed)[0].note == ""
    assert plans(where, FAST, machine, preselected=[plan.name])[0].note == ""


def test_nothing_is_said_to_be_faster_where_it_is_not() -> None:
    cpu = m.CPU_ONLY.providers
    for machine in (Catalog(m.PLAIN, (), cpu, has_openvino=False), Catalog(m.AVX2, (), cpu)):
        assert plans(None, FAST, machine)[0].note == ""
    for machine in (m.OPENVINO, m.OPENVINO_AVX2):
        assert plans(None, FAST, machine)[0].note == ""


def test_openvino_runs_fp32_without_avx512_if_it_is_chosen() -> None:
    for hpi in (HpiConfig(backend="openvino"), HpiConfig(backend="openvino", precision="fp32")):
        assert _names("cpu", FAST, m.OPENVINO_AVX2, hpi_config=hpi) == ["openvino fp32"]
    tuned = HpiConfig(backend="openvino", precision="fp32", threads=2)
    assert _names("cpu", FAST, m.OPENVINO_AVX2, tuned=tuned) == ["openvino fp32", "cpu fp32"]
    assert "openvino fp32" in [plan.name for plan in every(None, m.OPENVINO_AVX2)]


def test_normal_mode_really_computes_in_fp32() -> None:
    (cuda,) = plans(Device.parse("gpu:0"), Mode.NORMAL, m.GPU_H100)
    assert dict(cuda.options)["use_tf32"] == "0"
    openvino, cpu = plans(Device.parse("cpu"), Mode.NORMAL, m.OPENVINO_AMX)
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "8"}
    config = {"CPU": hints | {"ENABLE_CPU_PINNING": "NO"}}  # of 16 cores
    assert json.loads(dict(openvino.options)["load_config"]) == config
    assert (cpu.provider, cpu.threads) == ("CPUExecutionProvider", 8)
    # OpenVINO compiles for a while, so the CPU provider runs sizes that do not recur.
    assert openvino.first == cpu
    assert cpu.first is None
    fast = plans(Device.parse("cpu"), FAST, m.OPENVINO_AMX)
    assert [plan.first for plan in fast] == [None] * 3
    fast = plans(Device.parse("cpu"), FAST, m.OPENVINO_AMX)
    assert [plan.threads for plan in fast] == [16, 16, 16]


@pytest.mark.parametrize("cores", [0, 1, 2, 8, 9, 96])
def test_threads_never_exceed_the_usable_cores(cores: int) -> None:
    machine = Catalog(Cpu("x", cores), (), m.OPENVINO.providers)
    for mode in Mode:
        for plan in plans(None, mode, machine):
            assert plan.threads == max(1, min(cores, 8) if mode is Mode.NORMAL else cores)


def test_openvino_options_for_precision_and_threads() -> None:
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")):
        hpi = HpiConfig(backend="openvino", precision=precision, threads=3)
        for cores, pinning in ((3, {}), (4, {"ENABLE_CPU_PINNING": "NO"})):
            cpu = replace(m.OPENVINO_BF16.cpu, cores=cores)
            (plan,) = plans(None, FAST, replace(m.OPENVINO_BF16, cpu=cpu), hpi_config=hpi)
            expected = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": "3"} | pinning
            assert json.loads(dict(plan.options)["load_config"]) == {"CPU": expected}


def test_tensorrt_engine_cache_is_separate_per_precision() -> None:
    found = plans(Device.parse("gpu:1"), FAST, m.GPU_H100, cache="/cache/model")
    half = dict(found[0].options)
    assert (half["trt_fp16_enable"], half["device_id"]) == ("1", "1")
    assert half["trt_engine_cache_path"] == half["trt_timing_cache_path"] == "/cache/model-fp16"
    single = next(plan for plan in found if plan.name == "tensorrt tf32")
    assert dict(single.options)["trt_engine_cache_path"] == "/cache/model-tf32"
    assert "trt_fp16_enable" not in dict(single.options)
    assert "trt_engine_cache_path" not in dict(plans(None, FAST, m.GPU_H100)[0].options)


def test_model_with_its_own_plans() -> None:
    mine = ["openvino fp32", "tensorrt tf32", "cuda fp32"]
    assert _names("gpu", FAST, m.GPU_H100, preselected=mine) == ["tensorrt tf32", "cuda fp32"]
    assert _names("gpu", FAST, m.GPU_T4, preselected=mine) == ["cuda fp32"]
    assert _names("cpu", FAST, m.CPU_ONLY, preselected=mine) == ["cpu fp32"]
    assert _names("gpu", Mode.NORMAL, m.GPU_H100, preselected=mine) == ["cuda fp32"]


def test_measured_plan_comes_first_in_high_performance_mode_only() -> None:
    tuned = HpiConfig(backend="openvino", precision="bf16", threads=2)
    (first, *rest) = plans(Device.parse("cpu"), FAST, m.OPENVINO_BF16, tuned=tuned)
    assert (first.name, first.threads) == ("openvino bf16", 2)
    assert [plan.threads for plan in rest] == [4, 4]
    normal = ["openvino fp32", "cpu fp32"]
    assert _names("cpu", Mode.NORMAL, m.OPENVINO_BF16, tuned=tuned) == normal
    assert (
        _names(
            "cpu",
            FAST,
            m.OPENVINO_BF16,
            tuned=HpiConfig(backend="cpu", precision="fp32", threads=1),
        )[0]
        == "cpu fp32"
    )
    assert (
        _names("gpu", FAST, m.GPU_T4, tuned=HpiConfig(backend="cuda", precision="fp32", threads=1))[
            0
        ]
        == "cuda fp32"
    )
    # OpenVINO was removed after tuning.
    assert _names("cpu", FAST, m.CPU_ONLY, tuned=tuned) == ["cpu fp32"]
    only = HpiConfig(backend="openvino", precision="fp32")
    assert _names("cpu", FAST, m.OPENVINO_BF16, tuned=tuned, hpi_config=only) == ["openvino fp32"]


def test_hpi_config_takes_precedence() -> None:
    options = (("use_tf32", "1"), ("gpu_mem_limit", "1000"))
    hpi = HpiConfig(backend="cuda", precision="fp32", threads=1, provider_options=options)
    (plan,) = plans(None, FAST, m.GPU_T4, hpi_config=hpi)
    assert (plan.name, plan.threads) == ("cuda fp32", 1)
    assert dict(plan.options) == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
    } | dict(options)
    assert _names(None, FAST, m.OPENVINO_BF16, hpi_config=HpiConfig(precision="bf16")) == [
        "openvino bf16"
    ]
    assert _names("gpu", FAST, m.GPU_H100, hpi_config=HpiConfig(precision="tf32")) == [
        "tensorrt tf32",
        "cuda tf32",
    ]


def test_cuda_runs_fp16_only_if_asked_for_or_measured() -> None:
    assert "cuda fp16" not in _names("gpu", FAST, m.CUDA_ONLY)
    asked = HpiConfig(backend="cuda", precision="fp16")
    (plan,) = plans(None, FAST, m.GPU_T4, hpi_config=asked)
    assert (plan.name, plan.uses_half_graph) == ("cuda fp16", True)
    assert _names("gpu", FAST, m.GPU_T4, hpi_config=HpiConfig(backend="cuda")) == [
        "cuda fp32",
        "cuda fp16",
    ]
    assert _names("gpu", FAST, m.CUDA_ONLY, tuned=asked)[:2] == ["cuda fp16", "cuda tf32"]
    assert not any(plan.uses_half_graph for plan in plans(None, FAST, m.GPU_T4))
    with pytest.raises(DeviceError, match=r"fp16 needs compute capability 7\.0, this GPU has 6\.1"):
        plans(None, FAST, m.GPU_P40, hpi_config=asked)
    with pytest.raises(DeviceError, match="requires the package onnx: run  pip install onnx"):
        plans(None, FAST, m.NO_ONNX, hpi_config=asked)


@pytest.mark.parametrize(
    ("option", "value", "shapes"),
    [
        ("enable_cuda_graph", "1", "fixed"),
        ("enable_cuda_graph", True, "fixed"),
        ("enable_cuda_graph", "True", "fixed"),
        ("enable_cuda_graph", "0", "dynamic"),
        ("prefer_nhwc", "1", "dynamic"),
    ],
)
def test_cuda_graph_is_for_one_size(option: str, value: object, shapes: str) -> None:
    hpi = HpiConfig.parse({"backend": "cuda", "provider_options": {option: value}})
    plan = plans(None, FAST, m.CUDA_ONLY, hpi_config=hpi)[0]
    assert (plan.shapes, plan.captures) == (shapes, shapes == "fixed")
    assert option in dict(plan.options)


@pytest.mark.parametrize(
    ("device", "hpi", "words"),
    [
        (None, HpiConfig(backend="tensorrt"), "tensorrt can't run here: there is no GPU"),
        (
            None,
            HpiConfig(backend="openvino", precision="bf16"),
            "this CPU has no bf16 instructions",
        ),
        (None, HpiConfig(precision="fp16"), "fp16 can't run here"),
        ("gpu:0", HpiConfig(backend="openvino"), "openvino does not run on device 'gpu:0'"),
        ("cpu", HpiConfig(backend="cuda"), "cuda does not run on device 'cpu'"),
    ],
)
def test_requested_backend_runs_or_raises(device: str | None, hpi: HpiConfig, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        _names(device, FAST, m.OPENVINO, hpi_config=hpi)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"backnd": "cpu"},
            r"hpi_config: backnd: there is no such key \(did you mean 'backend'\?\)",
        ),
        ({"backend": "openvin"}, "did you mean 'openvino'"),
        ({"backend": "cpu", "precision": "bf16"}, "cpu has no bf16: use int8 or fp32"),
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"threads": 0}, "threads: .*, not 0"),
        ({"threads": True}, "threads: .*, not True"),
        ({"provider_options": [1]}, "provider_options"),
        ({"provider_options": {"a": None}}, "provider_options"),
        ([1], "is not a mapping"),
        ("{", "hpi_config:2: did not find"),
        ("fast", "is not a mapping"),
        ({1: 2}, "1: there is no such key"),
        ({"backend": ["cpu"]}, "unknown backend"),
    ],
)
def test_invalid_hpi_config(given: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HpiConfig.parse(given)


def test_hpi_config_as_text_and_mapping() -> None:
    expected = HpiConfig(
        backend="openvino",
        precision="fp32",
        threads=2,
        provider_options=(("a", "1"), ("b", '{"c": 1}')),
    )
    given = {
        "backend": "openvino",
        "precision": "fp32",
        "threads": 2,
        "provider_options": {"a": True, "b": {"c": 1}},
    }
    assert (
        HpiConfig.parse(given)
        == HpiConfig.parse(json.dumps(given))
        == HpiConfig.parse(expected)
        == expected
    )
    assert HpiConfig.parse(None) == HpiConfig.parse("") == HpiConfig.parse({}) == HpiConfig()


def test_every_returns_all_runnable_plans_normal_first() -> None:
    assert [plan.name for plan in every(None, m.OPENVINO_BF16)] == [
        "openvino fp32",
        "openvino bf16",
        "cpu fp32",
    ]
    names = ["cuda fp32", "tensorrt fp16", "tensorrt bf16", "tensorrt tf32", "cuda tf32"]
    names.append("cuda fp16")
    assert [plan.name for plan in every(Device.parse("gpu:1"), m.GPU_H100)] == names
    two = [
        plan.threads
        for plan in every(Device.parse("cpu"), m.OPENVINO_AMX)
        if plan.name == "openvino fp32"
    ]
    assert two == [8, 16]


def test_plan_names_are_parsed() -> None:
    assert parse_choice("openvino fp32") == (BACKENDS["openvino"], "fp32")
    with pytest.raises(ValueError, match="did you mean 'openvino fp32'"):
        parse_choice("openvino f32")


def test_plan_names_of_the_model_zoo_are_valid() -> None:
    for spec in zoo.load().models:
        for name in spec.plans:
            parse_choice(name)
