"""The cache folder: downloaded Paddle archives and exported models.

    paddle/<name>/<file>_infer.tar          an archive as downloaded
    paddle/<name>/<file>_infer.tar.json     its SHA-256, recorded at the first download
    paddle/<name>/<file>_infer.tar.part     an unfinished or interrupted download
    onnx/<name>/model.onnx                  the model exported by segrt-export

Environment variables: SEGRT_HOME sets the folder. SEGRT_MIRROR replaces the official host with an
http(s) base URL or a folder that contains the same paths. SEGRT_OFFLINE=1 forbids network access.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import platformdirs

from segrt import package_data, zoo
from segrt.archive import check_is_model, find_model_dir, unpack
from segrt.errors import ConfigError, DownloadError, ModelError
from segrt.files import commit, sha256
from segrt.http import LIMITS, Advance, Limits, check_size, discard, download_file, redact
from segrt.zoo import Archive, ModelSpec

__all__ = [
    "Limits",
    "Stored",
    "archive_path",
    "downloaded",
    "fetch",
    "find_model_dir",
    "folder_name",
    "home",
    "locate",
    "onnx_path",
    "remove",
    "require",
    "unpack",
]

log = logging.getLogger("segrt")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Stored:
    """The files of one model.

    Attributes:
        spec: the model.
        archive: its downloaded Paddle archive, if any.
        onnx: its ONNX file, bundled or exported, if any.
        size: bytes of both.
    """

    spec: ModelSpec
    archive: Path | None
    onnx: Path | None
    size: int


def home() -> Path:
    """The cache folder, which may not exist yet.

    Example:
        >>> home()
        PosixPath('/home/me/.cache/segrt')

    Raises:
        ConfigError: the user has no home folder, and another user made what would replace it.
    """
    if chosen := os.environ.get("SEGRT_HOME"):
        return Path(os.path.expanduser(chosen)).absolute()
    try:
        return Path(platformdirs.user_cache_dir("segrt", appauthor=False)).absolute()
    except RuntimeError:  # HOME is not set, and the system does not know the user, as in containers
        return _temporary_home()


def _temporary_home() -> Path:
    """A folder for temporary files that only this user can write."""
    path = Path(tempfile.gettempdir()) / f"segrt-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()  # others could have made it, to plant models
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(f"{path} belongs to another user: set SEGRT_HOME to a folder of your own")
    return path


def onnx_path(spec: ModelSpec) -> Path:
    """The path of the exported model, whether or not it exists."""
    return home() / "onnx" / folder_name(spec.name) / "model.onnx"


def archive_path(spec: ModelSpec) -> Path | None:
    """The downloaded archive; None if there is none."""
    return next((path for path in _archives(spec).values() if path.is_file()), None)


def locate(spec: ModelSpec) -> Path | None:
    """The ONNX file of a model, bundled or exported; None if there is none."""
    path = package_data.path(spec.bundled) if spec.bundled else onnx_path(spec)
    return path if path.is_file() else None


def require(spec: ModelSpec) -> Path:
    """The ONNX file of a model, bundled or exported.

    Example:
        >>> require(zoo.get("PP-LiteSeg-B"))
        PosixPath('/home/me/.cache/segrt/onnx/PP-LiteSeg-B/model.onnx')

    Raises:
        ModelError: there is no such file; the message contains the commands to run.
    """
    if path := locate(spec):
        return path
    if spec.bundled:
        missing = package_data.path(spec.bundled)
        raise ModelError(f"{missing}, which is part of segrt, is missing: reinstall segrt")
    export = f"run `pip install 'segrt[export]'` and then `segrt-export \"{spec.name}\"`"
    if archive_path(spec):
        raise ModelError(f"{spec.name} is downloaded but not yet converted to ONNX: {export}")
    raise ModelError(
        f'{spec.name} is not downloaded: run `segrt models fetch "{spec.name}"`; to convert it, '
        f"{export}"
    )


def downloaded() -> list[Stored]:
    """All models with an archive or an ONNX file, including bundled ones, in the order of the zoo.

    Example:
        >>> [stored.spec.name for stored in downloaded()]
        ['PP-LiteSeg-T_camvid']
    """
    found = []
    for spec in zoo.load().models:
        archive, onnx = archive_path(spec), locate(spec)
        if archive or onnx:
            size = sum(path.stat().st_size for path in (archive, onnx) if path)
            found.append(Stored(spec, archive, onnx, size))
    return found


def remove(name: str) -> int:
    """Delete a model's archive, its unfinished downloads and its exported ONNX file.

    The recorded SHA-256 is kept, so a later download must be the same file.

    Example:
        >>> remove("PP-LiteSeg-B")
        31557632

    Returns:
        int: bytes freed.

    Raises:
        ModelError: the model is unknown, bundled or not downloaded.
        DownloadError: the files can't be deleted.
    """
    spec = zoo.get(name)
    if spec.bundled:
        raise ModelError(f"{spec.name} is bundled with segrt and can't be removed")
    if not _files(spec):
        names = ", ".join(stored.spec.name for stored in downloaded() if not stored.spec.bundled)
        raise ModelError(
            f"{spec.name} is not downloaded; models that can be removed: {names or 'none'}"
        )
    with _locked(spec):
        files = _files(spec)
        size = sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink()
        shutil.rmtree(onnx_path(spec).parent, ignore_errors=True)
    return size


def fetch(spec: ModelSpec, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """Download a model's Paddle archive unless it is already in the cache folder.

    If several processes need the same archive, only one downloads it.

    Example:
        >>> fetch(zoo.get("PP-LiteSeg-B"))
        PosixPath('/home/me/.cache/segrt/paddle/PP-LiteSeg-B/PP-LiteSeg-B_infer.tar')

    Args:
        spec: the model.
        progress: show a progress bar on stderr if that is a terminal.
        limits: when to give up.

    Returns:
        Path: the archive, checked against the SHA-256 of the zoo, or else the one recorded at the
            first download.

    Raises:
        DownloadError: the download fails, the file is not the expected one, or the cache folder
            can't be written.
        ModelError: the model is bundled, or a file placed there by hand is not a Paddle model.
        ConfigError: SEGRT_MIRROR or SEGRT_OFFLINE is invalid.
    """
    if spec.bundled:
        raise ModelError(f"{spec.name} is bundled with segrt: there is nothing to download")
    with _locked(spec):
        for archive, path in _archives(spec).items():
            if path.is_file():
                advice = (
                    f'it is damaged; run `segrt models remove "{spec.name}"` and fetch it again'
                )
                _check_hash(path, path, archive, str(path), advice)
                return path
        return _download(spec, progress, limits)


def folder_name(name: str) -> str:
    """A model's name without blanks and parentheses, for use as a file or folder name.

    Example:
        >>> folder_name("SegFormer-B0 (slice)")
        'SegFormer-B0_slice'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("_")


def _folder(spec: ModelSpec) -> Path:
    return home() / "paddle" / folder_name(spec.name)


def _archives(spec: ModelSpec) -> dict[Archive, Path]:
    return {archive: _folder(spec) / archive.file for archive in spec.archives}


def _record(archive: Path) -> Path:
    return archive.with_name(archive.name + ".json")


def _files(spec: ModelSpec) -> list[Path]:
    """The files that `remove` deletes: ONNX file, archives and unfinished downloads."""
    found = [path for path in [onnx_path(spec)] if path.is_file()]
    for archive in _archives(spec).values():
        found += [
            path for path in archive.parent.glob(archive.name + "*") if path != _record(archive)
        ]
    return found


@contextmanager
def _locked(spec: ModelSpec) -> Iterator[None]:
    """Hold the lock of a model's archive; file system errors are raised as DownloadError."""
    from filelock import FileLock, Timeout  # loading it and rich would delay the first image

    folder = _folder(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("waiting for another process that is downloading %s", spec.name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        advice = "set SEGRT_HOME to a writable folder"
        if error.errno in _FULL:
            advice = "free some space, or set SEGRT_HOME to a folder on another disk"
        raise DownloadError(
            f"can't use {error.filename or folder}: {error.strerror or error}; {advice}"
        ) from error


def _check_hash(file: Path, path: Path, archive: Archive, source: str, advice: str) -> None:
    """Compare a file with the known or recorded SHA-256; record its own if there is neither.

    Args:
        file: the file to check.
        path: its final path, which determines the path of the record.
        archive: the archive that it should be.
        source: where it comes from, for messages.
        advice: how to fix a mismatch.
    """
    digest = sha256(file)
    record, expected = _record(path), archive.sha256
    if expected is None and record.exists():
        try:
            expected = str(json.loads(record.read_text("utf-8"))["sha256"])
        except (ValueError, LookupError, TypeError):
            raise DownloadError(
                f"{record} is damaged; delete it to accept the current file at {source}"
            ) from None
    if expected is None:
        check_is_model(file)
        temp = record.with_name(record.name + ".tmp")
        temp.write_text(json.dumps({"sha256": digest, "source": source}), "utf-8")
        commit(temp, record)
    elif digest != expected:
        raise DownloadError(f"{source} has sha256 {digest}, not {expected}: {advice}")


def _download(spec: ModelSpec, progress: bool, limits: Limits) -> Path:
    base = _base()
    first, first_path = next(iter(_archives(spec).items()))
    if isinstance(base, str) and _offline():
        raise DownloadError(
            f"{spec.name} is not downloaded, and SEGRT_OFFLINE forbids network access: put "
            f"'{first.file}' (from {redact(_url(base, first))}) into {first_path.parent}, or set "
            f"SEGRT_MIRROR to a folder that contains '{first.path}'"
        )
    tried = []
    with _progress_bar(spec.name, progress) as advance:
        for archive, path in _archives(spec).items():
            part = path.with_name(path.name + ".part")
            try:
                if isinstance(base, Path):
                    source = str(base / archive.path)
                    missing = _copy(base / archive.path, part, limits, advance)
                else:
                    source = redact(_url(base, archive))
                    missing = download_file(_url(base, archive), part, limits, advance)
                if not missing:
                    _accept(part, path, archive, source)
                    return path
            except OSError as error:
                if error.errno in _FULL:  # keeping the part would keep the disk full
                    discard(part)
                raise
            tried.append(f"{source} ({missing})")
    raise DownloadError(
        f"{spec.name} is not available at {', nor at '.join(tried)}; set SEGRT_MIRROR to a base "
        f"that has it, or put '{first.file}' into {first_path.parent}"
    )


def _accept(part: Path, path: Path, archive: Archive, source: str) -> None:
    """Check a finished download before renaming it to its final path."""
    if archive.sha256:
        advice = "it was changed at the source or in transit; set SEGRT_MIRROR to an intact copy"
    else:
        advice = (
            f"it differs from the first download; if that is intended, delete {_record(path)} and "
            "fetch it again"
        )
    try:
        _check_hash(part, path, archive, source, advice)
    except (DownloadError, ModelError) as error:
        discard(part)
        if isinstance(error, ModelError):
            raise DownloadError(f"the file from {source} is not a Paddle model: {error}") from None
        raise
    commit(part, path)
    discard(part)


def _copy(source: Path, part: Path, limits: Limits, advance: Advance) -> str:
    """Copy a file from a mirror folder; returns why that is impossible, empty on success."""
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


def _base() -> str | Path:
    """SEGRT_MIRROR or the official base: a folder, or a URL without trailing slash."""
    mirror = os.environ.get("SEGRT_MIRROR") or zoo.load().base_url
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


def _url(base: str, archive: Archive) -> str:
    return f"{base}/{quote(archive.path, safe='/()')}"  # as browsers encode it


def _offline() -> bool:
    value = os.environ.get("SEGRT_OFFLINE", "")
    if value.lower() not in ("", "0", "1", "false", "true"):
        raise ConfigError(f"SEGRT_OFFLINE {value!r} is not valid: use 1 or 0")
    return value.lower() in ("1", "true")


@contextmanager
def _progress_bar(label: str, progress: bool) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    show = progress and console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not show) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
