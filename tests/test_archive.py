from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tars import MODEL, entry, model_tar, tar_of

from segrt import archive
from segrt.archive import check_is_model, find_model_dir, unpack
from segrt.errors import ModelError

DEEP = "d/" * 127


def unpacked(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_rejected(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "in" / "x.tar"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ModelError, match=why) as caught:
        unpack(file, tmp_path / "out" / "model")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_unpack_model(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "x.tar"
    items = [("./" + name, content) for name, content in MODEL.items()]
    file.write_bytes(pack(tar_of((entry("./", type=tarfile.DIRTYPE), b""), *items)))
    unpack(file, tmp_path / "a" / "model")
    assert unpacked(tmp_path / "a" / "model") == MODEL
    assert os.listdir(tmp_path / "a") == ["model"]
    assert find_model_dir(tmp_path / "a") == tmp_path / "a" / "model"
    check_is_model(file)


def test_owner_and_mode_are_not_preserved(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(tar_of((entry("run", mode=0o6777, uid=12345), b"x")))
    unpack(file, tmp_path / "out")
    status = (tmp_path / "out" / "run").stat()
    assert status.st_mode & 0o7111 == 0
    assert status.st_uid == os.getuid()


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (entry("../evil"), "not a safe name"),
        (entry("a/../../evil"), "not a safe name"),
        (entry("a/.."), "not a safe name"),
        (entry("../evil", type=tarfile.DIRTYPE), "not a safe name"),
        (entry("."), "not a safe name"),
        (entry("/evil"), "not a safe name"),
        (entry("//evil"), "not a safe name"),
        (entry("..\\evil"), "not a safe name"),
        (entry("C:/evil"), "not a safe name"),
        (entry("a/b:stream"), "not a safe name"),
        (entry("a//b"), "not a safe name"),
        (entry("con"), "not a safe name"),
        (entry("a/NUL.txt"), "not a safe name"),
        (entry("a/evil."), "not a safe name"),
        (entry("a /evil"), "not a safe name"),
        (entry("a\nb"), "not a safe name"),
        (entry("a\x00b", pax_headers={"path": "a\x00b"}), "not a safe name"),
        (entry("a\u202eb"), "not a safe name"),
        (entry("\udcff"), "not a safe name"),
        (entry("n" * 256), "not a safe name"),
        (entry(DEEP + "evil"), "not a safe name"),
        (entry("evil", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a symbolic link"),
        (entry("evil", type=tarfile.SYMTYPE, linkname="model"), "is a symbolic link"),
        (entry("evil", type=tarfile.LNKTYPE, linkname="model/inference.yml"), "is a hard link"),
        (entry("evil", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "is a device"),
        (entry("evil", type=tarfile.BLKTYPE, devmajor=8, devminor=0), "is a device"),
        (entry("evil", type=tarfile.FIFOTYPE), "is a named pipe"),
        (entry("evil", type=tarfile.CONTTYPE), "neither a regular file nor a folder"),
        (entry("evil", type=b"Z"), "neither a regular file nor a folder"),
        (entry("evil", type=tarfile.GNUTYPE_SPARSE), "neither a regular file nor a folder|damaged"),
        (
            entry("evil", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}),
            "neither a regular",
        ),
        (entry("evil", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "damaged"),
        (entry("evil", pax_headers={"size": str(1 << 60)}), "the limit for the archive"),
        (entry("model/inference.yml"), "occurs twice"),
        (entry("model/INFERENCE.yml"), "occurs twice"),
        (entry("model", type=tarfile.REGTYPE), "is a file"),
        (entry("model/inference.yml/x"), "is a file"),
        (entry("x", pax_headers={"comment": "x" * (17 << 20)}), "headers are too long"),
    ],
    ids=lambda value: repr(value.name)[:20] if isinstance(value, tarfile.TarInfo) else "",
)
def test_unsafe_entries_are_rejected(tmp_path: Path, head: tarfile.TarInfo, why: str) -> None:
    good = [(f"model/{name}", content) for name, content in MODEL.items()]
    assert_rejected(tmp_path, tar_of(*good, (head, b"")), why)


def test_names_that_differ_only_in_unicode_form_collide(tmp_path: Path) -> None:
    assert_rejected(tmp_path, tar_of(("\u00e9", b"1"), ("e\u0301", b"2")), "twice")


def raw_header(name: str, size: int) -> bytes:
    """A header with a size that `tarfile` can't write: base 256, two's complement."""
    head = bytearray(entry(name).tobuf(tarfile.GNU_FORMAT))
    head[124:136] = (size % (1 << 96)).to_bytes(12, "big")
    head[124] |= 0x80
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def without_end(content: bytes) -> bytes:
    """A tar without the zeros at its end."""
    content = content.rstrip(b"\0")
    return content + bytes(-len(content) % 512)


@pytest.mark.parametrize("size", [1 << 40, 1 << 70, -1, -512, -(1 << 40)])
@pytest.mark.parametrize("name", ["evil", "././@LongLink"])
def test_absurd_sizes_are_rejected(tmp_path: Path, size: int, name: str) -> None:
    head = raw_header(name, size)
    if name.startswith("./"):
        changed = bytearray(head)
        changed[156:157] = tarfile.GNUTYPE_LONGNAME
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed)
        head = bytes(changed)
    began = time.monotonic()
    assert_rejected(
        tmp_path,
        without_end(model_tar()) + head + bytes(10240),
        "the limit for the archive|headers|damaged",
    )
    assert time.monotonic() - began < 2


def test_too_many_entries_are_rejected(tmp_path: Path) -> None:
    assert_rejected(
        tmp_path,
        tar_of(*((f"f{i}", b"") for i in range(archive.MAX_MEMBERS + 1))),
        "more than 1000 entries",
    )


def test_oversized_archive_is_rejected_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1000)
    assert_rejected(
        tmp_path,
        tar_of(("a", b"x" * 600), ("b", b"x" * 600)),
        "'b' has 600 bytes; the limit for the archive is 1000",
    )


def test_gzip_bomb_is_rejected_without_inflating_it(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        file.write(raw_header("zeros", archive.MAX_UNPACKED + 1))
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert_rejected(tmp_path, buffer.getvalue(), "the limit for the archive")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"<html>Please log in</html>",
        b"PK\x03\x04" + bytes(600),
        gzip.compress(b"no tar"),
    ],
    ids=["empty", "zeros", "html", "zip", "gzip"],
)
def test_other_files_are_rejected(tmp_path: Path, content: bytes) -> None:
    assert_rejected(
        tmp_path,
        content,
        re.escape(f"neither a tar nor a tar.gz archive, it starts with {content[:8]!r}"),
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_truncated_archive_is_rejected(
    tmp_path: Path, pack: Callable[[bytes], bytes], kept: float
) -> None:
    content = pack(model_tar(weights=os.urandom(100_000)))
    assert_rejected(tmp_path, content[: int(len(content) * kept)], "damaged")


def test_archive_without_end_marker_is_rejected(tmp_path: Path) -> None:
    assert_rejected(tmp_path, without_end(model_tar()), "truncated")


def test_invalid_header_is_not_mistaken_for_the_end(tmp_path: Path) -> None:
    whole = without_end(model_tar())
    assert_rejected(
        tmp_path, whole + b"x" * 512 + model_tar("other"), "an entry's header is invalid"
    )


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(model_tar())
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="already exists"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"can't unpack .*none.tar.*No such file"):
        unpack(tmp_path / "none.tar", tmp_path / "out")


def test_leftovers_of_killed_runs_are_deleted_after_a_day(tmp_path: Path) -> None:
    old, new = (tmp_path / f".segrt-unpack-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "file").touch()
    os.utime(old, (0, 0))
    (tmp_path / "x.tar").write_bytes(model_tar())
    unpack(tmp_path / "x.tar", tmp_path / "out")
    assert not old.exists()
    assert new.exists()


NAMES = st.text(st.sampled_from("ab./\\ :~\0\n\u202e\u00e9C"), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4))
@example(["../../x"])
@example(["a", "a/b"])
def test_nothing_is_written_outside_whatever_the_names(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "x.tar").write_bytes(tar_of(*((name, b"x") for name in names)))
        try:
            unpack(top / "x.tar", top / "deep" / "out")
        except ModelError:
            assert not (top / "deep" / "out").exists()
        else:
            assert len(unpacked(top / "deep" / "out")) == len(names)
            assert os.listdir(top / "deep") == ["out"]
        assert sorted(os.listdir(top)) == ["deep", "x.tar"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3 * 512), st.binary(min_size=1, max_size=12)),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_damaged_header_is_unpacked_or_rejected(
    changes: list[tuple[int, bytes]], sums: bool
) -> None:
    content = bytearray(tar_of(("a", b"1"), (entry("b" * 120, pax_headers={"comment": "c"}), b"2")))
    for position, data in changes:
        content[position : position + len(data)] = data
    if sums:  # fix the checksum of the first header, so that its fields are used
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
    with TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "x.tar").write_bytes(content)
        try:
            unpack(top / "x.tar", top / "out")
        except ModelError:
            assert os.listdir(top) == ["x.tar"]


def test_model_folder_is_found_up_to_two_levels_down(tmp_path: Path) -> None:
    for folder in ("", "a", "a/b"):
        where = tmp_path / folder
        where.mkdir(exist_ok=True)
        for name in MODEL:
            (where / name).touch()
        assert find_model_dir(tmp_path) == where
        for name in MODEL:
            (where / name).unlink()
    with pytest.raises(ModelError, match=r"contains no Paddle model: it needs inference\.json"):
        find_model_dir(tmp_path)


def test_paddle_2_format_counts_as_a_model(tmp_path: Path) -> None:
    for name in ("inference.pdmodel", "inference.pdiparams", "inference.yml"):
        (tmp_path / name).touch()
    assert find_model_dir(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["inference.json", "inference.yml"])
def test_incomplete_model(tmp_path: Path, name: str) -> None:
    for other in set(MODEL) - {name}:
        (tmp_path / other).touch()
    with pytest.raises(ModelError, match=f"not a complete Paddle model: {name}.* is missing"):
        find_model_dir(tmp_path)
    file = tmp_path / "x.tar"
    file.write_bytes(tar_of(*((other, b"x") for other in sorted(set(MODEL) - {name}))))
    with pytest.raises(ModelError, match="contains no Paddle model, only inference"):
        check_is_model(file)


def test_two_models_in_one_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in MODEL:
            (tmp_path / folder / name).touch()
    with pytest.raises(ModelError, match=r"more than one Paddle model: specify one of .*a, .*b"):
        find_model_dir(tmp_path)
