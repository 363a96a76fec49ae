"""The cache folder: downloaded Paddle archives, and models in ONNX format.

    paddle/<name>/<file>_infer.tar          an archive as downloaded
    paddle/<name>/<file>_infer.tar.json     its SHA-256, recorded at the first download
    paddle/<name>/<file>_infer.tar.part     an unfinished or interrupted download
    onnx/<name>/model.onnx                  the model, converted here or downloaded from a shelf
    onnx/<name>/model.onnx.json             its seal, see `segrt.seals`

Environment variables: SEGRT_HOME sets the folder; see also `segrt.mirrors` and `segrt.lock`.
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

import platformdirs

from segrt import lock, mirrors, package_data, seals, zoo
from segrt.archive import check_is_model, find_model_dir, unpack
from segrt.errors import ConfigError, DownloadError, ModelError
from segrt.files import commit, sha256
from segrt.http import LIMITS, Advance, Limits, discard
from segrt.waiting import download_bar
from segrt.zoo import Archive, ModelSpec

__all__ = [
    "Limits",
    "Stored",
    "archive_path",
    "check_file",
    "discard_if_full",
    "downloaded",
    "fetch",
    "find_model_dir",
    "folder_name",
    "home",
    "key_of",
    "locate",
    "locked",
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
    """The ONNX file of a model, bundled, converted or downloaded, after checking it.

    Example:
        >>> require(zoo.get("PP-LiteSeg-B"))
        PosixPath('/home/me/.cache/segrt/onnx/PP-LiteSeg-B/model.onnx')

    Raises:
        ModelError: there is no such file, and the message contains the command to run; or the file
            was changed.
        DownloadError: the file is not the one in the lock file.
    """
    if path := locate(spec):
        if not spec.bundled:
            check_file(path, f'run `segrt models remove "{spec.name}"`, and fetch it again')
        return path
    if spec.bundled:
        missing = package_data.path(spec.bundled)
        raise ModelError(f"{missing}, which is part of segrt, is missing: reinstall segrt")
    state = "downloaded but not yet converted to ONNX" if archive_path(spec) else "not downloaded"
    raise ModelError(f'{spec.name} is {state}: run `segrt models fetch "{spec.name}"`')


def check_file(file: Path, advice: str) -> None:
    """Refuse an ONNX file in the cache folder that was changed, or that the lock file excludes.

    Example:
        >>> check_file(onnx_path(zoo.get("PP-LiteSeg-B")), "fetch it again")

    Args:
        file: the file.
        advice: how to get the original.

    Raises:
        ModelError: it was changed.
        DownloadError: it is not in the lock file.
        ConfigError: the lock file is invalid.
    """
    seal = seals.check(file, advice)
    if lock.read() is not None:
        digest = seal.sha256 if seal else sha256(file)
        lock.enforce(key_of(file), digest, seal.archive if seal else None)


def key_of(file: Path) -> str:
    """The path of a file relative to the cache folder, with slashes: its key in lock files.

    Example:
        >>> key_of(onnx_path(zoo.get("PP-LiteSeg-B")))
        'onnx/PP-LiteSeg-B/model.onnx'
    """
    return file.relative_to(home()).as_posix()


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
    with locked(_folder(spec), spec.name):
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
        ConfigError: SEGRT_MIRROR, SEGRT_OFFLINE or SEGRT_LOCK is invalid.
    """
    if spec.bundled:
        raise ModelError(f"{spec.name} is bundled with segrt: there is nothing to download")
    with locked(_folder(spec), spec.name):
        for archive, path in _archives(spec).items():
            if path.is_file():
                advice = (
                    f'it is damaged; run `segrt models remove "{spec.name}"` and fetch it again'
                )
                _check_hash(path, path, archive, str(path), advice)
                return path
        return _download(spec, progress, limits)


def fetched_sha256(spec: ModelSpec, path: Path) -> str:
    """The SHA-256 of an archive, against which `fetch` has just checked it.

    Example:
        >>> archive = fetch(spec)
        >>> fetched_sha256(spec, archive)
        '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'

    Args:
        spec: the model.
        path: what `fetch` returned.

    Raises:
        DownloadError: the record of the first download is damaged.
    """
    archive = next(archive for archive, own in _archives(spec).items() if own == path)
    return _expected(path, archive, str(path)) or sha256(path)


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
    onnx = onnx_path(spec)
    found = [path for path in (onnx, onnx.with_name("model.onnx.part")) if path.is_file()]
    for archive in _archives(spec).values():
        found += [
            path for path in archive.parent.glob(archive.name + "*") if path != _record(archive)
        ]
    return found


@contextmanager
def locked(
    folder: Path,
    name: str,
    doing: str = "downloading",
    file: str = ".lock",
    advice: str | None = None,
) -> Iterator[None]:
    """Hold the lock of a folder, which is created if missing.

    Example:
        >>> with locked(home() / "paddle" / "PP-LiteSeg-B", "PP-LiteSeg-B"):
        ...     pass

    Args:
        folder: the folder.
        name: what is being worked on, for the message while another process holds the lock.
        doing: what that process is doing.
        file: name of the lock.
        advice: what to do if the folder can't be written; None for that of the cache folder.

    Raises:
        DownloadError: in place of any error of the file system.
    """
    from filelock import FileLock, Timeout  # loading it and rich would delay the first image

    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / file)
        try:
            held.acquire(timeout=0)
        except Timeout:
            log.warning("waiting for another process that is %s %s", doing, name)
            held.acquire()
        try:
            yield
        finally:
            held.release()
    except OSError as error:
        if advice is None and error.errno in _FULL:
            advice = "free some space, or set SEGRT_HOME to a folder on another disk"
        advice = advice or "set SEGRT_HOME to a writable folder"
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
    digest, expected = sha256(file), _expected(path, archive, source)
    if expected is None:
        check_is_model(file)
        record = _record(path)
        temp = record.with_name(record.name + ".tmp")
        temp.write_text(json.dumps({"sha256": digest, "source": source}), "utf-8")
        commit(temp, record)
    elif digest != expected:
        raise DownloadError(f"{source} has sha256 {digest}, not {expected}: {advice}")
    lock.enforce(key_of(path), digest)


def _expected(path: Path, archive: Archive, source: str) -> str | None:
    """The SHA-256 in the zoo, or else the one recorded at the first download, if any."""
    record = _record(path)
    if archive.sha256 or not record.exists():
        return archive.sha256
    try:
        return str(json.loads(record.read_text("utf-8"))["sha256"])
    except (ValueError, LookupError, TypeError):
        raise DownloadError(
            f"{record} is damaged; delete it to accept the current file at {source}"
        ) from None


def _download(spec: ModelSpec, progress: bool, limits: Limits) -> Path:
    bases = mirrors.bases()
    first, first_path = next(iter(_archives(spec).items()))
    if mirrors.offline() and all(isinstance(base, str) for base in bases):
        raise DownloadError(
            f"{spec.name} is not downloaded, and SEGRT_OFFLINE forbids network access: put "
            f"'{first.file}' (from {mirrors.shown(mirrors.address(bases[0], first.path))}) into "
            f"{first_path.parent}, or set SEGRT_MIRROR to a folder that contains '{first.path}'"
        )
    tried: list[str] = []
    with download_bar(spec.name, progress) as advance:
        for number, base in enumerate(bases, start=1):
            if isinstance(base, str) and mirrors.offline():
                tried.append(f"{mirrors.shown(base)} (SEGRT_OFFLINE forbids network access)")
            elif path := _download_from(base, spec, limits, advance, tried, number == len(bases)):
                return path
    raise DownloadError(
        f"{spec.name} is not available at {', nor at '.join(tried)}; set SEGRT_MIRROR to a base "
        f"that has it, or put '{first.file}' into {first_path.parent}"
    )


def _download_from(
    base: mirrors.Base,
    spec: ModelSpec,
    limits: Limits,
    advance: Advance,
    tried: list[str],
    is_last: bool,
) -> Path | None:
    """Get an archive from one base; None if it has none, which is added to `tried`."""
    for archive, path in _archives(spec).items():
        part = path.with_name(path.name + ".part")
        address = mirrors.address(base, archive.path)
        source = mirrors.shown(address)
        try:
            missing = mirrors.get(address, part, limits, advance)
        except mirrors.UnavailableError as error:
            if is_last and not tried:
                raise
            tried.append(f"{mirrors.shown(base)} ({error})")
            return None
        except OSError as error:
            discard_if_full(part, error)
            raise
        if not missing:
            _accept(part, path, archive, source)
            return path
        tried.append(f"{source} ({missing})")
    return None


def discard_if_full(part: Path, error: OSError) -> None:
    """Delete a partial download if the disk is full, as it would stay full.

    Example:
        >>> discard_if_full(Path("model.onnx.part"), OSError(errno.ENOSPC, "the disk is full"))
    """
    if error.errno in _FULL:
        discard(part)


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
