from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from segrt import store, zoo
from segrt.errors import ExportError, ModelError
from segrt_export.source import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "my_model"
    model.mkdir()
    (model / "inference.json").write_text("{}")
    (model / "inference.pdiparams").write_bytes(b"weights")
    (model / "inference.yml").write_text("PostProcess: {label_list: [road]}")
    return model


def _tar(folder: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        tar.add(folder, path.name.removesuffix(".tar"))
    return path


def test_a_folder_requires_an_output_folder(folder: Path, tmp_path: Path) -> None:
    model, file = open_source(str(folder), tmp_path / "work", tmp_path / "out")
    assert (model.name, file) == ("my_model", tmp_path / "out" / "my_model.onnx")
    with pytest.raises(ExportError, match="specify a folder"):
        open_source(str(folder), tmp_path / "work", None)


def test_a_published_archive_is_exported_to_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    tar = _tar(folder, tmp_path / "SegFormer-B0 (slice)_infer.tar")
    model, file = open_source(str(tar), tmp_path / "work", None)
    assert model.name == "SegFormer-B0 (slice)"
    assert model.meta.class_names == ("road",)
    assert file == store.onnx_path(zoo.get("SegFormer-B0"))
    assert (
        open_source(str(tar), tmp_path / "work2", tmp_path)[1]
        == tmp_path / "SegFormer-B0_slice.onnx"
    )


def test_a_named_model_is_downloaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = zoo.get("PP-LiteSeg-T")
    _tar(folder, tmp_path / "mirror" / spec.archives[0].path)
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path / "mirror"))
    model, file = open_source("pp-liteseg-t", tmp_path / "work", None)
    assert (model.name, model.meta.class_names) == ("PP-LiteSeg-T", ("road",))
    assert file == store.onnx_path(spec)
    assert store.archive_path(spec)


def test_other_arguments_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ExportError, match="neither a folder"):
        open_source(str(tmp_path / "notes.txt"), tmp_path, tmp_path)
    with pytest.raises(ExportError, match="does not exist"):
        open_source("gone/model", tmp_path, tmp_path)
    with pytest.raises(ModelError, match="unknown model 'ResNet'"):
        open_source("ResNet", tmp_path, tmp_path)
    with pytest.raises(ExportError, match="comes with segrt"):
        open_source("PP-LiteSeg-T_camvid", tmp_path, tmp_path)


def test_an_unsafe_archive_is_rejected(tmp_path: Path) -> None:
    tar = tmp_path / "x_infer.tar"
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo("../escaped")
        archive.addfile(member)
    with pytest.raises(ModelError):
        open_source(str(tar), tmp_path / "work", tmp_path)
    assert not (tmp_path / "escaped").exists()
