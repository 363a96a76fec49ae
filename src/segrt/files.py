"""Files written atomically, so that neither a reader nor a crash ever sees half of one; their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Missing folders are made.

    Raises:
        OSError: the folder can't be made or written, or the disk is full; `path` is then as it was before.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give an empty temporary file in the folder of `path` to write to; on leaving it is synced and takes that name.

    Its name begins with a dot and ends in `suffix`; on an error it is deleted. Missing folders are made.

    Raises:
        OSError: the folder can't be made or written, or the disk is full; `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=suffix)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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


def _umask() -> int:
    # mkstemp makes files that only the owner can read; results should be as readable as any other file.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
