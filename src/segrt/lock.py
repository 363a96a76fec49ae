"""The lock file: the SHA-256 of each downloaded file, which SEGRT_LOCK=FILE enforces.

    {"format": 1, "files": {"onnx/PP-LiteSeg-B/model.onnx": {"sha256": "...", "size": 31557632}}}

The keys are paths in the cache folder, or URLs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segrt.errors import ConfigError, DownloadError
from segrt.files import write_atomic
from segrt.validation import first_problem


class Locked(BaseModel):
    """What a file must be.

    Attributes:
        sha256: its SHA-256, lower-case hexadecimal.
        size: its size in bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Lock(BaseModel):
    """The contents of a lock file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    files: dict[str, Locked]


def write(file: Path, files: Mapping[str, Locked]) -> None:
    """Write a lock file.

    Example:
        >>> locked = Locked(sha256=digest, size=31557632)
        >>> write(Path("segrt.lock"), {"onnx/PP-LiteSeg-B/model.onnx": locked})

    Raises:
        OSError: it can't be written.
    """
    lock = Lock(files=dict(sorted(files.items())))
    write_atomic(file, (lock.model_dump_json(indent=2) + "\n").encode())


def read() -> Lock | None:
    """The lock file that SEGRT_LOCK names; None if it is not set.

    Raises:
        ConfigError: the file can't be read or is invalid.
    """
    name = os.environ.get("SEGRT_LOCK")
    if not name:
        return None
    try:
        return Lock.model_validate_json(Path(os.path.expanduser(name)).read_bytes())
    except OSError as error:
        raise ConfigError(f"SEGRT_LOCK: {name} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise ConfigError(
            f"SEGRT_LOCK: {name} is not a lock file: {first_problem(error)}"
        ) from None


def enforce(key: str, digest: str, archive: str | None = None) -> None:
    """Refuse a file that SEGRT_LOCK does not list, or lists with another SHA-256.

    Example:
        >>> enforce("onnx/PP-LiteSeg-B/model.onnx", digest)

    Args:
        key: its path in the cache folder, or its URL.
        digest: its SHA-256.
        archive: SHA-256 of the Paddle archive that the file was converted from here: if the lock
            file lists that archive, it need not list the file.

    Raises:
        DownloadError: the file is refused.
        ConfigError: the lock file can't be read or is invalid.
    """
    lock = read()
    if lock is None:
        return
    name = os.environ["SEGRT_LOCK"]
    if key in lock.files:
        if digest != lock.files[key].sha256:
            raise DownloadError(
                f"{key} has sha256 {digest}, not {lock.files[key].sha256} as in the lock file "
                f"{name}, which SEGRT_LOCK enforces"
            )
    elif archive is None or archive not in {entry.sha256 for entry in lock.files.values()}:
        raise DownloadError(f"{key} is not in the lock file {name}, which SEGRT_LOCK enforces")
