from __future__ import annotations

import base64
import logging
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import machines as m
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from conftest import write_colour_model
from graphs import Net

import segrt
from segrt import second_graph
from segrt.backends import catalog, native
from segrt.backends.bound import Captured
from segrt.backends.plan import BACKENDS, HpiConfig, Plan, plans
from segrt.backends.session import OWN_SESSIONS, Session, start
from segrt.description import Given
from segrt.errors import DeviceError, ModelError, TooLargeError
from segrt.types import Device, Mode

BUNDLED = Path(segrt.__file__).with_name("models") / "PP-LiteSeg-T_camvid" / "model.onnx"
CPU = Plan(replace(BACKENDS["cpu"], shapes="dynamic"), "fp32", 2)


def _openvino(precision: str = "fp32", shapes: str = "repeated", threads: int = 2) -> Plan:
    hpi = HpiConfig(backend="openvino", precision=precision, threads=threads)
    try:
        (plan,) = plans(None, Mode.HIGH_PERFORMANCE, catalog.read(), hpi_config=hpi)
    except DeviceError as error:
        pytest.skip(str(error))
    return _shaped(plan, shapes)


def _shaped(plan: Plan, shapes: str) -> Plan:
    return replace(plan, backend=replace(plan.backend, shapes=shapes))  # type: ignore[arg-type]


def _batch(height: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)


def test_session_reports_provider_and_precision(colour_model: Path) -> None:
    one = Session(colour_model, CPU)
    assert (one.provider, one.precision, one.plan) == ("CPUExecutionProvider", "fp32", CPU)
    assert one.share in (1.0, None)


def test_only_int8_plans_compute_in_int8(tmp_path: Path) -> None:
    net = Net()
    scale, zero = net.const(0.01), net.const(128, np.uint8)
    image = net.add("QuantizeLinear", "x", scale, zero)
    image = net.add("DequantizeLinear", image, scale, zero)
    weight = net.const(net.random.integers(-64, 64, (4, 3, 1, 1)), np.int8)
    weight = net.add("DequantizeLinear", weight, scale, net.const(0, np.int8))
    last = net.add("QuantizeLinear", net.add("Conv", image, weight), scale, zero)
    onnx.save(net.model(net.add("DequantizeLinear", last, scale, zero)), tmp_path / "m.onnx")
    given = Given(class_names=("a", "b", "c", "d"))
    sessions = [
        Session(tmp_path / "m.onnx", replace(CPU, precision=p), given) for p in ("int8", "fp32")
    ]
    assert [session.precision for session in sessions] == ["int8", "fp32"]
    operators = []
    for session in sessions:
        options = native._options(catalog.onnxruntime(), session.plan)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        catalog.onnxruntime().InferenceSession(str(tmp_path / "m.onnx"), options)
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        operators.append({node.op_type for node in graph.node})
    assert "QLinearConv" in operators[0]
    assert "QLinearConv" not in operators[1]
    batch = _batch(8, 9)
    first, second = (session.run(batch) for session in sessions)
    assert np.abs(first - second).max() <= 0.011  # one step


def _offset(path: Path, offset: float) -> Path:
    """A network that adds a number."""
    net = Net()
    net.add("Add", "x", net.const(offset), output="y")
    onnx.save(net.model("y"), path)
    return path


RGB = Given(class_names=("r", "g", "b"))


def test_a_session_stays_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for number, folder in enumerate((here, there)):
        folder.mkdir()
        _offset(folder / "m.onnx", number)
    monkeypatch.chdir(here)
    one = Session(Path("m.onnx"), _shaped(CPU, "repeated"), RGB)
    monkeypatch.chdir(there)
    batch = _batch(8, 9)
    for _ in range(8):
        np.testing.assert_array_equal(one.run(batch), batch)
    assert one.file == here / "m.onnx"
    assert batch.shape in one._own


@pytest.mark.parametrize("change", ["replaced", "removed"])
@pytest.mark.parametrize("shapes", ["repeated", "fixed"])
def test_a_file_that_changes_is_not_loaded_again(tmp_path: Path, change: str, shapes: str) -> None:
    file = _offset(tmp_path / "m.onnx", 0)
    one, batch = Session(file, _shaped(CPU, shapes), RGB), _batch(8, 9)
    np.testing.assert_array_equal(one.run(batch), batch)
    file.unlink()
    if change == "replaced":
        _offset(file, 1)
    for _ in range(8):
        np.testing.assert_array_equal(one.run(batch), batch)
    if shapes == "fixed":
        with pytest.raises(ModelError, match="changed or removed after it was loaded: create"):
            one.run(_batch(9, 9))


def test_height_and_width_may_share_a_name(tmp_path: Path) -> None:
    file = _offset(tmp_path / "m.onnx", 0)
    model = onnx.load(file)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    onnx.save(model, file)
    one = Session(file, _shaped(CPU, "repeated"), RGB)
    for batch in (_batch(8, 12), _batch(8, 8)):
        for _ in range(8):
            np.testing.assert_array_equal(one.run(batch), batch)
    assert list(one._own) == [(1, 3, 8, 8)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_runs_the_whole_bundled_model(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, reference = Session(BUNDLED, _openvino(precision)), Session(BUNDLED, CPU)
    assert (one.provider, one.precision, one.share) == ("OpenVINOExecutionProvider", precision, 1.0)
    batch = _batch(96, 128)
    got, expected = one.run(batch), reference.run(batch)
    # FP32 differs only by rounding, which also proves that the hint is used: OpenVINO may default
    # to bf16.
    assert np.abs(got - expected).max() < (1e-3 if precision == "fp32" else 1)
    if precision == "bf16":
        assert np.abs(got - expected).max() > 1e-3
    assert list(tmp_path.iterdir()) == []


def test_provider_that_does_not_start_is_an_error(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CpuSession:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(catalog.onnxruntime(), "InferenceSession", lambda *_, **__: CpuSession())
    with pytest.raises(
        DeviceError, match="CUDAExecutionProvider was asked for, but ONNX Runtime runs CPU"
    ):
        Session(colour_model, replace(CPU, backend=BACKENDS["cuda"]))


def test_provider_without_nodes_is_an_error(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "share", lambda got, provider: 0.0)
    with pytest.raises(DeviceError, match="takes no part"):
        Session(colour_model, CPU)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_unknown_provider_is_an_error(colour_model: Path) -> None:
    none_such = replace(BACKENDS["cuda"], provider="NoneSuchExecutionProvider")
    with pytest.raises(DeviceError, match="NoneSuchExecutionProvider"):
        Session(colour_model, replace(CPU, backend=none_such))


def test_damaged_file_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="can't be loaded"):
        Session(tmp_path / "bad.onnx", CPU)


def test_missing_gpu_raises_immediately() -> None:
    if catalog.read().gpus:
        pytest.skip("there is a GPU")
    begin = perf_counter()
    with pytest.raises(DeviceError, match="'gpu:0' can't run here"):
        start(BUNDLED, device=Device.parse("gpu:0"))
    assert perf_counter() - begin < 1


def test_fallback_to_the_next_plan_is_logged(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Session.__init__

    def init(self: Session, file: Path, plan: Plan, given: Given) -> None:
        if plan.provider != "CPUExecutionProvider":
            raise DeviceError(f"{plan.provider} is out of order")
        real(self, file, plan, given)

    monkeypatch.setattr(Session, "__init__", init)
    monkeypatch.setattr(catalog, "read", lambda **options: m.OPENVINO)
    with caplog.at_level(logging.WARNING):
        one = start(colour_model, mode=Mode.HIGH_PERFORMANCE, device=Device("cpu"))
    assert one.provider == "CPUExecutionProvider"
    assert (
        "OpenVINOExecutionProvider is out of order; trying CPUExecutionProvider fp32" in caplog.text
    )
    with pytest.raises(DeviceError, match="out of order"):
        start(colour_model, mode=Mode.HIGH_PERFORMANCE, hpi_config=HpiConfig(backend="openvino"))


def test_default_device_falls_back_with_one_log_line(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(catalog, "read", lambda **options: m.NO_CUDNN)
    with caplog.at_level(logging.WARNING):
        assert start(colour_model).provider == "CPUExecutionProvider"
    (record,) = caplog.records
    assert "the GPU is not used" in record.message
    assert "libcudnn.so.9" in record.message


class Builds:
    """Records the input shape of each ONNX Runtime session that is built, and its provider."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...] | None] = []
        self.backends: list[str] = []
        real = native.load

        def load(
            file: Path, plan: Plan, fixed: Mapping[str, int] = native.NOT_FIXED, **options: Any
        ) -> Any:
            sizes = {"N": 1, "C": 3, **fixed}
            self.shapes.append(tuple(sizes[dim] for dim in "NCHW") if fixed else None)
            self.backends.append(plan.backend.name)
            return real(file, plan, fixed, **options)

        monkeypatch.setattr(native, "load", load)


SLOW = replace(CPU, backend=replace(BACKENDS["cpu"], name="slow"), first=CPU)
"""A plan that is compiled only for sizes that recur."""


def test_a_plan_that_is_slow_to_compile_runs_the_sizes_that_recur(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Builds(monkeypatch)
    one, plain = Session(colour_model, SLOW), Session(colour_model, CPU)
    assert built.backends == ["cpu", "cpu"]
    for size in [(8, 8)] * 4 + [(16, 8)]:
        np.testing.assert_array_equal(one.run(_batch(*size)), plain.run(_batch(*size)))
    assert built.backends[2:] == ["slow", "cpu"]
    assert built.shapes[2:] == [(1, 3, 8, 8), None]
    one.warm_up((24, 24))
    assert built.backends[4:] == ["slow"]


def test_a_model_for_one_size_runs_on_the_slow_plan_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net()
    model = net.model(net.conv("x", 3, 2))
    for axis, size in ((0, 1), (2, 8), (3, 8)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    built = Builds(monkeypatch)
    one = Session(tmp_path / "m.onnx", SLOW)
    for _ in range(5):
        one.run(_batch(8, 8))
    assert built.backends == ["cpu", "slow"]


def test_if_the_slow_plan_fails_the_first_one_goes_on(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Session(colour_model, SLOW)
    real = native.load

    def load(
        file: Path, plan: Plan, fixed: Mapping[str, int] = native.NOT_FIXED, **options: Any
    ) -> Any:
        if plan.backend.name == "slow":
            raise DeviceError("out of order")
        return real(file, plan, fixed, **options)

    monkeypatch.setattr(native, "load", load)
    for _ in range(5):
        one.run(_batch(8, 8))
    (message,) = caplog.messages
    assert message == f"out of order; {CPU} runs instead"
    assert one.plan is CPU


def test_each_thread_sees_the_provider_of_its_own_run(colour_model: Path) -> None:
    other = replace(SLOW, backend=replace(SLOW.backend, provider="CPUExecutionProvider"))
    one = Session(colour_model, other)
    assert one.provider == "CPUExecutionProvider"
    one.run(_batch(8, 8))
    one._ran.provider = "here"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: one.provider).result() == "CPUExecutionProvider"
    assert one.provider == "here"


def test_repeated_sizes_get_specialised_sessions(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Builds(monkeypatch)
    one = Session(colour_model, _shaped(CPU, "repeated"))
    plain = Session(colour_model, CPU)
    built.shapes.clear()
    for height in (8, 16) * 6:
        np.testing.assert_array_equal(one.run(_batch(height, 8)), plain.run(_batch(height, 8)))
    assert built.shapes == [(1, 3, 8, 8), (1, 3, 16, 8)]
    one.warm_up((32, 32))
    assert built.shapes[2:] == [(1, 3, 32, 32)]


def test_general_session_is_dropped_if_all_sizes_are_equal(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Builds(monkeypatch)
    one = Session(colour_model, _shaped(CPU, "repeated"))
    for _ in range(6):
        one.run(_batch(8, 8))
    assert built.shapes == [None, (1, 3, 8, 8)]
    assert one._any is None
    for _ in range(2):
        assert one.run(_batch(16, 8)).shape[2] == one.run(_batch(8, 8)).shape[2] * 2
    assert built.shapes[2:] == [None]


@pytest.fixture
def two_graphs(tmp_path: Path) -> Path:
    """A model whose second graph has the other sign."""
    first, second = Net(), Net()
    model, negative = first.model(first.add("Identity", "x")), second.model(second.add("Neg", "x"))
    text = base64.b64encode(negative.SerializeToString()).decode()
    onnx.helper.set_model_props(model, {second_graph.KEY: text})
    file = tmp_path / "two.onnx"
    onnx.save(model, str(file))
    return file


def test_fp32_plans_on_the_cpu_run_the_second_graph(two_graphs: Path) -> None:
    x = _batch(8, 8)
    session = Session(two_graphs, CPU)
    session.warm_up((8, 8))
    np.testing.assert_array_equal(session.run(x), -x)
    other = Session(two_graphs, replace(CPU, precision="bf16"))
    other.warm_up((8, 8))
    np.testing.assert_array_equal(other.run(x), x)


def test_few_images_do_not_wait_for_the_second_graph(two_graphs: Path) -> None:
    session = Session(two_graphs, CPU)
    batches = [_batch(8, 8 + width) for width in range(5)]
    signs = [float((session.run(x) / x).max()) for x in batches]
    assert signs == [1, 1, 1, -1, -1]
    copy = Session(two_graphs, CPU)
    assert [float((copy.run(x) / x).max()) for x in batches[:1] * 5] == [1, 1, 1, -1, -1]


def test_a_damaged_second_graph_is_an_error_at_once(two_graphs: Path) -> None:
    model = onnx.load(two_graphs)
    model.metadata_props[0].value = "?"
    onnx.save(model, two_graphs)
    with pytest.raises(ModelError, match=r"its second graph \(segrt.float32\) is damaged"):
        Session(two_graphs, CPU)


def test_many_sizes_build_few_sessions(colour_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Builds(monkeypatch)
    one = Session(colour_model, _shaped(CPU, "repeated"))
    order = np.random.default_rng(0).integers(1, 51, 500)
    for height in order:
        one.run(_batch(4 * int(height), 8))
    assert len(built.shapes) < 5  # including the general session


def test_sessions_for_fixed_sizes_are_bounded_lru(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Builds(monkeypatch)
    one = Session(colour_model, _shaped(CPU, "fixed"))
    for height in (4, 8, 12, 16, 4, 20):
        one.run(_batch(height, 8))
    assert len(one._own) == OWN_SESSIONS
    built.shapes.clear()
    one.run(_batch(4, 8))
    one.run(_batch(8, 8))
    assert built.shapes == [(1, 3, 8, 8)]


def test_at_rest_only_the_session_for_all_sizes_is_kept(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Session(colour_model, _shaped(CPU, "repeated"))
    for height in (4, 8) * 8:
        expected = one.run(_batch(height, 8))
    assert len(one._own) == 2
    one.rest()
    assert not one._own
    np.testing.assert_array_equal(one.run(_batch(8, 8)), expected)
    same = Session(colour_model, _shaped(CPU, "repeated"))
    for _ in range(8):
        same.run(_batch(8, 8))
    built = Builds(monkeypatch)
    same.rest()  # all images have the same size: its session stays
    same.run(_batch(8, 8))
    assert not built.shapes


def test_memory_that_runs_out_is_not_the_model_s_fault(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Session(colour_model, CPU)

    def run(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 106463232")

    monkeypatch.setattr(one, "_session", lambda _: (SimpleNamespace(run=run), ""))
    with pytest.raises(TooLargeError, match="not enough memory to run an input of 1x3x8x8"):
        one.run(_batch(8, 8))


def test_bound_tensors_do_not_change_results(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Session(colour_model, CPU)
    expected = one.run(_batch(16, 16))
    monkeypatch.setattr(Session, "_gpu_memory", "cpu")
    one.plan = replace(CPU, backend=replace(CPU.backend, device="gpu"))
    np.testing.assert_array_equal(one.run(_batch(16, 16)), expected)


def test_captured_sessions_are_for_one_size_each(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Session(colour_model, CPU)
    monkeypatch.setattr(Session, "_gpu_memory", "cpu")
    gpu = replace(CPU.backend, device="gpu")
    one = Session(colour_model, replace(CPU, backend=gpu, options=(("enable_cuda_graph", "1"),)))
    for seed, height in enumerate((8, 16, 8, 16, 8)):
        batch = _batch(height, 8, seed)
        np.testing.assert_array_equal(one.run(batch), expected.run(batch))
    assert one._any is None
    assert [type(session) for session in one._own.values()] == [Captured, Captured]


def test_half_graph_runs_where_the_plan_says_so() -> None:
    half = replace(CPU, backend=replace(CPU.backend, name="cuda"), precision="fp16")
    one, reference = Session(BUNDLED, half), Session(BUNDLED, CPU)
    assert (one.precision, one.plan.name) == ("fp16", "cuda fp16")
    assert one.description.values() == reference.description.values()
    batch = _batch(96, 128)
    got, expected = one.run(batch), reference.run(batch)
    assert got.dtype == np.float32
    assert 1e-4 < np.abs(got - expected).max() < 0.01 * np.abs(expected).max()


def test_model_that_cannot_be_converted_is_no_reason_to_call_it_damaged(tmp_path: Path) -> None:
    half = replace(CPU, backend=replace(CPU.backend, name="cuda"), precision="fp16")
    file = tmp_path / "m.onnx"
    net = Net()
    net.add("NoSuchOperator", "x")
    onnx.save(net.model(net.conv("x", 3, 2)), file)
    with pytest.raises(DeviceError, match="can't start with"):
        Session(file, half)


def test_tensorrt_engine_cache_is_separate_per_size(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort, given = catalog.onnxruntime(), []
    real = ort.InferenceSession

    def fake(file: str, options: Any, providers: list[Any], **rest: Any) -> Any:
        given.append(providers)
        return real(file, options, providers=["CPUExecutionProvider"])

    folder = colour_model.parent / "engines"
    options = (("trt_engine_cache_path", str(folder)), ("trt_timing_cache_path", str(folder)))
    plan = replace(CPU, backend=BACKENDS["tensorrt"], options=options)
    monkeypatch.setattr(ort, "InferenceSession", fake)
    monkeypatch.setattr(native, "_check", lambda *_: None)
    native.load(colour_model, plan, {"N": 1, "H": 8, "W": 16})
    (tensorrt, cuda) = given[0]
    assert tensorrt[1]["trt_engine_cache_path"] == f"{folder}/1x8x16"
    assert tensorrt[1]["trt_timing_cache_path"] == str(folder)
    assert (folder / "1x8x16").is_dir()
    assert cuda[0] == "CUDAExecutionProvider"


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_eight_threads_return_the_same_as_one(backend: str) -> None:
    one = Session(BUNDLED, CPU if backend == "cpu" else _openvino(shapes="dynamic"))
    one.warm_up((32, 64))  # so that all use the same graph
    batches = [_batch(32 * (1 + index % 3), 64, seed=index) for index in range(12)]
    expected = [one.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for index, got in enumerate(pool.map(one.run, batches * 4)):
            np.testing.assert_array_equal(got, expected[index % len(batches)])


GROWTH = {"cpu": 10, "openvino": 30}
"""MiB that a session may grow from image 200 to 600; the images have 50 sizes up to 80x160."""


def _resident() -> float:
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_memory_does_not_grow_with_images_of_many_sizes(backend: str) -> None:
    one = Session(BUNDLED, replace(CPU, threads=1) if backend == "cpu" else _openvino(threads=1))
    rng = np.random.default_rng(0)
    sizes = rng.permutation(
        [(16 * (1 + index // 10), 16 * (1 + index % 10)) for index in range(50)]
    )
    before = 0.0
    for index in range(600):
        one.run(np.zeros((1, 3, *sizes[index % 50]), np.float32))
        if index == 199:
            before = _resident()
    assert _resident() - before < GROWTH[backend]


@pytest.mark.parametrize(
    ("labels", "output", "words"),
    [
        (False, np.zeros((1, 3, 4), np.float32), "float32 of shape (1, 3, 4), not logits of shape"),
        (False, np.zeros((2, 3, 4, 4), np.float32), "not logits of shape (1, C, h, w)"),
        (False, np.zeros((1, 5, 4, 4), np.float32), "logits of 5 classes, not of 3"),
        (False, np.zeros((1, 0, 4, 4), np.float32), "is this a segmentation model"),
        (True, np.full((1, 4, 4), 997, np.int64), "labels from 997 to 997, not from 0 to 2"),
        (True, np.full((1, 4, 4), -1, np.int32), "labels from -1 to -1"),
        (True, np.zeros((1, 2, 4, 4), np.int64), "not labels of shape (1, H, W)"),
    ],
)
def test_outputs_that_would_give_wrong_labels_are_refused(
    tmp_path: Path, labels: bool, output: npt.NDArray[Any], words: str
) -> None:
    one = Session(write_colour_model(tmp_path / "m.onnx", labels=labels), CPU)

    class Wrong:
        def run(self, names: list[str], inputs: dict[str, Any]) -> list[npt.NDArray[Any]]:
            return [output]

    one._any = Wrong()
    with pytest.raises(ModelError, match=re.escape(words)):
        one.run(_batch(4, 4))


def test_an_id_of_two_billion_builds_no_names(tmp_path: Path) -> None:
    file = write_colour_model(tmp_path / "m.onnx", labels=True, meta=False)
    one = Session(file, CPU)
    one._any = type("Wrong", (), {"run": lambda *_: [np.full((1, 4, 4), 2**31 - 1)]})()
    with pytest.raises(ModelError, match="2147483647"):
        one.run(_batch(4, 4))
