"""Export of a trained model, compared with Paddle Inference. Requires the export extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

import segrt_export
from segrt import second_graph
from segrt.errors import ExportError
from segrt.metadata import KEY, ModelMeta
from segrt_export.cli import main
from segrt_export.convert import failure_reason
from segrt_export.exporter import export
from segrt_export.passes import adaptive_pool, check_names
from segrt_export.program import PaddleModel, attribute, load_program, operators

needs_paddle = pytest.mark.skipif(
    not (find_spec("paddle") and find_spec("paddle2onnx")),
    reason="needs the export extra: pip install 'segrt[export]'",
)


@pytest.fixture(scope="module")
def exported(paddle_lite: Path, camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not find_spec("paddle"):
        pytest.skip("needs the export extra: pip install 'segrt[export]'")
    out = tmp_path_factory.mktemp("exported")
    arguments = [str(paddle_lite), "-o", str(out), "--verify", str(camvid / "images")]
    done = subprocess.run(
        [sys.executable, "-m", "segrt_export", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def _run(*arguments: object) -> int:
    """Run segrt-export in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segrt-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
    assert isinstance(done.value.code, int)
    return done.value.code


@needs_paddle
@pytest.mark.parametrize("graph", ["parity", "parity_float32"])
def test_labels_agree_with_paddle_inference(exported: Path, graph: str) -> None:
    report = json.loads((exported / "PP-LiteSeg-T_camvid.parity.json").read_text())
    cases = {case["case"]: case for case in report[graph]["cases"]}
    assert len(cases) == 44
    assert report[graph]["agreement"] >= 0.9999
    photos = [case for name, case in cases.items() if name.endswith(".png")]
    assert len(photos) == 40
    assert sum(c["agreement"] for c in photos) / 40 >= 0.9999
    for name, shape in (("333x517", [333, 517]), ("97x211", [97, 211]), ("720x960", [720, 960])):
        (case,) = (c for n, c in cases.items() if n.endswith(name))
        assert case["shape"][2:] == shape
        assert case["agreement"] >= 0.9999
    assert cases["a batch of 3"]["shape"][0] == 3
    assert cases["a batch of 3"]["agreement"] >= 0.9999
    assert max(c["max_logit_diff"] for c in cases.values()) < 1e-2


@needs_paddle
def test_the_file_contains_all_metadata_that_the_runtime_needs(exported: Path) -> None:
    model = onnx.load(str(exported / "PP-LiteSeg-T_camvid.onnx"))
    (text,) = (p.value for p in model.metadata_props if p.key == KEY)
    meta = ModelMeta.loads(text, file="x")
    assert meta.class_names[-1] == "Bicyclist"
    assert meta.upsample is not None
    assert meta.upsample.stride == 8
    assert not meta.upsample.align_corners
    assert set(meta.tools) >= {"paddle2onnx", "paddlepaddle"}
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, "H", "W"]
    assert {n.domain for n in model.graph.node} == {""}
    assert {"Resize", "ArgMax"} & {
        n.op_type for n in model.graph.node if n.output[0] == "logits"
    } == set()


@needs_paddle
def test_an_abort_in_the_converter_is_an_error_message(paddle_lite: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(paddle_lite, broken, copy_function=shutil.copyfile)
    program = load_program(broken / "inference.json")
    # An operator that the converter does not support.
    next(op for op in operators(program) if op["#"] == "1.relu")["#"] = "1.selu"
    (broken / "inference.json").write_text(json.dumps(program))
    with pytest.raises(ExportError, match="paddle2onnx could not convert"):
        export(PaddleModel.open(broken), tmp_path / "out" / "m.onnx")
    assert not (tmp_path / "out").exists()


@needs_paddle
def test_a_wrong_conversion_is_not_written(
    paddle_lite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = adaptive_pool.restore

    def spoil(model: onnx.ModelProto, bins: dict[str, tuple[int, int]]) -> int:
        for node in model.graph.node:
            if node.op_type == "Sigmoid":
                node.op_type = "Tanh"
        return restore(model, bins)

    monkeypatch.setattr(adaptive_pool, "restore", spoil)
    with pytest.raises(ExportError, match="nothing was written"):
        export(PaddleModel.open(paddle_lite), tmp_path / "out" / "m.onnx")
    assert not (tmp_path / "out").exists()


def test_the_failure_reason_is_the_line_with_the_error() -> None:
    output = "start\n\x1b[31m[ERROR] Adaptive only support static input shape\x1b[0m\nlast\n"
    assert failure_reason(output) == "[ERROR] Adaptive only support static input shape"
    assert failure_reason("") == "no output"


def test_one_failure_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    assert _run(tmp_path / "a", tmp_path / "b", "ResNet", "-o", tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert "a does not exist" in errors
    assert "b holds no Paddle inference model" in errors
    assert "unknown model" in errors


def test_an_unknown_pass_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = ["--without", "fast", "--without", "conv_before_resize"]
    assert _run("PP-LiteSeg-T", "-o", tmp_path, *passes) == 2
    errors = capsys.readouterr().err
    assert "no pass is named fast" in errors
    assert "conv_before_resize" in errors
    with pytest.raises(ExportError, match="no pass is named fast"):
        check_names(["fast"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "specify one or more models"),
        (["PP-LiteSeg-T", "--all"], "not both"),
        (["PP-LiteSeg-T", "--untrained"], "requires an output folder"),
        (["PP-LiteSeg-T", "--opset", "13"], "opset"),
        (["PP-LiteSeg-T", "--weights", "int8"], "is for --format ort and mnn"),
        (["PP-LiteSeg-T", "--verify", "gone"], "contains no photo"),
        (["PP-LiteSeg-T", "--fast"], "--fast"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_help_and_version_need_neither_onnx_nor_paddle() -> None:
    code = (
        "import sys\n"
        "for name in ('onnx', 'onnxslim', 'paddle', 'paddle2onnx'): sys.modules[name] = None\n"
        "from segrt_export.cli import main\n"
        "main()"
    )
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named() -> None:
    code = "import sys\nsys.modules['onnx'] = None\nimport segrt_export\nsegrt_export.export"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: this needs onnx, which is not installed: run  pip" in done.stderr


@needs_paddle
@pytest.mark.parametrize("name", ["conv_before_resize", "winograd"])
def test_a_pass_can_be_left_out(paddle_lite: Path, tmp_path: Path, name: str) -> None:
    source = PaddleModel.open(paddle_lite)
    with_it = export(source, tmp_path / "a.onnx", sizes=[])
    without = export(source, tmp_path / "b.onnx", sizes=[], without=[name])
    assert set(with_it.report["passes"]) - set(without.report["passes"]) == {name}
    assert list(with_it.report["multiply_adds"]) == ["stock", "winograd"]
    assert second_graph.read(with_it.file) is not None
    assert (second_graph.read(without.file) is None) == (name == "winograd")


@needs_paddle
def test_a_folder_is_exported_once(
    paddle_lite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = segrt_export.export_folder(paddle_lite, tmp_path)
    assert file.parent.parent == tmp_path
    assert file.with_suffix(".parity.json").is_file()
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    assert segrt_export.export_folder(paddle_lite, tmp_path) == file


def test_attribute_reads_the_stored_value() -> None:
    assert attribute({"A": [{"N": "axis", "AT": {"#": "0.a_i32", "D": 1}}]}, "axis")["D"] == 1
