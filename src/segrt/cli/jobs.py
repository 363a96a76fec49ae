"""Jobs of `segrt predict`: with a manifest they can be resumed, with shards they can be split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from segrt import manifest, sources
from segrt.cli.inputs import Shard
from segrt.cli.standard import Piped, opened
from segrt.errors import ConfigError, InputError
from segrt.files import write_atomic
from segrt.formats import has_one_image
from segrt.frame import Frame, SegFailure
from segrt.journal import Journal, check_settings
from segrt.manifest import Row, Settings
from segrt.names import JobNames
from segrt.reading import Reading

JOB = Group("Job", sort_key=5)
SHARDS = ".segrt-shards.json"
"""The file in the folder of the results by which the shards of a job agree on its inputs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How a job of many images is recorded, resumed and split."""

    manifest: Annotated[Path | None, Parameter(group=JOB)] = None
    """Write a row for each image, as the work goes, to this file: .jsonl or .parquet."""

    resume: Annotated[bool, Parameter(group=JOB, negative="", show_default=False)] = False
    """Go on with the manifest, if it exists: do what has no row yet."""

    retry_failed: Annotated[bool, Parameter(group=JOB, negative="", show_default=False)] = False
    """With --resume: do what failed again."""

    shard: Annotated[str | None, Parameter(group=JOB)] = None
    """Do one part of the inputs: 3/16 is the third of 16."""

    ray_address: Annotated[str | None, Parameter(group=JOB)] = None
    """With --engine ray: the cluster; auto: that of this machine; default: a new one, here."""

    @property
    def part(self) -> Shard | None:
        """The parsed shard.

        Raises:
            ConfigError: it is invalid, or an option is missing.
        """
        if self.resume and self.manifest is None:
            raise ConfigError("--resume needs --manifest, which says what is done")
        if self.retry_failed and not self.resume:
            raise ConfigError("--retry-failed needs --resume")
        return Shard.parse(self.shard) if self.shard else None

    def check(
        self,
        videos: list[str],
        file: Path | None,
        *,
        piped: bool = False,
        on_ray: bool = False,
    ) -> None:
        """Refuse what no job can do, before anything is written.

        Args:
            videos: the inputs that are videos or cameras.
            file: the only file that is saved, if it is one.
            piped: whether an image on standard input is one of them.
            on_ray: whether it runs on a Ray cluster.

        Raises:
            ConfigError: the results are not saved in a folder.
            InputError: an input is a video, a camera, or the image on standard input.
        """
        asked = {"--manifest": self.manifest, "--shard": self.shard, "--engine ray": on_ray}
        option = next((name for name, given in asked.items() if given), None)
        if option is None:
            return
        if file:
            raise ConfigError(f"{option} is for many images, but {file} is one file: use a folder")
        if videos:
            raise InputError(
                f"{option} is for images, but {videos[0]} is a video: segment it in another call"
            )
        if piped:
            raise InputError(
                f"{option} is for files, but standard input is an image: save it first"
            )


@dataclass(frozen=True)
class Part:
    """Inputs of a job, with what a process needs to do them.

    Attributes:
        inputs: paths and URLs.
        pages: the pages and frames of them that are done.
        names: of their results.
    """

    inputs: Sequence[str]
    pages: Mapping[str, Set[int]]
    names: JobNames

    def frames(
        self, reading: Reading, is_kept: Callable[[str, str], bool] | None = None
    ) -> Iterator[Frame | SegFailure]:
        """The images that are left, each with the name of its result.

        Args:
            reading: how files are read.
            is_kept: tells whether an image is left out, given its input and the name of its result.
        """
        for name in self.inputs:
            done = self.pages.get(name, ())
            if is_kept and _has_one_image(name) and is_kept(name, self.names.of(name, None)):
                continue
            for item in sources.frames(opened(name), reading):
                if item.page_index in done:
                    continue
                if isinstance(item, SegFailure):
                    yield item
                    continue
                stem = self.names.of(name, item.page_index)
                if is_kept is None or not is_kept(name, stem):
                    yield replace(item, stem=stem)

    def split(self, size: int) -> list[Part]:
        """Parts with up to `size` inputs each."""
        parts = []
        for start in range(0, len(self.inputs), size):
            inputs = self.inputs[start : start + size]
            pages = {name: self.pages[name] for name in inputs if name in self.pages}
            parts.append(Part(inputs, pages, self.names.part(inputs)))
        return parts


class Job:
    """The work on a list of inputs: what is left of it, and what became of it.

    Example:
        >>> with Job(inputs, settings, options, Path("out")) as job:
        ...     for result in pipeline.predict(job.todo.frames(Reading()), on_error="yield"):
        ...         outputs = [] if result.error else result.save_to_img("out")
        ...         job.record(Row.of(result, [file.name for file in outputs]))
        ...     job.finish()

    Attributes:
        todo: what was not complete at the beginning.
        total: number of inputs of this shard.
    """

    def __init__(
        self, inputs: list[str], settings: Settings, options: JobOptions, save_path: Path | None
    ) -> None:
        """Begin or resume a job.

        Args:
            inputs: all inputs, of all shards.
            settings: what must not change when it is resumed.
            options: of the command.
            save_path: folder of the results.

        Raises:
            ConfigError: the settings are not those of the manifest, or of the other shards.
            InputError: see `Journal`.
        """
        inputs = list(dict.fromkeys(inputs))
        shard = options.part
        if shard is not None:
            settings = settings | {"shards": shard.count, "inputs": _digest(inputs)}
            if save_path is not None:
                _agree(save_path, settings)
            settings |= {"shard": shard.number}
        part = inputs if shard is None else shard.part(inputs)
        self._journal = None
        if options.manifest is not None:
            settings |= {"save_path": _relative(save_path, options.manifest)}
            self._journal = Journal(
                options.manifest,
                settings,
                save_path,
                resume=options.resume,
                retry_failed=options.retry_failed,
            )
        journal = self._journal
        self.total = len(part)
        names = JobNames(inputs, journal.stems, journal.page_stems) if journal else JobNames(inputs)
        left = [name for name in part if not (journal and journal.is_complete(name))]
        self.todo = Part(left, journal.pages if journal else {}, names)
        self._held: Row | None = None

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal:
            self._journal.close()

    @property
    def is_recorded(self) -> bool:
        """Whether there is a manifest."""
        return self._journal is not None

    @property
    def before(self) -> int:
        """Number of inputs that were complete at the beginning."""
        return self.total - len(self.todo.inputs)

    @property
    def complete(self) -> int:
        """Number of inputs that the manifest says are complete."""
        if self._journal is None:
            return 0
        return self.before + sum(map(self._journal.is_complete, self.todo.inputs))

    def record(self, row: Row) -> None:
        """Add the row of an image whose results are saved.

        That of a page or frame follows with the next one, as only then it is known whether it is
        the last of its input.

        Raises:
            InputError: the manifest can't be written.
        """
        if self._journal is None:
            return
        self._release(row.input)
        if row.index is None:
            self._journal.append(row)
        else:
            self._held = row

    def finish(self) -> None:
        """Complete the manifest, after the last result.

        Raises:
            InputError: it can't be written.
        """
        if self._journal is not None:
            self._release(None)
            self._journal.finish()

    def _release(self, following: str | None) -> None:
        if self._held is not None and self._journal is not None:
            self._journal.append(replace(self._held, last=self._held.input != following))
        self._held = None


def _has_one_image(name: str) -> bool:
    """Whether an input is one image, so that it need not be decoded to be left out."""
    if isinstance(name, Piped) or not os.path.isfile(name):
        return False
    try:
        with open(name, "rb") as file:
            return has_one_image(file.read(1 << 16))
    except OSError:
        return False


def _digest(inputs: list[str]) -> str:
    """What two lists have in common only if they have the same names in the same order."""
    digest = hashlib.sha256()
    for name in inputs:
        digest.update(os.fsencode(name) + b"\0")
    return f"{len(inputs)} with SHA-256 {digest.hexdigest()[:16]}"


def _relative(folder: Path | None, file: Path) -> str | None:
    """The folder as seen from a file, so that both can be moved together."""
    if folder is None:
        return None
    try:
        return Path(os.path.relpath(folder, file.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(folder.absolute())


def _agree(folder: Path, settings: Settings) -> None:
    """Refuse a shard that has other inputs or settings than those before it.

    Otherwise two of them could do one image, or save two images under one name.
    """
    from filelock import FileLock

    file = folder / SHARDS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{SHARDS}.lock"):
            if not file.exists():
                write_atomic(file, manifest.header(settings))
            found = manifest.parse_header(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{file} is not from segrt, or is damaged: {error}") from None
    check_settings(found, settings, "the shards in this folder were")
