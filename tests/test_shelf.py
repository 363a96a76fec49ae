from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from fake_converter import child

from segrt import seals, shelf, store, zoo
from segrt.errors import DownloadError, ModelError

NAME, OTHER, BUNDLED = "PP-LiteSeg-B", "SegFormer-B0 (slice)", "PP-LiteSeg-T_camvid"


@pytest.fixture(autouse=True)
def models(home: Path) -> list[Path]:
    """Two converted models in the cache folder."""
    files = [store.onnx_path(zoo.get(name)) for name in (NAME, OTHER)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(file.parent.name.encode())
        seals.write(file, "a test")
    files[0].with_name("model.parity.json").write_text("{}")
    return files


def _index(folder: Path) -> dict[str, dict[str, object]]:
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == 1
    return {entry["path"]: entry for entry in index["files"]}


def _check(folder: Path) -> None:
    for path, entry in _index(folder).items():
        content = (folder / path).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size"] == len(content)


def test_a_shelf_has_an_index_of_all_files(tmp_path: Path, models: list[Path]) -> None:
    folder = tmp_path / "a" / "shelf"
    assert [spec.name for spec in shelf.share(folder, ["segformer-b0"])] == [OTHER]
    path = "onnx/SegFormer-B0_slice/model.onnx"
    assert _index(folder) == {
        path: {
            "name": OTHER,
            "path": path,
            "sha256": hashlib.sha256(b"SegFormer-B0_slice").hexdigest(),
            "size": 18,
            "segrt_export": "",
        }
    }
    assert {spec.name for spec in shelf.share(folder)} == {NAME, OTHER}
    _check(folder)
    assert list(_index(folder)) == [
        "onnx/PP-LiteSeg-B/model.parity.json",
        "onnx/PP-LiteSeg-B/model.onnx",
        path,
    ]
    models[0].write_bytes(b"new")
    seals.write(models[0], "a test")
    shelf.share(folder, [NAME])
    _check(folder)
    assert len(_index(folder)) == 3


def test_versions_reports_and_licences_are_shared(tmp_path: Path) -> None:
    shelf.share(tmp_path, [BUNDLED])
    _check(tmp_path)
    names = {Path(path).name: entry for path, entry in _index(tmp_path).items()}
    assert set(names) == {"model.onnx", "model.parity.json", "LICENCE.txt"}
    assert {entry["segrt_export"] for entry in names.values()} == {"0.1.0"}
    licence = (tmp_path / "onnx" / BUNDLED / "LICENCE.txt").read_text()
    assert "CC BY-NC 4.0" in licence


def test_nothing_to_share(tmp_path: Path, home: Path, models: list[Path]) -> None:
    with pytest.raises(ModelError, match='run `segrt models fetch "PP-LiteSeg-T"`'):
        shelf.share(tmp_path / "shelf", [NAME, "PP-LiteSeg-T"])
    models[0].write_bytes(b"changed")
    with pytest.raises(ModelError, match="it was changed"):
        shelf.share(tmp_path / "shelf")
    shutil.rmtree(home)
    with pytest.raises(ModelError, match="no model is converted yet"):
        shelf.share(tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


@pytest.mark.parametrize("step", range(5))
def test_killed_at_any_step_the_shelf_is_as_before_and_the_next_call_completes(
    tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "shelf"
    shelf.share(folder, [OTHER])
    before = _index(folder)
    deadly = "(shelf, 'replacing'), (shelf, 'sha256'), (shelf, 'write_atomic')"
    code = "from pathlib import Path\nfrom segrt import shelf\n"
    process = child(
        f"{code}die_at({step}, {deadly})\nshelf.share(Path({str(folder)!r}), [{NAME!r}])"
    )
    process.communicate(timeout=30)
    assert process.returncode == -9
    assert _index(folder) == before
    _check(folder)
    shelf.share(folder, [NAME])
    _check(folder)
    assert len(_index(folder)) == 3


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "index.json")

    monkeypatch.setattr(shelf, "write_atomic", full)
    with pytest.raises(DownloadError, match="No space left on device; use a writable folder"):
        shelf.share(tmp_path / "shelf")
    assert not (tmp_path / "shelf" / "index.json").exists()


def test_a_damaged_index_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DownloadError, match=r"index\.json is not the index of a shelf"):
        shelf.share(tmp_path)
