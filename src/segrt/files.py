"""Atomic writes, so that neither a reader nor a crash ever sees half a file; and file hashes."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from time import time

_DAY = 86_400  # seconds


def write_atomic(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path` completely or not at all. Missing folders are created.

    Args:
        path: the file.
        data: its content.
        overwrite: as in `replacing`.

    Raises:
        OSError: the folder can't be created or written, or the disk is full; `path` is unchanged.
    """
    if not overwrite and path.exists():
        return
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, suffix: str = ".tmp", *, overwrite: bool = True) -> Iterator[Path]:
    """Provide an empty temporary file next to `path`, which replaces `path` on a normal exit.

    Its name starts with ".segrt-" and ends in `suffix`. It is synced to disk before it is renamed,
    and deleted if an exception is raised. Missing folders are created. What killed processes left
    in the folder is deleted.

    Args:
        path: the file.
        suffix: of the temporary file.
        overwrite: False leaves `path` as it is if it exists by then, whoever wrote it.

    Raises:
        OSError: the folder can't be created or written, or the disk is full; `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent.absolute())
    prefix = f".segrt-{_machine()}-{os.getpid()}-"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        if overwrite:
            os.replace(name, path)
        else:
            _add(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _add(temporary: str, path: Path) -> None:
    """Rename a file, unless the name is taken: then it is deleted."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links: another process may win between the next two
        if not path.exists():
            os.replace(temporary, path)
            return
    os.unlink(temporary)


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one existing file, through links or other spellings of its name.

    Example:
        >>> is_same_file("road.png", "./Road.png")  # on a file system that ignores case
        True
    """
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one is missing, or is not a path at all
        return False


@cache
def sweep(folder: Path) -> None:
    """Delete the temporary files of killed processes in a folder, once per process.

    A file is deleted if its process ran on this machine and has ended, or if it has not been
    written to for a day. Nothing else is touched.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := re.match(r"\.segrt-([0-9a-f]{8})-(\d+)-", entry.name):
                with suppress(OSError):
                    stale = entry.stat(follow_symlinks=False).st_mtime < time() - _DAY
                    if stale or (match[1] == _machine() and not _runs(int(match[2]))):
                        os.unlink(entry.path)


@cache
def _machine() -> str:
    """What tells the processes apart that may have equal numbers: the host and the container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # that of another user
        return True
    return True


def commit(temporary: Path, path: Path) -> None:
    """Rename a finished file such that not even a power cut leaves half of it under that name.

    Raises:
        OSError: the disk is full, or `path` can't be written.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # elsewhere a folder can't be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, lower-case hexadecimal.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_reading_umask = Lock()


def _umask() -> int:
    # mkstemp makes files readable by their owner only; results get the usual permissions.
    with _reading_umask:  # which sets it for a moment
        mask = os.umask(0o022)
        os.umask(mask)
    return mask
