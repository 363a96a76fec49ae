"""Seals: the SHA-256 of an ONNX file in the cache folder, in `model.onnx.json` next to it.

A sealed file is hashed again only if its size or its time of modification differs from the seal.
One that was changed is refused.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segrt.errors import ModelError
from segrt.files import sha256, write_atomic


class Seal(BaseModel):
    """What is known about a file.

    Attributes:
        sha256: its SHA-256, lower-case hexadecimal.
        size: its size in bytes.
        mtime_ns: when it was modified, in nanoseconds.
        source: where it comes from.
        archive: SHA-256 of the Paddle archive that it was converted from here, if any.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int
    mtime_ns: int
    source: str = ""
    archive: str | None = None


def path(file: Path) -> Path:
    """The path of a file's seal, whether or not it exists."""
    return file.with_name(file.name + ".json")


def read(file: Path) -> Seal | None:
    """The seal of a file; None if it has none.

    Raises:
        ModelError: the seal is damaged.
    """
    try:
        return Seal.model_validate_json(path(file).read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        raise ModelError(
            f"{path(file)} is damaged; delete it to accept {file} as it is now"
        ) from None


def write(
    file: Path,
    source: str,
    *,
    target: Path | None = None,
    archive: str | None = None,
    digest: str | None = None,
) -> None:
    """Seal a file.

    Example:
        >>> write(Path("model.onnx.part"), "https://example.org", target=Path("model.onnx"))

    Args:
        file: the file.
        source: where it comes from.
        target: the path that it is about to be renamed to; None if it has it already.
        archive: SHA-256 of the Paddle archive that it was converted from.
        digest: its SHA-256, if that is known.

    Raises:
        OSError: the file can't be read, or the seal can't be written.
    """
    found = file.stat()
    seal = Seal(
        sha256=digest or sha256(file),
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        source=source,
        archive=archive,
    )
    write_atomic(path(target or file), seal.model_dump_json().encode())


def check(file: Path, advice: str) -> Seal | None:
    """Refuse a file that was changed after it was sealed.

    Example:
        >>> check(Path("model.onnx"), "download it again") is None
        True

    Args:
        file: the file.
        advice: how to get the original.

    Returns:
        Seal: its seal; None if it has none.

    Raises:
        ModelError: the file was changed, or its seal is damaged.
    """
    seal = read(file)
    if seal is None:
        return None
    found = file.stat()
    if (found.st_size, found.st_mtime_ns) == (seal.size, seal.mtime_ns):
        return seal
    digest = sha256(file)
    if digest != seal.sha256:
        raise ModelError(f"{file} has sha256 {digest}, not {seal.sha256}: it was changed; {advice}")
    fresh = seal.model_copy(update={"mtime_ns": found.st_mtime_ns})
    try:
        write_atomic(path(file), fresh.model_dump_json().encode())
    except OSError:  # a read-only cache folder: the file is hashed each time
        return seal
    return fresh
