"""The inputs of a job, cut into blocks, and how an actor reads a block.

A block is what one actor does in one go, and what one file of results holds: up to `size` files,
one group of rows of a Parquet file, or one tar. Only names are listed here, and the footers of
Parquet files: the actors read the images.
"""

from __future__ import annotations

import fnmatch
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import has_magic
from typing import Any, Literal

from segrt.errors import ConfigError, InputError, TooLargeError
from segrt.folders import find_images
from segrt.formats import VIDEO_SUFFIXES, is_image_name
from segrt.ray import stores

MAX_MEMBER = 1 << 30
"""Limit on the bytes of one image in a tar or a Parquet file; the latter is in memory by then."""

_ROWS = 16  # rows of a Parquet file in memory
_TARS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Block:
    """A part of the inputs.

    Attributes:
        kind: what the inputs are: image files, a group of rows of a Parquet file, or a tar.
        inputs: paths or URLs; one, unless they are files.
        group: of rows, in the Parquet file.
        first: number of the first row of that group.
        column: of the images in the Parquet file; or a pattern for the names in the tar.
    """

    kind: Literal["files", "rows", "tar"]
    inputs: Sequence[str]
    group: int = 0
    first: int = 0
    column: str = ""

    def identities(self) -> list[str]:
        """What tells its inputs from those of other blocks."""
        return [f"{self.inputs[0]}#{self.group}"] if self.kind == "rows" else list(self.inputs)

    def read(self) -> Iterator[tuple[str, object]]:
        """The name of each image, and its path, its bytes, or the error why it can't be read."""
        if self.kind == "files":
            return ((name, name) for name in self.inputs)
        return self._rows() if self.kind == "rows" else self._members()

    def _rows(self) -> Iterator[tuple[str, object]]:
        from pyarrow import parquet

        [file] = self.inputs
        number = self.first
        try:
            system, path = stores.connect(file)
            with system.open(path, "rb") as opened, parquet.ParquetFile(opened) as source:
                for batch in source.iter_batches(
                    _ROWS, row_groups=[self.group], columns=[self.column]
                ):
                    for scalar in batch.column(0):
                        name, number = f"{file}#{number}", number + 1
                        value = scalar.as_py()
                        content = value.get("bytes") if isinstance(value, dict) else value
                        if not content:
                            yield name, InputError("the row has no image")
                        elif len(content) > MAX_MEMBER:
                            yield name, _too_large()
                        else:
                            yield name, content
        except Exception as error:  # of the store or of Arrow
            yield f"{file}#{number}", _unreadable(error)

    def _members(self) -> Iterator[tuple[str, object]]:
        [file] = self.inputs
        seen: dict[str, int] = {}
        try:
            system, path = stores.connect(file)
            with system.open(path, "rb") as opened, tarfile.open(fileobj=opened, mode="r|*") as tar:
                for member in tar:
                    base = os.path.basename(member.name)
                    if not member.isfile() or base.startswith(".") or not is_image_name(base):
                        continue
                    if not fnmatch.fnmatch(member.name, self.column):
                        continue
                    seen[member.name] = count = seen.get(member.name, 0) + 1
                    name = f"{file}/{member.name}" + (f"#{count}" if count > 1 else "")
                    if member.size > MAX_MEMBER:
                        yield name, _too_large()
                    elif content := tar.extractfile(member):
                        yield name, content.read()
        except Exception as error:  # of the store, or of what the tar is compressed with
            yield file, _unreadable(error)


def blocks(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    size: int,
    column: str,
    members: str,
    skip: str,
    known: set[str],
) -> Iterator[Block]:
    """List inputs, and cut them into blocks.

    Args:
        source: as in `segrt.ray.segment`.
        size: files in a block.
        column: of Parquet files, with paths or images.
        members: a pattern for the names in tars.
        skip: a folder whose files are no inputs: that of the results.
        known: keys of the inputs that belong to a block already; new ones are added.

    Raises:
        InputError: an input is a video, a folder can't be read, or a pattern matches nothing.
    """
    waiting: list[str] = []
    for name in _names(source, skip):
        kind = _kind(name)
        if kind == "rows":
            for found in _groups(name, column):
                if isinstance(found, str):
                    waiting += _new([found], known)
                elif _new(found.identities(), known):
                    yield found
        elif kind == "tar":
            if _new([name], known):
                yield Block("tar", [name], column=members)
        else:
            waiting += _new([name], known)
        while len(waiting) >= size:
            yield Block("files", waiting[:size])
            del waiting[:size]
    if waiting:
        yield Block("files", waiting)


def _new(keys: list[str], known: set[str]) -> list[str]:
    new = [key for key in dict.fromkeys(keys) if key not in known]
    known.update(new)
    return new


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(_TARS):
        return "tar"
    return "rows" if lower.endswith(".parquet") else "files"


def _names(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], skip: str
) -> Iterator[str]:
    """The names of all files, in order."""
    for item in [source] if isinstance(source, (str, os.PathLike)) else source:
        name = os.fspath(item)
        if not isinstance(name, str):
            raise InputError(f"{name!r} is not a path or URL")
        kind = stores.scheme(name)
        if kind == "file":
            name = stores.connect(name)[1]
        elif kind in ("http", "https"):
            yield name
            continue
        suffix = os.path.splitext(name)[1].lower()
        if suffix in VIDEO_SUFFIXES or name.startswith("camera:"):
            raise InputError(f"{name} is a video or camera: segment it with segrt predict")
        yield from _remote(name, skip) if stores.is_remote(name) else _local(name, skip)


def _local(name: str, skip: str) -> Iterator[str]:
    if os.path.isdir(name):
        found = find_images(name)
        others = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if _kind(file) != "files" and not file.startswith(".")
        ]
        found.warn(name)
        files = sorted(
            file for file in {*found.files, *others} if not os.path.abspath(file).startswith(skip)
        )
        if not files:
            raise InputError(f"the folder {name} holds no image, Parquet file or tar")
        yield from files
    elif has_magic(name) and not os.path.lexists(name):
        from glob import iglob

        files = sorted(
            file
            for file in iglob(name, recursive=True)
            if not os.path.abspath(file).startswith(skip)
        )
        if not files:
            raise InputError(f"no file matches {name}")
        for file in files:
            yield from _local(file, skip) if os.path.isdir(file) else [file]
    else:
        yield name


def _remote(url: str, skip: str) -> Iterator[str]:
    system, path = stores.connect(url)
    kind = stores.scheme(url)
    try:
        if has_magic(path):
            found = system.glob(path)
        elif system.isdir(path):
            found = [file for file in system.find(path) if _kind(file) != "files" or _visible(file)]
        else:
            yield url
            return
    except Exception as error:
        raise InputError(f"{url} can't be listed: {str(error) or repr(error)}") from None
    if not found:
        raise InputError(f"{url} holds no image, Parquet file or tar")
    for file in sorted(found):
        full = f"{kind}://{file.lstrip('/')}"
        if not full.startswith(skip):
            yield full


def _visible(file: str) -> bool:
    base = os.path.basename(file)
    return not base.startswith(".") and is_image_name(base)


def _groups(file: str, column: str) -> Iterator[Block | str]:
    """The paths in a Parquet file, or a block for each group of rows with images."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        system, path = stores.connect(file)
        with system.open(path, "rb") as opened, parquet.ParquetFile(opened) as source:
            names = source.schema_arrow.names
            if column not in names:
                raise ConfigError(
                    f"{file} has no column {column!r}: choose one of {', '.join(names)} with "
                    "column="
                )
            kind: Any = source.schema_arrow.field(column).type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                for batch in source.iter_batches(columns=[column]):
                    yield from (value for value in batch.column(0).to_pylist() if value)
                return
            first = 0
            for group in range(source.num_row_groups):
                yield Block("rows", [file], group, first, column)
                first += source.metadata.row_group(group).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} can't be read as Parquet: {_unreadable(error)}") from None


def _too_large() -> TooLargeError:
    return TooLargeError(f"it has more than {MAX_MEMBER:,} bytes")


def _unreadable(error: Exception) -> InputError:
    return InputError(f"it can't be read: {' '.join(str(error).split()) or type(error).__name__}")
