"""A model named is a model used: without Paddle, with a converter that writes two bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_converter
import numpy as np
import numpy.typing as npt
import pytest
from conftest import write_colour_model
from fake_converter import ONNX, Served, child
from tars import model_tar

import segrt
from segrt import converter, files, lock, model_file, provide, seals, shelf, store, zoo
from segrt.errors import ConfigError, DownloadError, ModelError
from segrt.http import Limits

NAME = "PP-LiteSeg-B"
SPEC = zoo.get(NAME)
RUN = f"provide.provide(zoo.get({NAME!r}), progress=False)"
IMPORTS = "from segrt import provide, seals, shelf, zoo\nfrom segrt.errors import SegrtError\n"


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SEGRT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SEGRT_HOME", str(home))
    monkeypatch.setenv("SEGRT_MIRROR", "http://127.0.0.1:1")  # nothing listens on this port
    monkeypatch.setattr(converter, "find", lambda: None)
    monkeypatch.setattr(converter, "convert", converter.convert)


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with one Paddle archive."""
    file = tmp_path / "mirror" / SPEC.archives[0].path
    file.parent.mkdir(parents=True)
    file.write_bytes(model_tar())
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "served").mkdir(exist_ok=True)
    served = Served(tmp_path / "served")
    yield served
    served.close()


def _names(folder: Path) -> set[str]:
    locks = {".lock", ".prepare.lock", ".segrt-lock"}
    return {path.name for path in folder.rglob("*") if path.is_file()} - locks


def test_a_model_is_downloaded_and_converted_on_first_use(
    archives: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_converter.install()
    path = model_file.resolve(NAME.lower())
    assert path == home / "onnx" / NAME / "model.onnx"
    assert path.read_bytes() == ONNX
    (line,) = caplog.messages
    assert line.startswith(f"{NAME} is converted to ONNX (0 s; 100.00% of the labels as by Paddle)")
    assert line.endswith(f"and kept in {path}")
    assert _names(home) == {
        f"{NAME}_infer.tar",
        f"{NAME}_infer.tar.json",
        "model.onnx",
        "model.onnx.json",
        "model.parity.json",
    }
    caplog.clear()
    assert model_file.resolve(NAME) == path
    assert caplog.messages == []


def test_each_file_is_hashed_once(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def count(file: Path) -> str:
        hashed.append(file.name)
        return files.sha256(file)

    for module in (provide, seals, shelf, store):
        monkeypatch.setattr(module, "sha256", count)
    fake_converter.install()
    provide.provide(SPEC, progress=False)
    tar = SPEC.archives[0].file
    assert sorted(hashed) == sorted([f"{tar}.part", "model.onnx"])
    hashed.clear()
    locked = provide.hashes()
    assert hashed == [tar]
    onnx = store.onnx_path(SPEC)
    assert {key: entry.sha256 for key, entry in locked.items()} == {
        store.key_of(path): files.sha256(path)
        for path in (onnx, onnx.parents[2] / "paddle" / NAME / tar)
    }


def test_without_a_converter_nothing_is_downloaded_and_the_error_has_the_commands(
    archives: Path, home: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        segrt.create_pipeline(model_name=NAME)
    message = str(caught.value)
    assert f'run `segrt models fetch "{NAME}" --yes`, which installs it, 1.9 GB, into' in message
    assert f"into {home / 'converter'}; or run `pip install 'segrt[export]'`" in message
    assert "\n" not in message
    assert _names(home) == set()


def test_offline_the_error_says_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    monkeypatch.setenv("SEGRT_YES", "1")
    with pytest.raises(ModelError, match=r"requires Paddle, and SEGRT_OFFLINE forbids installing"):
        model_file.resolve(NAME)
    fake_converter.install()
    with pytest.raises(DownloadError, match=f"put '{NAME}_infer.tar'"):
        model_file.resolve(NAME)


def test_a_failed_conversion_leaves_the_archive_only(
    archives: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "find", lambda: Path(sys.executable))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")

    monkeypatch.setattr(converter, "convert", full)
    with pytest.raises(DownloadError, match="No space left on device; free some space"):
        model_file.resolve(NAME)
    assert _names(home) == {f"{NAME}_infer.tar", f"{NAME}_infer.tar.json"}


@pytest.mark.parametrize("step", range(5))
def test_killed_at_any_step_the_next_call_completes(archives: Path, home: Path, step: int) -> None:
    deadly = "(provide, 'commit'), (seals, 'write'), (converter, 'convert')"
    deadly += ", (store, 'fetched_sha256')"
    code = (
        f"{IMPORTS}from segrt import converter, store\ninstall()\ndie_at({step}, {deadly})\n{RUN}"
    )
    process = child(code)
    process.communicate(timeout=30)
    assert process.returncode == -9
    assert store.locate(SPEC) is None
    fake_converter.install()
    assert model_file.resolve(NAME).read_bytes() == ONNX
    assert not list((home / "onnx").rglob(".work-*"))
    assert seals.check(store.onnx_path(SPEC), "") is not None


def test_two_processes_convert_once(archives: Path, tmp_path: Path) -> None:
    code = f"{IMPORTS}from pathlib import Path\ninstall(Path({str(tmp_path / 'go')!r}))\n{RUN}"
    first = child(code)
    assert first.stdout
    assert first.stdout.readline() == "converting\n"
    second = child(code)
    assert second.stderr
    assert f"waiting for another process that is preparing {NAME}" in second.stderr.readline()
    (tmp_path / "go").touch()
    assert second.communicate(timeout=30)[0] == ""
    first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_changed_export_is_refused_but_not_a_new_time(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_converter.install()
    path = model_file.resolve(NAME)
    hashed: list[Path] = []

    def record(file: Path) -> str:
        hashed.append(file)
        return _digest(file)

    monkeypatch.setattr(seals, "sha256", record)
    os.utime(path, ns=(1, 1))
    assert model_file.resolve(NAME) == path
    assert model_file.resolve(NAME) == path
    assert hashed == [path]  # hashed once, since the new time is then known
    path.write_bytes(b"\x08\x07")
    with pytest.raises(
        ModelError, match=rf"model\.onnx has sha256 {_digest(path)}, not .* changed"
    ):
        model_file.resolve(NAME)
    store.remove(NAME)
    assert model_file.resolve(NAME).read_bytes() == ONNX


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- shelves ---


@pytest.fixture
def shared(archives: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shelf with one model, and an empty cache folder."""
    fake_converter.install()
    model_file.resolve(NAME)
    monkeypatch.setattr(converter, "find", lambda: None)
    folder = tmp_path / "served"
    shelf.share(folder)
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    monkeypatch.setenv("SEGRT_MIRROR", str(folder))
    return folder


def test_a_model_of_a_shelf_needs_no_paddle(
    shared: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    path = model_file.resolve(NAME)
    assert path.read_bytes() == ONNX
    assert _names(home) == {"model.onnx", "model.onnx.json", "model.parity.json"}
    monkeypatch.setenv("SEGRT_MIRROR", "")
    path.write_bytes(b"changed")
    with pytest.raises(ModelError, match="it was changed; run `segrt models remove"):
        model_file.resolve(NAME)


def test_a_shelf_is_served_over_http_and_preferred_to_archives(
    shared: Path, archives: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_converter.install()
    monkeypatch.setenv("SEGRT_MIRROR", f"{archives},{served.url}")
    assert model_file.resolve(NAME).read_bytes() == ONNX
    assert store.archive_path(SPEC) is None
    assert served.requests == [
        "/index.json",
        f"/onnx/{NAME}/model.parity.json",
        f"/onnx/{NAME}/model.onnx",
    ]


def test_an_archive_is_used_where_the_shelf_lacks_the_model_or_is_unreachable(
    shared: Path, archives: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_converter.install()
    (shared / "index.json").write_text('{"format": 1, "files": []}')
    monkeypatch.setenv("SEGRT_MIRROR", f"http://127.0.0.1:1,{shared},{archives}")
    provide.provide(SPEC, limits=Limits(attempts=1))
    assert store.archive_path(SPEC)
    assert "can't be downloaded, after 1 attempts" in caplog.messages[0]


@pytest.mark.parametrize("name", ["model.onnx", "model.parity.json"])
def test_a_changed_file_of_a_shelf_is_refused_and_named(
    shared: Path, home: Path, name: str
) -> None:
    file = shared / "onnx" / NAME / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DownloadError) as caught:
        model_file.resolve(NAME)
    assert f"{file} has " in str(caught.value)
    assert f"sha256 {_digest(file)}, but index.json lists" in str(caught.value)
    assert store.locate(SPEC) is None
    assert not [path for path in _names(home) if ".part" in path]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"files": [{"path": "../x"}]}'])
def test_an_invalid_index_is_no_shelf(
    shared: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (shared / "index.json").write_text(text)
    with pytest.raises(ModelError, match="requires Paddle"):
        model_file.resolve(NAME)
    assert f"{shared / 'index.json'} is not the index of a shelf" in caplog.messages[0]


@pytest.mark.parametrize("step", range(4))
def test_a_download_from_a_shelf_killed_at_any_step(shared: Path, home: Path, step: int) -> None:
    process = child(f"{IMPORTS}die_at({step}, (shelf, 'commit'), (seals, 'write'))\n{RUN}")
    process.communicate(timeout=30)
    assert process.returncode == (-9 if step < 3 else 0)
    assert (store.locate(SPEC) is None) == (step < 3)
    assert model_file.resolve(NAME).read_bytes() == ONNX


# --- ONNX files by URL ---


def test_model_dir_may_be_a_url(
    served: Served, tmp_path: Path, tiles: npt.NDArray[np.uint8], home: Path
) -> None:
    write_colour_model(tmp_path / "served" / "my colours.onnx")
    url = f"{served.url}/my%20colours.onnx"
    for model_dir in (url, url.replace("//", "/"), Path(url)):
        pipeline = segrt.create_pipeline(model_dir=model_dir, device="cpu")
        (result,) = pipeline.predict(tiles)
        assert isinstance(result, segrt.SegResult)
    assert len(served.requests) == 1
    assert list(provide.downloaded_urls()) == [url]
    file = provide.url_file(url)
    assert file.name == "my_20colours.onnx" or file.name == "my_colours.onnx"
    file.write_bytes(b"changed")
    with pytest.raises(ModelError, match=f"it was changed; run  segrt models remove {url}"):
        segrt.create_pipeline(model_dir=url)
    assert provide.remove_url(url) == 7
    with pytest.raises(ModelError, match="is not downloaded"):
        provide.remove_url(url)
    assert provide.downloaded_urls() == {}


def test_urls_are_limited(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served" / "big.onnx").write_bytes(bytes(2000))
    url = f"{served.url}/big.onnx"
    with pytest.raises(DownloadError, match="larger than a model may be: over 1000 bytes"):
        provide.provide_url(url, limits=Limits(max_bytes=1000))
    with pytest.raises(DownloadError, match=r"gone\.onnx is not available \(HTTP 404\)"):
        provide.provide_url(f"{served.url}/gone.onnx")
    with pytest.raises(ModelError, match=r"does not end in \.onnx"):
        provide.provide_url(f"{served.url}/big.tar")
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    with pytest.raises(DownloadError, match="SEGRT_OFFLINE forbids network access: put the file"):
        provide.provide_url(url)


def test_a_truncated_onnx_file_is_called_that(
    served: Served, tmp_path: Path, tiles: npt.NDArray[np.uint8]
) -> None:
    whole = write_colour_model(tmp_path / "colours.onnx").read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        file = tmp_path / "cut.onnx"
        file.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=f"is truncated or damaged: {size} bytes; download it"):
            segrt.create_pipeline(model_dir=file, device="cpu")


# --- the lock file ---


def test_the_lock_file_is_enforced_on_onnx_files(
    archives: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_converter.install()
    path = model_file.resolve(NAME)
    files = provide.hashes()
    keys = [f"paddle/{NAME}/{NAME}_infer.tar", f"onnx/{NAME}/model.onnx"]
    assert list(files) == keys
    assert files[keys[1]] == lock.Locked(sha256=_digest(path), size=2)
    file = tmp_path / "segrt.lock"
    monkeypatch.setenv("SEGRT_LOCK", str(file))
    with pytest.raises(ConfigError, match=r"SEGRT_LOCK: .*segrt\.lock can't be read"):
        model_file.resolve(NAME)
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"is not a lock file: files: this key is missing"):
        model_file.resolve(NAME)
    lock.write(file, files)
    assert model_file.resolve(NAME) == path
    lock.write(file, {keys[0]: files[keys[0]]})  # the archive it was converted from will do
    assert model_file.resolve(NAME) == path
    for wrong in ({}, {keys[1]: lock.Locked(sha256="0" * 64, size=2)}):
        lock.write(file, wrong)
        with pytest.raises(DownloadError, match=rf"^{keys[1]} .*which SEGRT_LOCK enforces"):
            model_file.resolve(NAME)
    assert model_file.resolve()  # the bundled model is part of the package


def test_the_lock_file_is_enforced_on_downloads(
    shared: Path, served: Served, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "segrt.lock"
    lock.write(file, {})
    monkeypatch.setenv("SEGRT_LOCK", str(file))
    with pytest.raises(DownloadError, match=rf"onnx/{NAME}/model\.onnx is not in the lock file"):
        model_file.resolve(NAME)
    with pytest.raises(DownloadError, match=r"http://.*model\.onnx is not in the lock file"):
        provide.provide_url(f"{served.url}/onnx/{NAME}/model.onnx")
    assert not [name for name in _names(home) if "onnx" in name]
    monkeypatch.delenv("SEGRT_LOCK")
    model_file.resolve(NAME)
    provide.provide_url(f"{served.url}/onnx/{NAME}/model.onnx")
    lock.write(file, provide.hashes())
    monkeypatch.setenv("SEGRT_LOCK", str(file))
    assert model_file.resolve(NAME)
    assert provide.provide_url(f"{served.url}/onnx/{NAME}/model.onnx")
    assert len(json.loads(file.read_text())["files"]) == 2


def test_passwords_in_urls_are_kept_nowhere(served: Served, tmp_path: Path, home: Path) -> None:
    write_colour_model(tmp_path / "served" / "a.onnx")
    url = f"{served.url}/a.onnx".replace("//", "//me:secret@")
    assert provide.provide_url(url).is_file()
    assert list(provide.downloaded_urls()) == [f"{served.url}/a.onnx"]
    assert b"secret" not in b"".join(
        path.read_bytes() for path in home.rglob("*.*") if path.is_file()
    )


def test_logging_is_the_only_output(archives: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("segrt").setLevel(logging.ERROR)
    fake_converter.install()
    capfd.readouterr()
    model_file.resolve(NAME)
    assert capfd.readouterr() == ("converting\n", "")
