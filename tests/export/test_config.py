"""Configurations of PaddleX and PaddleSeg, and the names of exports."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import segrt_export
from segrt.errors import ExportError, ModelError
from segrt_export import cached, cli
from segrt_export.config import read_config
from segrt_export.program import PaddleModel
from segrt_export.source import distinct_target, open_source


def _write(folder: Path, **texts: str) -> Path:
    """A folder with a program and configurations: `inference_yml` becomes `inference.yml`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inference.json").write_text("{}")
    (folder / "inference.pdiparams").write_bytes(b"weights")
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


RESIZE = "Deploy: {transforms: [{type: Resize, target_size: [640, 480]}, {type: Normalize}]}"


def test_deploy_yaml_has_the_defaults_of_paddleseg(tmp_path: Path) -> None:
    text = "Deploy: {output_op: softmax, transforms: [{type: Resize}, {type: Normalize, mean: 0}]}"
    config = read_config(_write(tmp_path, deploy_yaml=text), "inference")
    assert config.transforms == (
        {
            "type": "Resize",
            "target_size": [512, 512],
            "keep_ratio": False,
            "size_divisor": None,
            "interp": "LINEAR",
        },
        {"type": "Normalize", "mean": 0},
    )
    assert (config.resize_in, config.output_op) == ("float32", "softmax")


def test_inference_yml_keeps_the_defaults_of_paddlex(tmp_path: Path) -> None:
    config = read_config(_write(tmp_path, inference_yml=RESIZE), "inference")
    assert config.transforms == (
        {"type": "Resize", "target_size": [640, 480]},
        {"type": "Normalize"},
    )
    assert config.resize_in == "uint8"


def test_two_configurations_that_agree_complete_each_other(tmp_path: Path) -> None:
    paddlex = (
        "Deploy: {transforms: [{type: Resize, target_size: 512, keep_ratio: false,"
        " size_divisor: null}, {type: Normalize}]}\nPostProcess: {label_list: [a, b]}"
    )
    paddleseg = (
        "Deploy: {output_op: none, transforms: [{type: Resize},"
        " {type: Normalize, mean: [0.5, 0.5, 0.5]}]}"
    )
    config = read_config(
        _write(tmp_path, inference_yml=paddlex, deploy_yaml=paddleseg), "inference"
    )
    assert (config.class_names, config.output_op) == (("a", "b"), "none")
    assert [file.name for file in config.files] == ["inference.yml", "deploy.yaml"]


@pytest.mark.parametrize(
    ("paddlex", "paddleseg", "what"),
    [
        (RESIZE, RESIZE, "transforms"),  # their defaults differ
        ("Deploy: {transforms: []}", "Deploy: {transforms: [{type: Normalize}]}", "transforms"),
        ("PostProcess: {label_list: [a]}", "PostProcess: {label_list: [b]}", "class names"),
        ("Deploy: {output_op: none}", "Deploy: {output_op: argmax}", "output op"),
    ],
)
def test_a_contradiction_names_both_files(
    tmp_path: Path, paddlex: str, paddleseg: str, what: str
) -> None:
    folder = _write(tmp_path, inference_yml=paddlex, deploy_yaml=paddleseg)
    message = rf"inference\.yml and deploy\.yaml state different {what}"
    with pytest.raises(ModelError, match=message):
        PaddleModel.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Deploy: []", "Deploy"),
        ("Deploy: {transforms: Normalize}", "Deploy.transforms"),
        ("Deploy: {transforms: [{mean: 1}]}", "requires the transform None"),
        ("Deploy: {transforms: [Normalize]}", "Deploy.transforms.0"),
        ("Deploy: {output_op: sigmoid}", "Deploy.output_op"),
        ("PostProcess: {label_list: {0: a}}", "PostProcess.label_list"),
        ("PostProcess: {label_list: [[a]]}", "PostProcess.label_list"),
        ("PostProcess: {label_list: [yes, no]}", "put it in quotes"),
        ("PostProcess: 3", "PostProcess"),
        ("- 1", "is not a mapping"),
        ("a: [", r"deploy\.yaml:2"),
    ],
)
def test_an_invalid_configuration_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        PaddleModel.open(_write(tmp_path, deploy_yaml=text))
    assert "deploy.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_assumed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "segrt")
    assert PaddleModel.open(_write(tmp_path / "a")).transforms == ({"type": "Normalize"},)
    PaddleModel.open(_write(tmp_path / "b", inference_yml="PostProcess: {label_list: [x]}"))
    first, second = caplog.messages
    assert "no inference.yml or deploy.yaml; assuming RGB images normalised with mean 0.5" in first
    assert "inference.yml lists no transforms; assuming" in second
    # An empty list is a statement.
    caplog.clear()
    empty = PaddleModel.open(_write(tmp_path / "c", inference_yml="Deploy: {transforms: []}"))
    assert (empty.transforms, caplog.messages) == ((), [])


def test_deploy_yaml_names_the_program(tmp_path: Path) -> None:
    _write(tmp_path, deploy_yaml="Deploy: {model: model.pdmodel}")
    for name in ("model.pdmodel", "model.pdiparams", "other.pdmodel", "other.pdiparams"):
        (tmp_path / name).write_text("")
    assert PaddleModel.open(tmp_path).program.name == "model.pdmodel"
    (tmp_path / "deploy.yaml").unlink()
    assert PaddleModel.open(tmp_path).program.name == "inference.json"
    (tmp_path / "inference.json").unlink()
    with pytest.raises(ExportError, match=r"several Paddle models \(model.pdmodel, other.pdmodel"):
        PaddleModel.open(tmp_path)


def test_model_name_replaces_the_folder_that_paddlex_names(tmp_path: Path) -> None:
    text = "Global: {model_name: PP-LiteSeg-T}\nDeploy: {transforms: []}"
    assert PaddleModel.open(_write(tmp_path / "inference", inference_yml=text)).name == (
        "PP-LiteSeg-T"
    )
    assert PaddleModel.open(_write(tmp_path / "roads", inference_yml=text)).name == "roads"


def test_exports_of_one_call_never_share_a_file(tmp_path: Path) -> None:
    text = "Global: {model_name: PP-LiteSeg-T}\nDeploy: {transforms: []}"
    folders = [
        _write(tmp_path / name / "best_model" / "inference", inference_yml=text)
        for name in ("roads", "cracks", "cracks/output")
    ]
    taken: dict[str, str] = {}
    files = []
    for folder in folders[:2]:
        source, file = open_source(str(folder), tmp_path, tmp_path / "out")
        model, file = distinct_target(str(folder), source, file, taken)
        files.append((model.name, file.name))
    assert files == [("PP-LiteSeg-T", "PP-LiteSeg-T.onnx"), ("cracks", "cracks.onnx")]
    source, file = open_source(str(folders[2]), tmp_path, tmp_path / "out")
    with pytest.raises(ExportError, match=r"would overwrite .*PP-LiteSeg-T.onnx, the export of"):
        distinct_target(str(folders[2]), source, file, taken)


def test_any_exception_is_one_line_and_stops_no_other_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = iter([RuntimeError("two\nlines"), KeyError("side"), ExportError("known")])

    def fail(*_: object, **__: object) -> object:
        raise next(errors)

    monkeypatch.setattr(cli, "open_source", fail)
    names = ("a", "b", "c")
    assert cli.run(*names, models=cli.ModelOptions(out=tmp_path)) == 1
    shown = capsys.readouterr().err
    for line in ("a: RuntimeError: two lines", "b: KeyError: 'side'", "c: known"):
        assert f"segrt-export: {line}\n" in shown


def test_an_interruption_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "open_source", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cli.run("a", models=cli.ModelOptions(out=tmp_path))


def test_a_changed_configuration_or_converter_is_exported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(_: PaddleModel, file: Path) -> None:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"onnx")

    monkeypatch.setattr(segrt_export, "export", export, raising=False)
    monkeypatch.setattr(cached, "require", lambda _: None)
    monkeypatch.setattr(cached, "version", lambda _: "2.1.0")
    folder = _write(tmp_path / "m", inference_yml="Deploy: {transforms: []}")

    def cache() -> Path:
        return segrt_export.export_folder(folder, tmp_path / "cache")

    files = [cache()]
    assert cache() == files[0]
    (folder / "inference.yml").write_text("Deploy: {transforms: [{type: Normalize}]}")
    files.append(cache())
    (folder / "inference.pdiparams").write_bytes(b"other weights")
    files.append(cache())
    (folder / "deploy.yaml").write_text("Deploy: {output_op: none}")
    files.append(cache())
    monkeypatch.setattr(cached, "version", lambda _: "2.2.0")
    files.append(cache())
    monkeypatch.setattr("segrt.__version__", "99.0")
    files.append(cache())
    assert len(set(files)) == len(files)
