"""Files on the local disk and in the stores that fsspec knows: s3, gs, az, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segrt.errors import ConfigError, MissingExtraError
from segrt.files import replacing

PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip
"""The object stores, where a file appears whole or not at all, and the package for each."""


def scheme(url: str) -> str:
    """The scheme of a URL in lower case; "" for a path.

    Example:
        >>> scheme("s3://photos/a.jpg"), scheme("photos/a.jpg")
        ('s3', '')
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", url)
    return match[1].lower() if match else ""


def is_remote(url: str) -> bool:
    """Whether fsspec reads it: neither a path nor http(s), which segrt reads itself."""
    return scheme(url) not in ("", "http", "https")


def connect(url: str) -> tuple[Any, str]:
    """The file system of fsspec that a path or URL belongs to, and its name there.

    Raises:
        ConfigError: there is no such scheme.
        MissingExtraError: fsspec or the package for the scheme is not installed.
    """
    try:
        import fsspec
    except ImportError:
        raise missing() from None
    kind = scheme(url)
    try:
        system, name = fsspec.core.url_to_fs(url)
    except ImportError:
        package = PACKAGES.get(kind)
        how = f"run  pip install {package}" if package else "install fsspec's package for it"
        raise MissingExtraError(f"{kind}:// needs a package of its own: {how}") from None
    except ValueError:
        raise ConfigError(
            f"{url}: fsspec knows no {kind}://; use a path, file, {', '.join(PACKAGES)} or http(s)"
        ) from None
    return system, name


def missing() -> MissingExtraError:
    """The error for an environment without Ray."""
    return MissingExtraError("segrt.ray needs Ray Data: run  pip install 'segrt[ray]'")


def read(url: str) -> bytes:
    """The content of a file."""
    system, name = connect(url)
    content: bytes = system.cat_file(name)
    return content


class Folder:
    """A folder in which files appear whole or not at all, on disk or in an object store.

    Example:
        >>> folder = Folder("s3://labels/job1")
        >>> with folder.writing("results/000.parquet") as file:
        ...     parquet.write_table(table, file)

    Attributes:
        url: of the folder; a path is absolute.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Connect to it; nothing is written.

        Raises:
            ConfigError: it is in a store where half-written files can be seen.
            MissingExtraError: see `connect`.
        """
        url = os.fspath(url)
        kind = scheme(url)
        if kind not in ("", "file", *PACKAGES):
            raise ConfigError(
                f"{url} can't hold the results of a job: use a folder that all machines share, or "
                f"one of {', '.join(f'{name}://' for name in PACKAGES)}"
            )
        self._system, self._root = connect(url)
        self._is_local = kind in ("", "file")
        self.url = os.path.abspath(self._root) if self._is_local else url.rstrip("/")

    def path(self, name: str) -> str:
        """The path or URL of a file in it, as `connect` takes it."""
        return f"{self.url}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Provide a local file, which appears under this name as a whole on a normal exit.

        Raises:
            OSError: it can't be written; under its name there is what was there before.
        """
        if self._is_local:
            with replacing(Path(self.url, name)) as temporary:
                yield temporary
            return
        with TemporaryDirectory(prefix="segrt-") as folder:
            temporary = Path(folder, "file")
            yield temporary
            self._system.put_file(str(temporary), f"{self._root.rstrip('/')}/{name}")

    def open(self, name: str) -> Any:
        """Open a file in it for reading."""
        return self._system.open(f"{self._root.rstrip('/')}/{name}", "rb")

    def names(self, part: str) -> list[str]:
        """The names of the Parquet files in a subfolder, sorted; none without that folder."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(f"{self._root.rstrip('/')}/{part}", detail=False)
        except FileNotFoundError:
            return []
        names = (os.path.basename(name) for name in found)
        return sorted(name for name in names if re.fullmatch(r"[0-9].*\.parquet", name))
