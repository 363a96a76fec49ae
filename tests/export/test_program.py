from __future__ import annotations

from pathlib import Path

import pytest

from segrt.errors import ExportError, ModelError
from segrt_export.program import PaddleModel, load_program, operators


def _model(folder: Path, program: str = "inference.json", yml: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / program).write_text("{}")
    (folder / program).with_suffix(".pdiparams").write_bytes(b"weights")
    if yml is not None:
        (folder / "inference.yml").write_text(yml)
    return folder


def test_open_finds_both_formats_and_the_config(tmp_path: Path) -> None:
    yml = "Deploy: {transforms: [{type: Normalize}]}\nPostProcess: {label_list: [road, 7]}"
    new = PaddleModel.open(_model(tmp_path / "new", yml=yml))
    assert (new.name, new.program.name, new.class_names) == ("new", "inference.json", ("road", "7"))
    assert new.transforms == ({"type": "Normalize"},)
    assert set(new.sha256()) == {"inference.json", "inference.pdiparams", "inference.yml"}
    old = PaddleModel.open(_model(tmp_path / "old", "model.pdmodel"), name="mine")
    assert (old.name, old.program.name, old.class_names) == ("mine", "model.pdmodel", ())


@pytest.mark.parametrize(
    ("yml", "message"), [("a: [", r"inference\.yml:2: did not find"), ("- 1", "is not a mapping")]
)
def test_open_rejects_an_invalid_config(tmp_path: Path, yml: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        PaddleModel.open(_model(tmp_path / "m", yml=yml))


def test_open_rejects_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "inference.json").write_text("{}")
    with pytest.raises(ExportError, match="holds no Paddle inference model"):
        PaddleModel.open(tmp_path)
    with pytest.raises(ExportError, match="is not a folder"):
        PaddleModel.open(tmp_path / "gone")


def test_load_program_rejects_other_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"program": {}}')
    with pytest.raises(ExportError, match="is not a Paddle 3 program"):
        load_program(tmp_path / "a.json")


def test_the_trained_model(paddle_lite: Path) -> None:
    model = PaddleModel.open(paddle_lite)
    assert model.name == "PP-LiteSeg-T_camvid"
    assert model.class_names[:4] == ("Sky", "Building", "Pole", "Road")
    assert operators(load_program(model.program))[-1]["#"] == "1.fetch"
