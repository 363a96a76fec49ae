"""The files of onnxruntime-web, from its npm package.

They are 14 MB (41 MB with WebGPU), so segrt does not contain them: one version of the package is
downloaded when the first page is built, checked, and kept in the cache folder.
"""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from segrt import mirrors, store
from segrt.errors import ConfigError, DownloadError
from segrt.files import commit
from segrt.http import LIMITS, Limits, discard
from segrt.waiting import download_bar

VERSION = "1.30.0"
"""The version that segrt's tests run."""

INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""SHA-512 of the package, in base64, as npm states it."""

FILES = {
    "wasm": (
        "ort.wasm.min.mjs",
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
    ),
    "webgpu": (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
    ),
}
"""The files that each provider needs, as in packages/web/src/network.js."""

_NAME = f"onnxruntime-web-{VERSION}.tgz"
_NPM = "https://registry.npmjs.org/onnxruntime-web/-"
_MAX_FILE = 64 << 20


def read(
    names: Iterable[str], folder: Path | None = None, *, limits: Limits = LIMITS
) -> dict[str, bytes]:
    """Read files of onnxruntime-web.

    Example:
        >>> sorted(read(FILES["wasm"], Path("node_modules/onnxruntime-web")))[-1]
        'ort.wasm.min.mjs'

    Args:
        names: names of files in the package's folder `dist`.
        folder: the unpacked npm package, or its `dist`; None to download it on first use.
        limits: when to give up the download.

    Returns:
        dict: the content of each file, by name.

    Raises:
        ConfigError: the folder lacks a file.
        DownloadError: the package can't be downloaded, or is not the expected one.
    """
    if folder is None:
        return _unpacked(_package(limits), names)
    dist = folder / "dist" if (folder / "dist").is_dir() else folder
    try:
        return {name: (dist / name).read_bytes() for name in names}
    except OSError as error:
        raise ConfigError(
            f"{folder} is not the npm package onnxruntime-web: {error.filename} can't be read "
            f"({error.strerror})"
        ) from None


def _package(limits: Limits) -> Path:
    """The npm package in the cache folder; downloaded on first use, and checked each time."""
    path = store.home() / "npm" / _NAME
    with store.locked(path.parent, "onnxruntime-web"):
        if path.is_file():
            if _digest(path) != INTEGRITY:
                raise DownloadError(f"{path} was changed: delete it, and run the command again")
            return path
        part = path.with_name(path.name + ".part")
        tried = []
        for base in mirrors.reachable() or ([] if mirrors.offline() else [_NPM]):
            source = mirrors.address(base, _NAME)
            with download_bar("onnxruntime-web") as advance:
                try:
                    missing = mirrors.get(source, part, limits, advance)
                except mirrors.UnavailableError as error:
                    missing = str(error)
                except OSError as error:
                    store.discard_if_full(part, error)
                    raise DownloadError(f"{path} can't be written: {error.strerror}") from None
            if not missing and _digest(part) != INTEGRITY:
                discard(part)
                missing = f"it is not version {VERSION} as published"
            if not missing:
                commit(part, path)
                discard(part)
                return path
            tried.append(f"{mirrors.shown(source)}: {missing}")
    reason = "; ".join(tried) or "SEGRT_OFFLINE forbids network access"
    raise DownloadError(
        f"onnxruntime-web can't be downloaded ({reason}): unpack its npm package, and name the "
        "folder with --runtime"
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def _unpacked(package: Path, names: Iterable[str]) -> dict[str, bytes]:
    wanted = {f"package/dist/{name}": name for name in names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(package, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isfile() and member.size <= _MAX_FILE:
                    content = tar.extractfile(member)
                    found[wanted[member.name]] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DownloadError(f"{package} can't be read ({error}): delete it") from None
    if missing := set(wanted.values()) - set(found):
        raise DownloadError(f"{package} lacks {', '.join(sorted(missing))}")
    return found
