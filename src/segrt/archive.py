"""Model archives. They are hostile until shown otherwise: every entry is checked before the first one is written."""

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
"""Bytes that an archive may unpack to; the largest official one holds 250 MB."""

MAX_MEMBERS = 1000
"""Entries that an archive may have; official ones have about five."""

_MAX_HEADERS = 16 << 20
_TEMP = ".segrt-unpack-"

# What tarfile, gzip and zlib raise for damaged input. RecursionError: a long row of extended headers.
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

# Windows takes these for devices, whatever follows the dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unpack(archive: Path, dest: Path) -> None:
    """Unpack a tar or tar.gz that nobody vouches for. Either all of it arrives, or `dest` is not made.

    Only plain files, and the folders they lie in, are made; owners, modes and times are not taken over.

    Args:
        archive: the file.
        dest: the folder to make; it must not exist.

    Raises:
        ModelError: the archive is damaged or hostile or can't be read, or `dest` exists or can't be written.
    """
    if dest.exists():
        raise ModelError(f"can't unpack to {dest}: it exists already")
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
                if hasattr(
                    tarfile, "data_filter"
                ):  # Python's own checks, behind ours; not every 3.10 has them
                    tarfile.data_filter(member, str(top))
                target = top / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(cast("IO[bytes]", tar.extractfile(member)), file, 1 << 20)
            os.replace(top, dest)
    except OSError as error:
        raise ModelError(f"can't unpack {archive} to {dest}: {error.strerror or error}") from error


def check_is_model(archive: Path) -> None:
    """Look through an archive without unpacking it.

    Raises:
        ModelError: `unpack` would refuse it, or it holds no Paddle model.
        OSError: it can't be read.
    """
    with _opened(archive) as (_, files):
        folders: dict[str, set[str]] = {}
        for path in files:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, set()).add(name)
    if all(map(_missing, folders.values())):
        raise ModelError(
            f"{archive} holds no Paddle model, but {', '.join(sorted(files)[:9]) or 'no file at all'}"
        )


def find_model_dir(folder: Path) -> Path:
    """The folder of a Paddle model: `folder` itself, or one that lies up to two levels below it.

    Raises:
        ModelError: there is none, or more than one.
    """
    for pattern in ("", "*/", "*/*/"):
        found = {
            path.parent: _missing(set(os.listdir(path.parent)))
            for path in folder.glob(pattern + _WEIGHTS)
        }
        whole = sorted(path for path, missing in found.items() if not missing)
        if len(whole) > 1:
            raise ModelError(
                f"{folder} holds more than one Paddle model: name one of {', '.join(map(str, whole))}"
            )
        if whole:
            return whole[0]
        for path, missing in found.items():
            raise ModelError(f"{path} is not a whole Paddle model: {missing} is missing")
    raise ModelError(
        f"{folder} holds no Paddle model: it needs inference.json (or inference.pdmodel), {_WEIGHTS} and inference.yml"
    )


_WEIGHTS = "inference.pdiparams"


def _missing(names: set[str]) -> str:
    """What a folder with these files lacks to be a Paddle model; empty if nothing."""
    if not names & {"inference.json", "inference.pdmodel"}:
        return "inference.json (or inference.pdmodel)"
    return next((name for name in (_WEIGHTS, "inference.yml") if name not in names), "")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """Open an archive, check all of its entries, and hand out its files by their cleaned names."""
    with archive.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        meter = _Meter(
            cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if head.startswith(b"\x1f\x8b") else raw
        )
        wrong = f"is neither a tar nor a tar.gz, it starts with {head!r}"
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", meter), mode="r:") as tar:
                wrong = "is damaged, or not safe to unpack"
                files = _checked(tar)
                meter.seek(tar.offset)
                if meter.read(tarfile.BLOCKSIZE) != bytes(
                    tarfile.BLOCKSIZE
                ):  # tarfile takes it for the end
                    raise tarfile.ReadError("it is cut off, or the header of an entry is not valid")
                meter.left = 2 * MAX_UNPACKED
                yield tar, files
        except _BROKEN as error:
            raise ModelError(f"{archive} {wrong}: {error}") from None


class _Meter:
    """A file that gives out `left` bytes at most: tarfile reads a header whole, however long it says it is."""

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
    files: dict[str, tarfile.TarInfo] = {}
    is_file: dict[str, bool] = {}
    total = 0
    for count, member in enumerate(tar, 1):
        shown = repr(member.name[:200])
        if count > MAX_MEMBERS:
            raise tarfile.ReadError(f"it has more than {MAX_MEMBERS} entries")
        if member.issparse() or not (
            member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        ):
            raise tarfile.ReadError(
                f"{shown} is {_KINDS.get(member.type, 'neither a plain file nor a folder')}"
            )
        total += member.size
        if member.size < 0 or total > MAX_UNPACKED:
            raise tarfile.ReadError(
                f"{shown} has {member.size} bytes; all together may have {MAX_UNPACKED}"
            )
        name = _clean(member.name)
        if name == "" and member.isdir():  # the "./" that `tar cf x.tar .` begins with
            continue
        if not name:
            raise tarfile.ReadError(f"{shown} is not a safe name")
        key = unicodedata.normalize(
            "NFC", name
        ).casefold()  # as file systems compare that ignore case
        if key in is_file:
            raise tarfile.ReadError(f"{shown} stands in it twice")
        is_file[key] = not member.isdir()
        if is_file[key]:
            files[name] = member
    for key in is_file:
        parents = key.split("/")[:-1]
        if any(is_file.get("/".join(parents[:depth])) for depth in range(1, len(parents) + 1)):
            raise tarfile.ReadError(f"{key!r} lies in something that is a file")
    return files


def _clean(name: str) -> str | None:
    """`name` without "." parts; None if on some system it could mean another place, or another thing."""
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
    """Delete what a killed `unpack` left behind; one that is a day old belongs to nobody any more."""
    for path in folder.glob(_TEMP + "*"):
        if time.time() - path.stat().st_mtime > 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)
