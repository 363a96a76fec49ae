"""The files of a job: which inputs belong to which block, and the results of each block.

    labels/plan/00000.parquet             the inputs of blocks 00000-0000000, 00000-0000001, ...
    labels/results/00000-0000000.parquet  the rows of block 00000-0000000, with their labels

Why each image is done exactly once, whatever is killed when:

1. An input belongs to one block. A plan is written before the work begins, and never again; inputs
   that are new when a job is resumed get a further plan, of what no earlier plan holds.
2. A block has one file of results, whose name follows from the block. It appears as a whole
   (`Folder.writing`), with all rows of the block. It alone says that the block is done.
3. So whoever repeats a block, be it after a crash or because a machine that was thought dead still
   works, replaces a file by one with the same rows. No row is ever added to another file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrt import manifest
from segrt.errors import ConfigError, InputError
from segrt.files import write_atomic
from segrt.journal import check_settings
from segrt.manifest import KEY, Row, Settings
from segrt.names import JobNames
from segrt.ray.inputs import Block
from segrt.ray.segmenter import Labelled, schema, table
from segrt.ray.stores import Folder

if TYPE_CHECKING:
    import pyarrow

_TOGETHER = 64  # rows in memory, and in a row group: each has the labels of an image


class Plan:
    """The blocks of a job.

    Attributes:
        blocks: by name, in order.
    """

    def __init__(self, folder: Folder, settings: Settings) -> None:
        """Read the plans of a job that was begun.

        Raises:
            ConfigError: it was begun with other settings.
            InputError: a plan is damaged.
        """
        from pyarrow import ArrowException, parquet

        self._folder, self._settings = folder, settings
        self.blocks: dict[str, Block] = {}
        self._plans = folder.names("plan")
        for name in self._plans:
            where = folder.path(f"plan/{name}")
            try:
                with folder.open(f"plan/{name}") as file:
                    found = parquet.read_table(file)
                before = manifest.parse_header((found.schema.metadata or {})[KEY.encode()])
                self.blocks |= {row.pop("block"): Block(**row) for row in found.to_pylist()}
            except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
                raise InputError(f"the plan {where} can't be read: {error}") from None
            check_settings(before, settings, f"the job in {folder.url} was")

    def add(self, blocks: Iterable[Block]) -> None:
        """Add blocks with inputs that no other block has."""
        from pyarrow import parquet

        number = len(self._plans)
        new = {f"{number:05}-{index:07}": block for index, block in enumerate(blocks)}
        if not new:
            return
        head = {KEY: manifest.header(self._settings)}
        listed = to_table(new).replace_schema_metadata(head)
        with self._folder.writing(f"plan/{number:05}.parquet") as file:
            parquet.write_table(listed, file, compression="zstd")
        self.blocks |= new

    def keys(self) -> set[str]:
        """What tells the inputs of all blocks apart."""
        return {key for block in self.blocks.values() for key in block.identities()}

    def done(self) -> set[str]:
        """The names of the blocks that are done."""
        names = {name.removesuffix(".parquet") for name in self._folder.names("results")}
        return names & self.blocks.keys()


def to_table(blocks: Mapping[str, Block]) -> pyarrow.Table:
    """Blocks by name as a table, of a plan or for an actor."""
    import pyarrow as pa

    columns = {"block": pa.string(), "kind": pa.string(), "inputs": pa.list_(pa.string())}
    columns |= {"group": pa.int64(), "first": pa.int64(), "column": pa.string()}
    rows = [{"block": name, **asdict(block)} for name, block in blocks.items()]
    return pa.Table.from_pylist(rows, pa.schema(columns))


def write(
    folder: Folder, name: str, rows: Iterable[Labelled], settings: Settings
) -> tuple[int, int]:
    """Write a file of results; returns the number of images segmented and failed."""
    from pyarrow import parquet

    done = failed = 0
    waiting = iter(rows)
    with (
        folder.writing(f"{name}.parquet") as file,
        parquet.ParquetWriter(file, schema(settings), compression="zstd") as writer,
    ):
        while part := list(islice(waiting, _TOGETHER)):
            writer.write_table(table(part, settings))
            wrong = sum(row.error is not None for row, _ in part)
            done, failed = done + len(part) - wrong, failed + wrong
    return done, failed


def read(folder: Folder, name: str) -> Iterator[Labelled]:
    """The content of a file of results.

    Raises:
        InputError: it is damaged.
    """
    from pyarrow import ArrowException, parquet

    file = f"{name}.parquet"
    try:
        with folder.open(file) as opened, parquet.ParquetFile(opened) as source:
            for batch in source.iter_batches(_TOGETHER):
                labels = batch.column("labels").to_pylist()
                yield from zip(manifest.from_table(batch), labels, strict=True)
    except (OSError, ValueError, KeyError, ArrowException) as error:
        raise InputError(f"the results {folder.path(file)} can't be read: {error}") from None


def rows(folder: Folder, name: str) -> list[Row]:
    """The rows of a block, without the labels; none if it is not done.

    Raises:
        InputError: they are damaged.
    """
    from pyarrow import ArrowException, parquet

    file = f"results/{name}.parquet"
    try:
        with folder.open(file) as opened:
            found: Any = parquet.read_table(opened, columns=list(manifest.COLUMNS))
        return list(manifest.from_table(found))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"the results {folder.path(file)} can't be read: {error}") from None


def unpack(out: str, pictures: str | Path) -> int:
    """Write the labels of a job as picture files: `NAME_res.png`, whose pixel values are class ids.

    Names follow from the inputs of the job, in the order of its blocks. Files that are there
    already are left as they are. Do this on one machine, when the job is done.

    Example:
        >>> segrt.ray.unpack("s3://labels/", "pictures/")
        4980

    Args:
        out: the folder of `segrt.ray.segment`.
        pictures: a local folder.

    Returns:
        int: the number of pictures in the folder.

    Raises:
        ConfigError: the labels are not PNGs.
        InputError: the results are damaged.
        OSError: a picture can't be written.
    """
    folder = Folder(out)
    blocks = [name.removesuffix(".parquet") for name in folder.names("results")]
    inputs = dict.fromkeys(row.input for name in blocks for row in rows(folder, name))
    names, count = JobNames(inputs), 0
    for block in blocks:
        for row, labels in read(folder, f"results/{block}"):
            if labels is None:
                continue
            if not labels.startswith(b"\x89PNG"):
                raise ConfigError(f"the labels in {out} are RLE: only PNGs can be unpacked")
            file = Path(pictures, f"{names.of(row.input, row.index)}_res.png")
            if not file.exists():
                write_atomic(file, labels)
            count += 1
    return count
