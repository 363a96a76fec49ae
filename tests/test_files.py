from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segrt.files import commit, is_same_file, replacing, sha256, sweep, write_atomic


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_sha256(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_write_atomic_creates_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_write_atomic_uses_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_atomic(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_atomic_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, b"before")
    monkeypatch.setattr(f"segrt.files.os.{step}", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_replacing_keeps_the_file_if_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(b"before")

    def interrupted() -> None:
        with replacing(path, ".mp4") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".")
            assert temporary.suffix == ".mp4"
            temporary.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file.mp4"]


def test_replacing_shows_the_file_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as temporary:
        temporary.write_bytes(b"data")
        assert not path.exists()
    assert path.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a"
    write_atomic(path, b"first", overwrite=False)
    with replacing(path, overwrite=False) as temporary:
        temporary.write_bytes(b"second")
    write_atomic(path, b"third", overwrite=False)
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


def test_commit_renames(tmp_path: Path) -> None:
    part, path = tmp_path / "file.part", tmp_path / "file"
    part.write_bytes(b"new")
    path.write_bytes(b"old")
    commit(part, path)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_commit_of_a_missing_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        commit(tmp_path / "file.part", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")
def test_leftovers_of_killed_processes_are_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from segrt.files import replacing\n"
        "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, timeout=60, check=False).returncode == -9
    (leftover,) = tmp_path.iterdir()
    elsewhere = leftover.name.split("-")[2]
    foreign = [".segrt-12345678-1-x.tmp", ".other.tmp", f".segrt-x-{elsewhere}-y", "a.txt"]
    for name in foreign:
        (tmp_path / name).touch()
    with replacing(tmp_path / "b.png") as mine:
        sweep.__wrapped__(tmp_path)  # as another process would
        assert sorted(os.listdir(tmp_path)) == sorted([*foreign, mine.name])
    os.utime(tmp_path / foreign[0], (0, 0))  # of another machine, but abandoned long ago
    sweep.__wrapped__(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*foreign[1:], "b.png"])


def test_the_same_file_under_several_names(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    os.symlink("a", tmp_path / "c")
    os.link(tmp_path / "a", tmp_path / "d")
    for name in ("a", "./a", "c", "d"):
        assert is_same_file(tmp_path / "a", f"{tmp_path}/{name}")
    for name in ("b", "missing", "nul\0"):
        assert not is_same_file(tmp_path / "a", f"{tmp_path}/{name}")
