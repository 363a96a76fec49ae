"""onnxruntime-web from its npm package, and models that browsers can't run."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest

import segrt
from segrt import package_data, store
from segrt.errors import ConfigError, DownloadError, ModelError
from segrt.metadata import KEY
from segrt.web import runtime, site

MODEL = package_data.path("models/PP-LiteSeg-T_camvid/model.onnx")


@pytest.fixture
def mirror(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with a small package, whose hash is the expected one."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    package = folder / f"onnxruntime-web-{runtime.VERSION}.tgz"
    with tarfile.open(package, "w:gz") as tar:
        for name in (*runtime.FILES["wasm"], "../../evil"):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    digest = hashlib.sha512(package.read_bytes()).digest()
    monkeypatch.setattr(runtime, "INTEGRITY", base64.b64encode(digest).decode())
    monkeypatch.setenv("SEGRT_MIRROR", str(folder))
    return folder


def test_the_package_is_downloaded_once(mirror: Path) -> None:
    expected = {name: name.encode() for name in runtime.FILES["wasm"]}
    assert runtime.read(runtime.FILES["wasm"]) == expected
    (package,) = mirror.iterdir()
    package.unlink()
    assert runtime.read(runtime.FILES["wasm"]) == expected


def test_another_package_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "INTEGRITY", "another")
    with pytest.raises(DownloadError, match=r"not version .* as published.*--runtime"):
        runtime.read(runtime.FILES["wasm"])


def test_a_package_that_was_changed_is_refused(mirror: Path) -> None:
    runtime.read(runtime.FILES["wasm"])
    (package,) = (store.home() / "npm").glob("*.tgz")
    package.write_bytes(b"changed")
    with pytest.raises(DownloadError, match="was changed: delete it"):
        runtime.read(runtime.FILES["wasm"])


def test_a_package_without_a_file_is_refused(mirror: Path) -> None:
    with pytest.raises(DownloadError, match=r"lacks .*asyncify"):
        runtime.read(runtime.FILES["webgpu"])


def test_offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRT_MIRROR", "")
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"SEGRT_OFFLINE forbids .*--runtime"):
        runtime.read(runtime.FILES["wasm"])


def test_an_unpacked_package(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "a.mjs").write_bytes(b"a")
    assert runtime.read(["a.mjs"], tmp_path) == runtime.read(["a.mjs"], dist) == {"a.mjs": b"a"}
    with pytest.raises(ConfigError, match=r"is not the npm package onnxruntime-web.*b\.mjs"):
        runtime.read(["b.mjs"], tmp_path)


def test_only_the_metadata_changes() -> None:
    before = onnx.load(MODEL)
    after = onnx.load_from_string(site.with_metadata(MODEL.read_bytes(), "{}"))
    assert after.graph == before.graph
    found = {entry.key: entry.value for entry in after.metadata_props}
    assert found[KEY] == "{}"
    assert len(found) == len(after.metadata_props) == len(before.metadata_props)


def test_a_model_that_browsers_would_resize_otherwise_is_refused() -> None:
    transforms: list[dict[str, Any]] = [
        {"type": "ResizeByLong", "long_size": 320, "interp": "AREA"},
        {"type": "Normalize"},
    ]
    with (
        segrt.create_pipeline(model_dir=MODEL, transforms=transforms, device="cpu") as pipeline,
        pytest.raises(ModelError, match="by AREA, and segrt-web has NEAREST, LINEAR"),
    ):
        site.check(MODEL, pipeline.session.description)
