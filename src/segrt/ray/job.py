"""A job of many images on a Ray cluster, which can be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrt.errors import ConfigError, InputError
from segrt.manifest import Row, Settings
from segrt.names import is_url
from segrt.ray import cluster, shards
from segrt.ray.inputs import Block, blocks
from segrt.ray.segmenter import LabelColumn, Labelled, Segmenter
from segrt.ray.stores import Folder
from segrt.settings import settings
from segrt.types import shown

if TYPE_CHECKING:
    import pyarrow

    from segrt.slide import SlideLike
    from segrt.types import SizeLike

Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Job:
    """What a call of `segment` did.

    Attributes:
        out: the folder of the results.
        done: images that are segmented, in the blocks that this call has written.
        failed: images that failed, in these blocks; their rows say why.
        before: blocks of inputs that were done before.
        blocks: blocks of inputs of the whole job.
    """

    out: str
    done: int
    failed: int
    before: int
    blocks: int


def segment(
    src: Source,
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    concurrency: int | str = "auto",
    resume: bool = True,
    retry_failed: bool = False,
    address: str | None = None,
    column: str = "path",
    members: str = "*",
    block: int = 64,
    labels: LabelColumn = "png",
    pictures: str | os.PathLike[str] | None = None,
    device: str | None = None,
    workers: int = 2,
    target_size: SizeLike = None,
    batch_size: int | None = None,
    slide: SlideLike = None,
    exif: bool = True,
    pdf_scale: float = 2.0,
    max_pixels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Job:
    """Segment images on a Ray cluster, into Parquet files with labels.

    `out/results` then holds Parquet files with the columns of `Segmenter`, one row an image. A
    broken image is a row with an error. An actor that dies is replaced. The job may be killed at
    any moment, and the same call then does what is missing: each image has one row, see
    `segrt.ray.shards`. One process at a time may run a job.

    The actors read the images, and write the results: neither passes through this process, nor
    through Ray's object store. No other tasks read, so none can starve: the actors never wait for a
    core that they hold themselves. Each has about ten images in memory, and the labels of 64.

    Example:
        >>> job = segrt.ray.segment("s3://photos/*.jpg", "s3://labels/", address="auto")
        >>> rows = pyarrow.dataset.dataset("s3://labels/results").to_table()

    Args:
        src: a folder, a pattern, a path, a URL of fsspec (s3, gs, az, file, ...) or http(s), or a
            list of these. Parquet files and tars (WebDataset) among them are read: each row of the
            first is a path or an image, and each image in the second is one. Nodes of a cluster
            must see paths as this process does.
        out: a folder, which all nodes share, or a URL of s3, gs or az.
        model: a name of `segrt models`, an .onnx file, its URL, or a folder with a model.
        concurrency: number of actors; "auto" is one for each GPU, or else for each machine.
        resume: go on, if the job was begun; False refuses a folder that holds a job.
        retry_failed: do the images again that failed before.
        address: of the cluster, "auto" for the one of this machine; None starts one here.
        column: of Parquet files: with paths or URLs as text, or with images as bytes.
        members: a pattern for the names in tars, such as "*.jpg".
        block: number of files that are done, and written, together.
        labels: "png" or "rle", see `Segmenter`.
        pictures: also write label pictures to this local folder, in the end; see `unpack`.
        device: as in `create_pipeline`, within an actor; "cpu" leaves GPUs alone.
        workers: number of model copies in an actor.
        target_size: as in `Pipeline.predict`, like the next five.
        batch_size: images that run together.
        slide: sliding window.
        exif: apply the EXIF orientation of photos.
        pdf_scale: pixels per point of PDF pages.
        max_pixels: limit on the pixels of an image.
        progress: called with the blocks done and their total.
        options: further ones of `create_pipeline`.

    Raises:
        ConfigError: an argument is invalid, or is not that with which the job was begun.
        DeviceError: there is no such cluster or device.
        InputError: inputs can't be listed, or results can't be written.
        MissingExtraError: Ray, or the package for a URL, is not installed.
        SegrtError: the model can't be loaded.
    """
    if type(block) is not int or not 1 <= block <= 100_000:
        raise ConfigError(
            f"block {shown(block)} is not valid: it must be a whole number from 1 to 100,000"
        )
    if pictures is not None and labels != "png":
        raise ConfigError("pictures need labels='png'")
    ray = cluster.start(address)
    kwargs = {
        **_model(model),
        **options,
        "workers": workers,
        "labels": labels,
        "target_size": target_size,
        "batch_size": batch_size,
        "slide": slide,
        "exif": exif,
        "pdf_scale": pdf_scale,
        "max_pixels": max_pixels,
    }
    pool = cluster.actors(ray.nodes(), device, concurrency)
    folder = Folder(out)
    decisive = _settings(kwargs, {"labels": labels, "members": members, "column": column})
    plan = shards.Plan(folder, decisive)
    if plan.blocks and not resume:
        raise InputError(f"{folder.url} holds a job: resume=True goes on with it")
    skip = f"{folder.url}/"
    known = plan.keys()
    plan.add(blocks(src, size=block, column=column, members=members, skip=skip, known=known))
    before = plan.done()
    todo = [name for name in plan.blocks if name not in before]
    if retry_failed:
        todo += [
            name for name in sorted(before) if any(row.error for row in shards.rows(folder, name))
        ]
    count, done, failed = len(plan.blocks), 0, 0
    left = dict.fromkeys(todo)
    for careful in (False, True):
        arguments = (os.getcwd(), folder.url, decisive, kwargs | {"device": device}, careful)
        for row in _run(ray, pool, [(name, plan.blocks[name]) for name in left], arguments):
            left.pop(row["block"], None)
            done, failed = done + row["done"], failed + row["failed"]
            if progress:
                progress(count - len(left), count)
    if left:
        raise InputError(
            f"{len(left)} of {count} blocks are not done, since their processes ended: the same "
            "call again does them"
        )
    if pictures is not None:
        shards.unpack(folder.url, Path(pictures))
    return Job(folder.url, done, failed, len(before), count)


class BlockWriter:
    """The actor of a job: it segments blocks, and writes the results of each.

    A block whose actor has died several times is done with care: before an image is segmented, it
    is written that its process has died, in a file that its results then replace. The next actor
    goes on after it. So one image that ends its process costs no other one.
    """

    def __init__(
        self,
        directory: str,
        out: str,
        decisive: Settings,
        kwargs: Mapping[str, Any],
        careful: bool,
    ) -> None:
        cluster.enter(directory)
        self._folder, self._settings, self._careful = Folder(out), decisive, careful
        self._segmenter = Segmenter(**kwargs)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Do the blocks of a batch, and return how many images of each were done and failed."""
        import pyarrow as pa

        counts = []
        for row in batch.to_pylist():
            name = row.pop("block")
            done, failed = self._do(name, Block(**row))
            counts.append({"block": name, "done": done, "failed": failed})
        return pa.Table.from_pylist(counts)

    def _do(self, name: str, block: Block) -> tuple[int, int]:
        before = shards.rows(self._folder, name)  # of an actor that died, or to retry failures
        good = {row.input for row in before} - {row.input for row in before if row.error}
        there = shards.read(self._folder, f"results/{name}")
        kept = (found for found in there if found[0].input in good)
        items = (item for item in block.read() if item[0] not in good)
        rows = self._one_by_one(name, items) if self._careful else self._segmenter.rows(items)
        rows = chain(kept, rows) if good else rows
        return shards.write(self._folder, f"results/{name}", rows, self._settings)

    def _one_by_one(self, name: str, items: Iterator[tuple[str, object]]) -> Iterator[Labelled]:
        there = self._folder.names(f"pieces/{name}")
        for number, item in enumerate(items):
            piece = f"pieces/{name}/{number:07}"
            if f"{number:07}.parquet" not in there:
                error = f"{item[0]}: the process that segmented it died"
                row = Row(input=item[0], shares={}, error=error)
                shards.write(self._folder, piece, [(row, None)], self._settings)
                rows = self._segmenter.rows([item])
                shards.write(self._folder, piece, rows, self._settings)
            yield from shards.read(self._folder, piece)


def _run(
    ray: Any,
    pool: cluster.Actors,
    work: list[tuple[str, Block]],
    arguments: tuple[object, ...],
) -> Iterator[dict[str, Any]]:
    """What `BlockWriter` returns for each block, as they end."""
    tables = [shards.to_table({name: block}) for name, block in work]
    retries = -1 if arguments[-1] else cluster.RETRIES
    yield from cluster.run(ray, tables, BlockWriter, arguments, pool, retries)


def _model(model: str | os.PathLike[str] | None) -> dict[str, str]:
    """The arguments of `create_pipeline` for a name, a path or a URL."""
    if model is None:
        return {}
    name = os.fspath(model)
    if is_url(name):
        return {"model_dir": name}
    if os.path.exists(name) or name.endswith(".onnx"):
        return {"model_dir": os.path.abspath(name)}
    return {"model_name": name}


def _settings(kwargs: Mapping[str, Any], output: dict[str, Any]) -> Settings:
    """What decides the results; this loads the model, before any actor does."""
    running = {"mode", "use_hpip", "hpi_config", "engine", "engine_config", "pp_option"}
    given = {name: value for name, value in kwargs.items() if name not in running}
    segmenter = Segmenter(**(given | {"device": "cpu", "workers": 1}))
    with segmenter.pipeline as pipeline:
        return settings(pipeline, segmenter.request, segmenter.reading, output)
