"""Where models come from: the official host, or the mirrors that replace it.

Environment variables: SEGRT_MIRROR is a folder or an http(s) base URL, or several of them,
separated by commas and tried in order. SEGRT_OFFLINE=1 forbids network access.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from segrt import consent, zoo
from segrt.errors import ConfigError, DownloadError
from segrt.http import Advance, Limits, check_size, discard, download_file, redact

Base: TypeAlias = Path | str
"""A folder, or a URL without a trailing slash."""


class UnavailableError(DownloadError):
    """A mirror can't be reached, or lacks a file that it lists: the next one may do.

    Example:
        >>> try:
        ...     get("https://example.org/model.onnx", Path("model.onnx.part"), LIMITS, print)
        ... except UnavailableError as error:
        ...     print(error)
    """


def offline() -> bool:
    """Whether SEGRT_OFFLINE forbids network access.

    Example:
        >>> offline()
        False

    Raises:
        ConfigError: its value is invalid.
    """
    return consent.flag("SEGRT_OFFLINE")


def configured() -> list[Base]:
    """The folders and URLs of SEGRT_MIRROR; none if it is not set.

    Example:
        >>> configured()  # SEGRT_MIRROR=/mnt/models,https://models.example.org/segrt
        [PosixPath('/mnt/models'), 'https://models.example.org/segrt']

    Raises:
        ConfigError: one of them is invalid.
    """
    value = os.environ.get("SEGRT_MIRROR", "")
    if "://" not in value and Path(os.path.expanduser(value)).is_dir():  # its name may have commas
        return [_parse(value)] if value else []
    found = [_parse(part.strip()) for part in value.split(",") if part.strip()]
    if found and not any(isinstance(base, str) or base.is_dir() for base in found):
        raise ConfigError(f"SEGRT_MIRROR {value!r} is not valid: there is no such folder")
    return found


def bases() -> list[Base]:
    """Where archives come from: the mirrors, or else the official host.

    Example:
        >>> bases()
        ['https://paddle-model-ecology.bj.bcebos.com/paddlex']

    Raises:
        ConfigError: SEGRT_MIRROR is invalid.
    """
    return configured() or [zoo.load().base_url]


def reachable() -> list[Base]:
    """The mirrors that may be used now: with SEGRT_OFFLINE, only folders.

    Example:
        >>> reachable()  # SEGRT_MIRROR=/mnt/models,https://models.example.org SEGRT_OFFLINE=1
        [PosixPath('/mnt/models')]

    Raises:
        ConfigError: SEGRT_MIRROR or SEGRT_OFFLINE is invalid.
    """
    folders_only = offline()
    return [base for base in configured() if isinstance(base, Path) or not folders_only]


def address(base: Base, path: str) -> Base:
    """The file or URL of a relative path; characters are encoded as browsers do.

    Example:
        >>> address("https://example.org", "SegFormer-B0 (slice).tar")
        'https://example.org/SegFormer-B0%20(slice).tar'
    """
    return base / path if isinstance(base, Path) else f"{base}/{quote(path, safe='/()')}"


def shown(source: Base) -> str:
    """A file or URL for messages: without a password.

    Example:
        >>> shown("https://me:secret@models.example.org/index.json")
        'https://models.example.org/index.json'
    """
    return redact(source) if isinstance(source, str) else str(source)


def get(source: Base, part: Path, limits: Limits, advance: Advance) -> str:
    """Copy or download a file to `part`; downloads are resumed.

    Example:
        >>> get(Path("/mnt/models/gone.tar"), Path("gone.tar.part"), LIMITS, lambda *_: None)
        'no readable file'

    Returns:
        str: empty on success; otherwise why there is no such file, as in "HTTP 404".

    Raises:
        UnavailableError: the server fails, or the file is too large.
        OSError: `part` can't be written.
    """
    if isinstance(source, str):
        try:
            return download_file(source, part, limits, advance)
        except DownloadError as error:
            raise UnavailableError(str(error)) from error.__cause__
    if not (source.is_file() and os.access(source, os.R_OK)):
        return "no readable file"
    size = source.stat().st_size
    check_size(size, limits, part, source)
    discard(part)  # including the JSON file that links it to a URL
    with source.open("rb") as file, part.open("wb") as out:
        while block := file.read(1 << 20):
            out.write(block)
            advance(out.tell(), size)
    return ""


def _parse(mirror: str) -> Base:
    if "://" not in mirror:
        return Path(os.path.expanduser(mirror))
    try:
        parts = urlsplit(mirror)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return Path(url2pathname(parts.path))
        plain = parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
        if parts.scheme in ("http", "https") and plain:
            return mirror.rstrip("/")
    except ValueError:  # for example "http://[" or "http://host:port"
        pass
    raise ConfigError(
        f"SEGRT_MIRROR {redact(mirror)!r} is not valid: use http(s)://host/path, file:///path or "
        "a folder"
    )
