"""Models named are models used, with Paddle: the trained model, as if it were an official one."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

import segrt
from segrt import converter, model_file, provide, seals, store, zoo
from segrt.errors import ExportError, ModelError
from segrt.files import sha256
from segrt_export import cached, source
from segrt_export.requirements import missing

pytest.importorskip("paddle2onnx", reason="needs the extra export")

SPEC = zoo.get("PP-LiteSeg-T")
SAMPLE = Path(segrt.__file__).parent / "models" / "sample.png"


@pytest.fixture
def mirror(paddle_lite: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SEGRT_YES", "SEGRT_LOCK", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "mirror" / SPEC.archives[0].path
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w") as tar:
        tar.add(paddle_lite, "PP-LiteSeg-T_infer")
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    return tmp_path / "mirror"


def test_a_named_model_is_converted_in_place(mirror: Path, home: Path) -> None:
    pipeline = segrt.create_pipeline(model_name="PP-LiteSeg-T", device="cpu")
    assert pipeline.model_name == "PP-LiteSeg-T"
    (result,) = pipeline.predict(str(SAMPLE))
    assert isinstance(result, segrt.SegResult)
    assert set(result.areas()) > {"Sky", "Road"}
    file = store.onnx_path(SPEC)
    report = json.loads(file.with_name("model.parity.json").read_text())
    assert report["model"] == "PP-LiteSeg-T"
    assert report["parity"]["agreement"] > 0.999
    seal = seals.read(file)
    archive = store.archive_path(SPEC)
    assert seal
    assert archive
    assert (seal.sha256, seal.archive) == (sha256(file), sha256(archive))
    assert {path.name for path in file.parent.iterdir()} == {
        "model.onnx",
        "model.onnx.json",
        "model.parity.json",
    }


def test_a_model_that_paddle_cant_read_is_one_line(mirror: Path, home: Path) -> None:
    file = mirror / SPEC.archives[0].path
    with tarfile.open(file, "w") as tar:
        for name in ("inference.json", "inference.pdiparams", "inference.yml"):
            tar.addfile(tarfile.TarInfo(f"model/{name}"))
    with pytest.raises(ExportError) as caught:
        model_file.resolve(SPEC.name)
    assert str(caught.value).startswith("PP-LiteSeg-T can't be converted: ")
    assert "\n" not in str(caught.value)
    assert store.locate(SPEC) is None


def test_a_folder_is_converted_by_another_interpreter(
    paddle_lite: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing_extra(module: str) -> None:
        raise missing(module)

    monkeypatch.setattr(cached, "require", missing_extra)
    with monkeypatch.context() as context:
        context.setattr(converter, "_MODULES", ("no_such_module",))
        with pytest.raises(ModelError, match=r"pip install 'segrt\[export\]'; or convert it else"):
            model_file.resolve(path=paddle_lite)
    file = model_file.resolve(path=paddle_lite)
    assert file.with_name("model.parity.json").is_file()
    assert model_file.resolve(path=paddle_lite) == file


def test_an_export_of_segrt_export_is_sealed_anew(home: Path) -> None:
    file = store.onnx_path(SPEC)
    file.parent.mkdir(parents=True)
    for content in (b"one", b"two"):
        with source.sealed(SPEC.name, file):
            file.write_bytes(content)
        os.utime(file, ns=(1, 1))
        assert provide.provide(SPEC) == file
    with source.sealed("my_model", home / "my_model.onnx"):
        pass
    assert not seals.path(home / "my_model.onnx").exists()


def test_the_running_interpreter_can_convert() -> None:
    assert converter.find() is not None
