"""A model named is a model used: found, or downloaded and converted on first use.

An ONNX file from a shelf (see `segrt.shelf`) is preferred. Otherwise the Paddle archive is
downloaded, and converted by `segrt.converter`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from urllib.parse import unquote, urlsplit

from segrt import converter, lock, mirrors, seals, shelf, store
from segrt.errors import DownloadError, ModelError
from segrt.files import commit, sha256
from segrt.http import LIMITS, Limits, discard, download_file, redact
from segrt.lock import Locked
from segrt.waiting import download_bar, spinner
from segrt.zoo import ModelSpec

log = logging.getLogger("segrt")

_WORK = ".work-"


def provide(spec: ModelSpec, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """The ONNX file of a model; downloaded, and converted if necessary, on first use.

    If several processes need the same model, only one does the work. A call after one that was
    killed completes its work.

    Example:
        >>> provide(zoo.get("PP-LiteSeg-B"))
        PosixPath('/home/me/.cache/segrt/onnx/PP-LiteSeg-B/model.onnx')

    Args:
        spec: the model.
        progress: show progress on stderr if that is a terminal.
        limits: when to give up a download.

    Raises:
        ModelError: the model can't be converted here, and the message contains the commands that
            help; or its file was changed.
        ExportError: the conversion failed.
        DownloadError: a download failed, a file is not the expected one, or the cache folder can't
            be written.
        ConfigError: an environment variable is invalid.
    """
    if spec.bundled or store.locate(spec):
        return store.require(spec)
    folder = store.home() / "paddle" / store.folder_name(spec.name)
    with store.locked(folder, spec.name, "preparing", ".prepare.lock"):
        if store.locate(spec) is None and not _from_shelf(spec, progress, limits):
            _converted(spec, progress, limits)
    return store.require(spec)


def provide_url(url: str, *, progress: bool = True, limits: Limits = LIMITS) -> Path:
    """Download an ONNX file, unless it is in the cache folder.

    Example:
        >>> provide_url("https://models.example.org/roads.onnx").name
        'roads.onnx'

    Args:
        url: http or https; its path ends in .onnx.
        progress: show a progress bar on stderr if that is a terminal.
        limits: when to give up.

    Returns:
        Path: the file, whose SHA-256 must be that of the first download from then on.

    Raises:
        DownloadError: the download fails, or the file is not in the lock file.
        ModelError: the URL does not name an ONNX file, or the file was changed.
        ConfigError: an environment variable is invalid.
    """
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not name.lower().endswith(".onnx"):
        raise ModelError(f"{redact(url)} does not end in .onnx: give the URL of an ONNX file")
    target = url_file(url)
    with store.locked(target.parent, redact(url)):
        if not target.is_file():
            _download(url, target, progress, limits)
    advice = f"run  segrt models remove {redact(url)}  to download it again"
    seal = seals.check(target, advice)
    lock.enforce(redact(url), seal.sha256 if seal else sha256(target))
    return target


def url_file(url: str) -> Path:
    """Where the ONNX file of a URL is kept, whether or not it exists.

    Example:
        >>> url_file("https://models.example.org/roads.onnx").name
        'roads.onnx'
    """
    digest = hashlib.sha256(redact(url).encode()).hexdigest()[:16]
    name = store.folder_name(unquote(urlsplit(url).path.rpartition("/")[2]))
    return store.home() / "urls" / digest / (name or "model.onnx")


def downloaded_urls() -> dict[str, Path]:
    """The ONNX files that were downloaded by URL.

    Example:
        >>> list(downloaded_urls())
        ['https://models.example.org/roads.onnx']

    Raises:
        ModelError: a seal is damaged.
    """
    found = {}
    for file in sorted((store.home() / "urls").glob("*/*.onnx")):
        if seal := seals.read(file):
            found[seal.source] = file
    return found


def remove_url(url: str) -> int:
    """Delete the ONNX file of a URL; returns the bytes freed.

    Example:
        >>> remove_url("https://models.example.org/roads.onnx")
        8912345

    Raises:
        ModelError: it is not downloaded.
    """
    target = url_file(url)
    if not target.is_file():
        raise ModelError(f"{redact(url)} is not downloaded")
    size = target.stat().st_size
    with store.locked(target.parent, redact(url)):
        target.unlink(missing_ok=True)
        seals.path(target).unlink(missing_ok=True)
    return size


def hashes() -> dict[str, Locked]:
    """The SHA-256 and the size of each downloaded or converted file, for a lock file.

    Example:
        >>> list(hashes())
        ['paddle/PP-LiteSeg-B/PP-LiteSeg-B_infer.tar', 'onnx/PP-LiteSeg-B/model.onnx']

    Raises:
        ModelError: a file was changed after it was downloaded.
        DownloadError: likewise.
    """
    found = {}
    for stored in store.downloaded():
        if stored.spec.bundled:
            continue
        if stored.archive:
            archive = store.fetch(stored.spec, progress=False)
            found[store.key_of(archive)] = Locked(
                sha256=store.fetched_sha256(stored.spec, archive), size=archive.stat().st_size
            )
        if stored.onnx:
            found[store.key_of(stored.onnx)] = _locked(store.require(stored.spec))
    for url, file in downloaded_urls().items():
        seals.check(file, f"run  segrt models remove {url}  to download it again")
        found[url] = _locked(file)
    return found


def _locked(file: Path) -> Locked:
    """What an ONNX file is, which has just been compared with its seal."""
    seal = seals.read(file)
    return Locked(sha256=seal.sha256 if seal else sha256(file), size=file.stat().st_size)


def _download(url: str, target: Path, progress: bool, limits: Limits) -> None:
    if mirrors.offline():
        raise DownloadError(
            f"{redact(url)} is not downloaded, and SEGRT_OFFLINE forbids network access: put the "
            f"file at {target}"
        )
    part = target.with_name(target.name + ".part")
    with download_bar(target.name, progress) as advance:
        try:
            missing = download_file(url, part, limits, advance)
        except OSError as error:
            store.discard_if_full(part, error)
            raise
    if missing:
        raise DownloadError(f"{redact(url)} is not available ({missing})")
    digest = sha256(part)
    try:
        lock.enforce(redact(url), digest)
    except DownloadError:
        discard(part)
        raise
    seals.write(part, redact(url), target=target, digest=digest)
    commit(part, target)
    discard(part)
    log.warning("%s is downloaded and kept in %s", redact(url), target)


def _from_shelf(spec: ModelSpec, progress: bool, limits: Limits) -> bool:
    """Whether one of the mirrors is a shelf with this model, which is then downloaded."""
    for base in mirrors.reachable():
        try:
            index = shelf.find(base, limits)
        except DownloadError as error:
            log.warning("%s", error)  # the next mirror, or the archive, may do
            continue
        if index and (entries := index.entries(spec)):
            try:
                path = shelf.download(spec, base, entries, progress, limits)
            except mirrors.UnavailableError as error:
                log.warning("%s", error)
                continue
            log.warning(
                "%s is downloaded from %s and kept in %s", spec.name, mirrors.shown(base), path
            )
            return True
    return False


def _converted(spec: ModelSpec, progress: bool, limits: Limits) -> None:
    """Download the archive of a model and convert it."""
    python = converter.require(spec.name)  # before gigabytes are downloaded in vain
    archive = store.fetch(spec, progress=progress, limits=limits)
    target = store.onnx_path(spec)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(_WORK + "*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    start = perf_counter()
    with tempfile.TemporaryDirectory(prefix=_WORK, dir=target.parent) as made:
        work = Path(made)
        with spinner(f"converting {spec.name}, this once", progress):
            converter.convert(python, archive, spec.name, work)
        report = json.loads((work / "model.parity.json").read_text("utf-8"))
        commit(work / "model.parity.json", target.with_name("model.parity.json"))
        model = work / "model.onnx"
        digest = store.fetched_sha256(spec, archive)
        seals.write(model, f"converted from {archive}", target=target, archive=digest)
        commit(model, target)
    log.warning(
        "%s is converted to ONNX (%.0f s; %.2f%% of the labels as by Paddle) and kept in %s",
        spec.name,
        perf_counter() - start,
        100 * report["parity"]["agreement"],
        target,
    )
