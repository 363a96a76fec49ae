from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import write_colour_model
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import segrt_export
from segrt.errors import ConfigError, ExportError, MissingExtraError
from segrt.metadata import KEY, ModelMeta, Upsample
from segrt_export import cli, device
from segrt_export.convert import run_child
from segrt_export.device import Weights, to_device
from segrt_export.passes.half_weights import SMALLEST
from segrt_export.passes.int8_weights import int8_weights

needs_mnn = pytest.mark.skipif(
    importlib.util.find_spec("MNN") is None, reason="needs MNN: pip install 'segrt[edge]'"
)
META = ModelMeta(name="blocks", class_names=("a", "b", "c"), upsample=Upsample(stride=4))
WIDTH = 192
assert WIDTH**2 >= SMALLEST


@pytest.fixture(autouse=True)
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "AWKWARD_SIZES", ((129, 143),))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(path)
    return path


def _write(path: Path, *, loud: bool = False, shape: tuple[Any, ...] = ("N", 3, "H", "W")) -> Path:
    """Write a network with one large convolution; with a `loud` input that is always zero, int8
    leaves no digits to the others."""
    random = np.random.default_rng(1)
    first = random.standard_normal((WIDTH, 3, 4, 4)).astype(np.float32)
    middle = random.standard_normal((WIDTH, WIDTH, 1, 1)).astype(np.float32)
    if loud:
        first[0], middle[:, 0] = 0, 1e4
    last = random.standard_normal((3, WIDTH, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "middle"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3, None, None])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("first", first), ("middle", middle), ("last", last))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {KEY: META.model_dump_json(), "segrt.float32": "unused"})
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(("weights", "bytes_each"), [("float16", 2), ("int8", 1)])
def test_an_ort_file_gives_the_labels_of_the_model(
    tmp_path: Path, photo: Path, weights: Weights, bytes_each: int
) -> None:
    target = tmp_path / "new" / "blocks.ort"
    source = _write(tmp_path / "blocks.onnx")
    # Random weights are no trained network: int8 changes more labels than the gate allows.
    if weights == "int8":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device, "THRESHOLD", 0.9)
            done = to_device(source, target, weights=weights, images=[photo])
    else:
        done = to_device(source, target, weights=weights, images=[photo])
    names = {f"blocks.ort{suffix}" for suffix in ("", ".config", ".parity.json")}
    assert {file.name for file in target.parent.iterdir()} == names
    assert json.loads(done.report_file.read_text()) == done.report
    assert done.report["parity"]["worst"] >= (0.9 if weights == "int8" else 0.999)
    assert [case["case"] for case in done.report["parity"]["cases"]] == [
        "photo.png",
        "photo.png at 129x143",
        "a batch of 3",
    ]
    own = WIDTH**2 * bytes_each + 4 * 51 * WIDTH
    assert own < target.stat().st_size < own + 12_000
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {KEY: META.model_dump_json()}
    operators = (target.parent / "blocks.ort.config").read_text()
    assert str(tmp_path) not in operators
    assert "Conv" in operators
    assert ("DequantizeLinear" in operators) == (weights == "int8")


def test_another_size_than_the_fixed_one_is_refused(tmp_path: Path) -> None:
    fixed = _write(tmp_path / "fixed.onnx", shape=("N", 3, 32, 40))
    with pytest.raises(ConfigError, match=r"blocks takes any x 32 x 40 .* not 1 x 48 x 64"):
        to_device(fixed, tmp_path / "other.ort", size=(48, 64))


def test_a_file_with_other_labels_is_not_written(tmp_path: Path, photo: Path) -> None:
    source, target = _write(tmp_path / "blocks.onnx", loud=True), tmp_path / "out" / "blocks.ort"
    with pytest.raises(
        ExportError,
        match=r"blocks: [\d,]+ of 3,072 labels of photo.png \([\d.]+%\) in \.ort are not those of"
        r" blocks.onnx, more than 0.1%; nothing was written",
    ):
        to_device(source, target, weights="int8", images=[photo])
    assert not target.parent.exists()


def test_int8_weights_have_a_scale_for_each_output() -> None:
    random = np.random.default_rng(2)
    loudness = np.array([1e-3, 1, 1e3, 0], np.float32)
    many = SMALLEST // 4
    layers = [
        ("Conv", {}, loudness[:, None, None, None] * random.standard_normal((4, many, 1, 1))),
        ("ConvTranspose", {}, loudness[:, None, None] * random.standard_normal((many, 4, 1, 1))),
        ("MatMul", {}, loudness * random.standard_normal((many, 4))),
        ("Gemm", {}, loudness * random.standard_normal((many, 4))),
        ("Gemm", {"transB": 1}, loudness[:, None] * random.standard_normal((4, many))),
        ("Conv", {}, random.standard_normal((4, 4, 1, 1))),  # too small
        ("Add", {}, random.standard_normal((SMALLEST,))),  # no weights
    ]
    weights = {f"w{i}": value.astype(np.float32) for i, (_, _, value) in enumerate(layers)}
    graph = helper.make_graph(
        [
            helper.make_node(kind, ["x", f"w{i}"], [f"y{i}"], **attributes)
            for i, (kind, attributes, _) in enumerate(layers)
        ],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert int8_weights(model) == 5
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node[:5]:
        values, scale = (stored[name] for name in node.input)
        axis = node.attribute[0].i
        assert values.dtype == np.int8
        assert scale.shape == (4,)
        wide = scale.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        error = np.abs(values * wide - weights[node.output[0]])
        assert (error <= wide * 0.501).all()
    assert {"w5", "w6"} <= stored.keys()


@needs_mnn
@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_an_mnn_file_gives_the_labels_of_the_model(
    tmp_path: Path, photo: Path, weights: Weights
) -> None:
    target = tmp_path / "blocks.mnn"
    done = to_device(_write(tmp_path / "blocks.onnx"), target, weights=weights, images=[photo])
    assert (tmp_path / "blocks.mnn.json").read_text() == META.model_dump_json()
    assert done.report["parity"]["worst"] >= 0.999
    assert len(done.report["parity"]["cases"]) == 3
    large = WIDTH**2 * (4 if weights == "float32" else 2)
    assert target.stat().st_size < large + 4 * 51 * WIDTH + 6_000


@needs_mnn
def test_mnn_gives_labels_of_a_network_that_ends_in_them(tmp_path: Path, photo: Path) -> None:
    source = write_colour_model(tmp_path / "colours.onnx", stride=1, labels=True)
    done = to_device(source, tmp_path / "colours.mnn", size=(48, 64), images=[photo])
    assert done.report["parity"]["agreement"] == 1


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "MNN" else found(name)
    )
    with pytest.raises(MissingExtraError, match=r"needs MNN, .* run  pip install 'segrt\[edge\]'"):
        to_device(_write(tmp_path / "blocks.onnx"), tmp_path / "blocks.mnn")


def test_an_abort_of_a_converter_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aborting.py").write_text("import os\nprint('out of luck')\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExportError, match=r"MNN could not convert .*: out of luck"):
        run_child("aborting", "MNN", "convert", tmp_path / "blocks.onnx")


def test_a_converter_that_writes_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "run_child", lambda *arguments: None)
    with pytest.raises(ExportError, match=r"could not convert .*: it wrote no file"):
        to_device(_write(tmp_path / "blocks.onnx"), tmp_path / "blocks.ort")


@pytest.mark.parametrize("target", ["blocks.onnx", "blocks", "blocks.ORT.tmp"])
def test_other_suffixes_are_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(ConfigError, match=r"does not end in \.ort or \.mnn"):
        to_device(_write(tmp_path / "source.onnx"), tmp_path / target)


def test_models_from_elsewhere_are_refused(tmp_path: Path) -> None:
    source = write_colour_model(tmp_path / "colours.onnx", meta=False)
    with pytest.raises(ExportError, match="does not come from segrt-export"):
        to_device(source, tmp_path / "colours.ort")


def _command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segrt-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_the_command_converts_exported_files(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = _write(tmp_path / "model.onnx"), tmp_path / "out"
    options = "--format", "ort", "--size", "32x40", "--verify", photo, "-o", out
    assert _command(source, *options) == 0
    session = ort.InferenceSession(str(out / "blocks.ort"))
    assert session.get_inputs()[0].shape == [1, 3, 32, 40]
    assert session.get_outputs()[0].shape == [1, 3, 8, 10]
    assert not (out / "blocks.onnx").exists()
    cells = [line.split("│")[1] for line in capsys.readouterr().err.splitlines() if "│" in line]
    assert "blocks.ort" in "".join(cells).replace(" ", "")  # names are broken
    assert _command(source, source, *options) == 1
    assert "would overwrite what is made of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--format ort", "--format ort requires an output folder"),
        ("--format mnn -o out --int8 photos", "--int8 and --format mnn are two steps"),
        ("--format ort -o out --size 0x5", "--size '0x5' is not valid: give height and width"),
        ("--format ort -o out --size 512", "--size '512' is not valid"),
        ("-o out --size 32x40", "--size is for --format ort, mnn and deepness"),
        ("-o out --weights int8", "--weights int8 is for --format ort and mnn"),
        ("--format deepness -o out --weights int8", "--weights int8 is for --format ort and mnn"),
        ("--format deepness -o out --size 32x40", "the tiles of Deepness are square"),
        ("-o out --resolution 5", "--resolution is for --format deepness"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command("PP-LiteSeg-T_camvid", *options.split()) == 2
    assert reason in capsys.readouterr().err


def test_the_names_are_exported() -> None:
    assert segrt_export.to_device is to_device
    assert segrt_export.DeviceFile is device.DeviceFile
