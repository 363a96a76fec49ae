"""The user's cache folder: official archives are fetched and checked here, and exported models are found.

    paddle/<name>/<file>_infer.tar          an archive as downloaded
    paddle/<name>/<file>_infer.tar.json     its sha256, recorded when the file first came
    paddle/<name>/<file>_infer.tar.part     a download that is under way, or broke off
    onnx/<name>/model.onnx                  what segrt-export made of it

Environment: SEGRT_HOME is the folder. SEGRT_MIRROR takes the place of the official host: an http(s) base, or a folder,
that holds the same paths. SEGRT_OFFLINE=1 forbids the network.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import platformdirs

from segrt import zoo
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

_PACKAGE = Path(__file__).parent
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Stored:
    """What is there of one model.

    Attributes:
        spec: the model.
        archive: its Paddle archive, if that was downloaded.
        onnx: the file that runs, if that is there.
        size: bytes of both.
    """

    spec: ModelSpec
    archive: Path | None
    onnx: Path | None
    size: int


def home() -> Path:
    """The cache folder; it need not exist."""
    chosen = os.environ.get("SEGRT_HOME") or platformdirs.user_cache_dir("segrt", appauthor=False)
    return Path(os.path.expanduser(chosen)).absolute()


def onnx_path(spec: ModelSpec) -> Path:
    """Where the exported model belongs, whether it is there or not."""
    return home() / "onnx" / folder_name(spec.name) / "model.onnx"


def archive_path(spec: ModelSpec) -> Path | None:
    """The downloaded archive, or None."""
    return next((path for path in _archives(spec).values() if path.is_file()), None)


def locate(spec: ModelSpec) -> Path | None:
    """The `.onnx` file that runs, bundled or exported, or None."""
    path = _PACKAGE / spec.bundled if spec.bundled else onnx_path(spec)
    return path if path.is_file() else None


def require(spec: ModelSpec) -> Path:
    """The `.onnx` file that runs.

    Raises:
        ModelError: it is not there; the message says what to run.
    """
    if path := locate(spec):
        return path
    if spec.bundled:
        raise ModelError(
            f"{_PACKAGE / spec.bundled}, which comes with segrt, is missing: install segrt again"
        )
    export = f"run `pip install 'segrt[export]'` and then `segrt-export \"{spec.name}\"`"
    if archive_path(spec):
        raise ModelError(f"{spec.name} is downloaded but not yet converted to ONNX: {export}")
    raise ModelError(
        f'{spec.name} is not downloaded: run `segrt models fetch "{spec.name}"`; to convert it, {export}'
    )


def downloaded() -> list[Stored]:
    """The models of which an archive or an ONNX file is there, bundled ones too, in the order of the zoo."""
    found = []
    for spec in zoo.load().models:
        archive, onnx = archive_path(spec), locate(spec)
        if archive or onnx:
            size = sum(path.stat().st_size for path in (archive, onnx) if path)
            found.append(Stored(spec, archive, onnx, size))
    return found


def remove(name: str) -> int:
    """Delete the archive of a model, whole or in part, and its exported ONNX file.

    The recorded sha256 stays: what is downloaded later must be the same file.

    Returns:
        int: bytes that were freed.

    Raises:
        ModelError: the model is unknown, bundled, or not there.
        DownloadError: the files can't be deleted.
    """
    spec = zoo.get(name)
    if spec.bundled:
        raise ModelError(f"{spec.name} comes with segrt and can't be removed")
    if not _files(spec):
        there = ", ".join(stored.spec.name for stored in downloaded() if not stored.spec.bundled)
        raise ModelError(
            f"{spec.name} is not downloaded; of the models that can be removed there is {there or 'none'}"
        )
    with _locked(spec):
        files = _files(spec)
        size = sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink()
        shutil.rmtree(onnx_path(spec).parent, ignore_errors=True)
    return size


def fetch(spec: ModelSpec, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """Download the Paddle archive of a model, unless it is there. Processes that want the same one download it once.

    Args:
        spec: the model.
        progress: show a bar on stderr, if that is a terminal.
        limits: when to give up.

    Returns:
        Path: the archive. Its sha256 is the one that the zoo knows, or else the one of the file that came first.

    Raises:
        DownloadError: it can't be had, or is another file than it should be, or the cache folder can't be written.
        ModelError: the model is bundled, or a file that was put there by hand is not a Paddle model.
        ConfigError: SEGRT_MIRROR or SEGRT_OFFLINE is not valid.
    """
    if spec.bundled:
        raise ModelError(f"{spec.name} comes with segrt: there is nothing to download")
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
    """A model's name as the name of a file or folder: without blanks and parentheses."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("_")


def _folder(spec: ModelSpec) -> Path:
    return home() / "paddle" / folder_name(spec.name)


def _archives(spec: ModelSpec) -> dict[Archive, Path]:
    return {archive: _folder(spec) / archive.file for archive in spec.archives}


def _record(archive: Path) -> Path:
    return archive.with_name(archive.name + ".json")


def _files(spec: ModelSpec) -> list[Path]:
    """What `remove` deletes: the ONNX file, archives, and the parts of archives."""
    found = [path for path in [onnx_path(spec)] if path.is_file()]
    for archive in _archives(spec).values():
        found += [
            path for path in archive.parent.glob(archive.name + "*") if path != _record(archive)
        ]
    return found


@contextmanager
def _locked(spec: ModelSpec) -> Iterator[None]:
    """Work alone on the archive of a model; what the file system refuses becomes a DownloadError."""
    from filelock import FileLock, Timeout

    folder = _folder(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is busy with %s: waiting for it", spec.name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        advice = "set SEGRT_HOME to a folder that you may write to"
        if error.errno in _FULL:
            advice = "make room there, or set SEGRT_HOME to a folder on another disk"
        raise DownloadError(
            f"can't use {error.filename or folder}: {error.strerror or error}; {advice}"
        ) from error


def _check_hash(file: Path, path: Path, archive: Archive, source: str, advice: str) -> None:
    """Compare `file`, which is or will be `path`, with the sha256 that is known or recorded; else record its own."""
    digest = sha256(file)
    record, expected = _record(path), archive.sha256
    if expected is None and record.exists():
        try:
            expected = str(json.loads(record.read_text("utf-8"))["sha256"])
        except (ValueError, LookupError, TypeError):
            raise DownloadError(
                f"{record} is damaged; delete it to accept {source} as it is now"
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
            f"{spec.name} is not downloaded, and SEGRT_OFFLINE forbids the network: put '{first.file}' (from "
            f"{redact(_url(base, first))}) into {first_path.parent}, or set SEGRT_MIRROR to a folder that holds "
            f"'{first.path}'"
        )
    tried = []
    with _bar(spec.name, progress) as advance:
        for archive, path in _archives(spec).items():
            part = path.with_name(path.name + ".part")
            try:
                if isinstance(base, Path):
                    source = str(base / archive.path)
                    why_not = _copy(base / archive.path, part, limits, advance)
                else:
                    source = redact(_url(base, archive))
                    why_not = download_file(_url(base, archive), part, limits, advance)
                if not why_not:
                    _accept(part, path, archive, source)
                    return path
            except OSError as error:
                if error.errno in _FULL:  # a part would only keep the disk full
                    discard(part)
                raise
            tried.append(f"{source} ({why_not})")
    raise DownloadError(
        f"{spec.name} is not at {', nor at '.join(tried)}; set SEGRT_MIRROR to a base that has it, or put "
        f"'{first.file}' into {first_path.parent}"
    )


def _accept(part: Path, path: Path, archive: Archive, source: str) -> None:
    """Check a finished download, and only then give it its name."""
    advice = f"it is not the file that came first; if that is as it should be, delete {_record(path)} and fetch again"
    if archive.sha256:
        advice = (
            "it was changed there, or on its way; set SEGRT_MIRROR to a base that has the right one"
        )
    try:
        _check_hash(part, path, archive, source, advice)
    except (DownloadError, ModelError) as error:
        discard(part)
        if isinstance(error, ModelError):
            raise DownloadError(f"what {source} sent is not a Paddle model: {error}") from None
        raise
    commit(part, path)
    discard(part)


def _copy(source: Path, part: Path, limits: Limits, advance: Advance) -> str:
    """Copy from a mirror that is a folder. Returns why there is nothing to copy, or an empty text."""
    if not (source.is_file() and os.access(source, os.R_OK)):
        return "no file that can be read"
    size = source.stat().st_size
    check_size(size, limits, part, source)
    discard(part)  # with the note that says which URL it is a part of
    with source.open("rb") as file, part.open("wb") as out:
        while block := file.read(1 << 20):
            out.write(block)
            advance(out.tell(), size)
    return ""


def _base() -> str | Path:
    """What SEGRT_MIRROR names, else the official base: a URL without a closing slash, or a folder."""
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
    except ValueError:  # as of "http://[" and "http://host:port"
        pass
    raise ConfigError(
        f"SEGRT_MIRROR {redact(mirror)!r} is not valid: use http(s)://host/path, file:///path or a folder"
    )


def _url(base: str, archive: Archive) -> str:
    return f"{base}/{quote(archive.path, safe='/()')}"  # as browsers write it


def _offline() -> bool:
    value = os.environ.get("SEGRT_OFFLINE", "")
    if value.lower() not in ("", "0", "1", "false", "true"):
        raise ConfigError(f"SEGRT_OFFLINE {value!r} is not valid: use 1 or 0")
    return value.lower() in ("1", "true")


@contextmanager
def _bar(label: str, progress: bool) -> Iterator[Advance]:
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
