"""The journal of a job: the rows of its manifest, on disk as soon as their files are.

The journal is a manifest in lines. It is only ever appended to, one line in one write, so that a
process that is killed leaves whole lines, and at most one torn one behind them. What happens in
between:

- A new job writes the header, and appends rows.
- Resuming a job writes the rows that remain valid to a new file, which replaces the journal.
- A manifest in Parquet is made from the journal at the end of the job, and the journal is deleted.
  Until then it is next to it: `manifest.parquet.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrt import manifest
from segrt.errors import ConfigError, InputError
from segrt.files import replacing, write_atomic
from segrt.manifest import Row, Settings
from segrt.names import without_page

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Journal:
    """The rows of a job, to which one process at a time may add.

    Example:
        >>> with Journal(Path("out/manifest.parquet"), {"model": "colours"}, Path("out")) as rows:
        ...     rows.append(Row.of(result, ["road_res.png"]))
        ...     rows.finish()

    Attributes:
        rows: number of rows.
        failed: number of rows with an error.
        ended: the inputs whose last page or frame has a row, or which have no pages.
        pages: the pages and frames that have a row, by input.
        stems: the name of the results of each input.
        page_stems: the names of the results of pages and frames.
    """

    def __init__(
        self,
        file: Path,
        settings: Settings,
        folder: Path | None,
        *,
        resume: bool = False,
        retry_failed: bool = False,
    ) -> None:
        """Begin a job, or resume it.

        Args:
            file: the manifest, .jsonl or .parquet.
            settings: of the job; a manifest with other ones is refused.
            folder: of the results. When a job is resumed, rows whose files are not there any more
                are dropped. None if no results are saved.
            resume: go on with the manifest, if there is one.
            retry_failed: drop the rows with an error.

        Raises:
            ConfigError: the suffix of `file` is another one, or the settings are.
            InputError: the manifest exists and `resume` is false, it is no manifest, it can't be
                written, or another process is writing it.
            MissingExtraError: it is Parquet, and pyarrow is not installed.
        """
        kind = file.suffix.lower()
        if kind not in (".jsonl", ".parquet"):
            raise ConfigError(
                f"--manifest {file} is not valid: use a name that ends in .jsonl or .parquet"
            )
        if kind == ".parquet":
            manifest.schema()  # before hours of work
        self.file = file
        self.settings = settings
        self._folder, self._retry = folder, retry_failed
        self.path = file if kind == ".jsonl" else file.with_name(f"{file.name}.jsonl")
        self.rows = self.failed = 0
        self.ended = set[str]()
        self.pages = dict[str, set[int]]()
        self.stems, self.page_stems = dict[str, str](), list[str]()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(file)
            try:
                self._begin(resume)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | _BINARY)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise _not_written(file, error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_complete(self, name: str) -> bool:
        """Whether nothing is left to do for an input."""
        return name in self.ended

    def append(self, row: Row) -> None:
        """Add a row, whose files must be complete.

        Raises:
            InputError: the disk is full, or the manifest can't be written.
        """
        line = row.to_json() + b"\n"
        try:
            while line:
                line = line[os.write(self._handle, line) :]
        except OSError as error:
            raise _not_written(self.file, error) from None
        self._count(row)

    def finish(self) -> None:
        """Turn the journal into the manifest, once the job is done.

        Raises:
            InputError: it can't be written; the journal remains.
        """
        try:
            os.fsync(self._handle)
            if self.path != self.file:
                _, rows = manifest.read(self.path)
                manifest.write_parquet(self.file, rows, self.settings)
                self.path.unlink()
        except OSError as error:
            raise _not_written(self.file, error) from None

    def close(self) -> None:
        """Let other processes write the manifest. What is not finished can be resumed."""
        os.close(self._handle)
        self._lock.release()

    def _begin(self, resume: bool) -> None:
        existing = next((path for path in (self.path, self.file) if path.exists()), None)
        head = manifest.header(self.settings) + b"\n"
        if existing is None:
            write_atomic(self.path, head)
        elif not resume:
            raise InputError(
                f"the manifest {existing} exists: --resume goes on with it, another name after "
                "--manifest begins another job"
            )
        elif _is_torn_header(existing, head):
            write_atomic(self.path, head)
        else:
            settings, rows = manifest.read(existing)
            check_settings(settings, self.settings, f"{self.file} was")
            there = _names(self._folder)
            invalid = {row.key for row in rows if not self._is_valid(row, there)}
            _, rows = manifest.read(existing)
            with replacing(self.path, ".jsonl") as temporary, temporary.open("wb") as file:
                file.write(head)
                file.writelines(row.to_json() + b"\n" for row in self._kept(rows, invalid))

    def _is_valid(self, row: Row, there: set[str]) -> bool:
        return not (row.error is not None and self._retry) and there.issuperset(row.outputs)

    def _kept(self, rows: Iterator[Row], invalid: set[tuple[str, int | None]]) -> Iterator[Row]:
        """The valid rows. Where another page of their input is not, none is the last one."""
        incomplete = {name for name, _ in invalid}
        for row in rows:
            if row.key not in invalid:
                kept = replace(row, last=False) if row.input in incomplete else row
                self._count(kept)
                yield kept

    def _count(self, row: Row) -> None:
        self.rows += 1
        self.failed += row.error is not None
        if row.last:
            self.ended.add(row.input)
        if row.index is not None:
            self.pages.setdefault(row.input, set()).add(row.index)
        if row.stem is not None:
            self.stems[row.input] = without_page(row.stem, row.index)
            if row.index is not None:
                self.page_stems.append(row.stem)


def check_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], what: str, other: str = "folder and manifest"
) -> None:
    """Refuse to mix results that were made in different ways.

    Args:
        before: the settings of the manifest.
        now: those of this call.
        what: was begun with the first: "out/manifest.jsonl was".
        other: what the call may name instead: another folder and manifest.

    Raises:
        ConfigError: they differ.
    """
    now = json.loads(json.dumps(now))  # as they are read again
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"{what} begun with {name} {before.get(name)!s:.80}, but this call has {name} "
                f"{now.get(name)!s:.80}: use the same, or another {other}"
            )


_BINARY = getattr(os, "O_BINARY", 0)


def _locked(file: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing the manifest {file}: wait until it has ended"
        ) from None
    return lock


def _is_torn_header(file: Path, head: bytes) -> bool:
    """Whether a manifest holds nothing but the beginning of its header."""
    with file.open("rb") as opened:
        return len(start := opened.read(len(head))) < len(head) and head.startswith(start)


def _names(folder: Path | None) -> set[str]:
    """The names of the files in the folder of the results."""
    if folder is None or not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _not_written(file: Path, error: OSError) -> InputError:
    return InputError(f"the manifest {file} can't be written: {error.strerror or error}")
