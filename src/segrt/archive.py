"""Unpacking model archives. They are untrusted: all entries are checked before any is written."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import tarfile
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from segrt.errors import ModelError

MAX_UNPACKED = 2 << 30
"""Maximum unpacked size in bytes; the largest official archive has 250 MB."""

MAX_MEMBERS = 1000
"""Maximum number of entries; official archives have about five."""

_MAX_HEADERS = 16 << 20
_TEMP = ".segrt-unpack-"

# What tarfile, gzip and zlib raise for damaged input; RecursionError for many extended headers.
_BROKEN = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RecursionError,
)

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}

# Windows treats these names as devices, whatever follows the dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unpack(archive: Path, dest: Path) -> None:
    """Unpack an untrusted tar or tar.gz archive, completely or not at all.

    Only regular files and their folders are created; owners, modes and times are not preserved.

    Example:
        >>> unpack(Path("PP-LiteSeg-B_infer.tar"), Path("PP-LiteSeg-B"))

    Args:
        archive: the file.
        dest: the folder to create; it must not exist.

    Raises:
        ModelError: the archive is damaged, unsafe or unreadable, or `dest` exists or can't be
            written.
    """
    if dest.exists():
        raise ModelError(f"can't unpack to {dest}: it already exists")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        _sweep(dest.parent)
        with (
            tempfile.TemporaryDirectory(prefix=_TEMP, dir=dest.parent) as temp,
            _opened(archive) as (tar, files),
        ):
            top = Path(temp, "top")
            top.mkdir()
            for name, member in files.items():
                if hasattr(tarfile, "data_filter"):  # missing in early releases of Python 3.10
                    tarfile.data_filter(member, str(top))
                target = top / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(cast("IO[bytes]", tar.extractfile(member)), file, 1 << 20)
            os.replace(top, dest)
    except OSError as error:
        raise ModelError(f"can't unpack {archive} to {dest}: {error.strerror or error}") from error


def check_is_model(archive: Path) -> None:
    """Check without unpacking that an archive is safe and contains a Paddle model.

    Example:
        >>> check_is_model(Path("PP-LiteSeg-B_infer.tar"))

    Raises:
        ModelError: `unpack` would reject it, or it contains no Paddle model.
        OSError: it can't be read.
    """
    with _opened(archive) as (_, files):
        folders: dict[str, set[str]] = {}
        for path in files:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, set()).add(name)
    if all(map(_missing, folders.values())):
        found = ", ".join(sorted(files)[:9]) or "no files"
        raise ModelError(f"{archive} contains no Paddle model, only {found}")


def find_model_dir(folder: Path) -> Path:
    """Find the Paddle model in a folder: the folder itself, or one up to two levels below it.

    Example:
        >>> find_model_dir(Path("unpacked"))
        PosixPath('unpacked/PP-LiteSeg-B_infer')

    Raises:
        ModelError: there is no model, or more than one.
    """
    for pattern in ("", "*/", "*/*/"):
        candidates = {
            path.parent: _missing(set(os.listdir(path.parent)))
            for path in folder.glob(pattern + _WEIGHTS)
        }
        complete = sorted(path for path, missing in candidates.items() if not missing)
        if len(complete) > 1:
            raise ModelError(
                f"{folder} contains more than one Paddle model: specify one of "
                f"{', '.join(map(str, complete))}"
            )
        if complete:
            return complete[0]
        for path, missing in candidates.items():
            raise ModelError(f"{path} is not a complete Paddle model: {missing} is missing")
    raise ModelError(
        f"{folder} contains no Paddle model: it needs inference.json (or inference.pdmodel), "
        f"{_WEIGHTS} and inference.yml"
    )


_WEIGHTS = "inference.pdiparams"


def _missing(names: set[str]) -> str:
    """The first file that a Paddle model needs and `names` lacks; empty if it is complete."""
    if not names & {"inference.json", "inference.pdmodel"}:
        return "inference.json (or inference.pdmodel)"
    return next((name for name in (_WEIGHTS, "inference.yml") if name not in names), "")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """Open an archive, check all entries, and yield its files by normalised name."""
    with archive.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        meter = _Meter(
            cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if head.startswith(b"\x1f\x8b") else raw
        )
        problem = f"is neither a tar nor a tar.gz archive, it starts with {head!r}"
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", meter), mode="r:") as tar:
                problem = "is damaged, or not safe to unpack"
                files = _checked(tar)
                meter.seek(tar.offset)
                # tarfile stops at an invalid header as if it were the end of the archive.
                if meter.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it is truncated, or an entry's header is invalid")
                meter.left = 2 * MAX_UNPACKED
                yield tar, files
        except _BROKEN as error:
            raise ModelError(f"{archive} {problem}: {error}") from None


class _Meter:
    """A file with a limit on the bytes read: tarfile reads headers of any declared length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = _MAX_HEADERS
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("its headers are too long")
        return self._file.read(size)


def _checked(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The files of an archive by normalised name, once all of its entries have been checked."""
    files: dict[str, tarfile.TarInfo] = {}
    is_file: dict[str, bool] = {}
    total = 0
    for count, member in enumerate(tar, 1):
        if count > MAX_MEMBERS:
            raise tarfile.ReadError(f"it has more than {MAX_MEMBERS} entries")
        shown = repr(member.name[:200])
        total += member.size
        _check_kind_and_size(member, shown, total)
        name = _clean(member.name)
        if name == "" and member.isdir():  # the leading "./" of `tar cf x.tar .`
            continue
        if not name:
            raise tarfile.ReadError(f"{shown} is not a safe name")
        # Names that collide on file systems that ignore case or Unicode form.
        key = unicodedata.normalize("NFC", name).casefold()
        if key in is_file:
            raise tarfile.ReadError(f"{shown} occurs twice")
        is_file[key] = not member.isdir()
        if is_file[key]:
            files[name] = member
    for key in is_file:
        parents = key.split("/")[:-1]
        if any(is_file.get("/".join(parents[:depth])) for depth in range(1, len(parents) + 1)):
            raise tarfile.ReadError(f"{key!r} is inside something that is a file")
    return files


def _check_kind_and_size(member: tarfile.TarInfo, shown: str, total: int) -> None:
    is_plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    if member.issparse() or not is_plain:
        kind = _KINDS.get(member.type, "neither a regular file nor a folder")
        raise tarfile.ReadError(f"{shown} is {kind}")
    if member.size < 0 or total > MAX_UNPACKED:
        raise tarfile.ReadError(
            f"{shown} has {member.size} bytes; the limit for the archive is {MAX_UNPACKED}"
        )


def _clean(name: str) -> str | None:
    """`name` without "." parts; None if it could escape the folder or be special on some system."""
    if (
        not name.isprintable()
        or len(name.encode()) > 255
        or name.startswith("/")
        or set(name) & set('\\:*?"<>|')
    ):
        return None
    parts = [part for part in name.split("/") if part != "."]
    if any(not part or part.endswith((".", " ")) or _RESERVED.fullmatch(part) for part in parts):
        return None
    return "/".join(parts)


def _sweep(folder: Path) -> None:
    """Delete the leftovers of killed `unpack` calls, which are older than a day."""
    for path in folder.glob(_TEMP + "*"):
        if time.time() - path.stat().st_mtime > 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)
