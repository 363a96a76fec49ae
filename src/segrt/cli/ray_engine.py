"""`segrt predict --engine ray`: actors of a Ray cluster segment and save, this process records.

A part of the inputs goes to an actor with the names of its results, and its rows come back. An
actor that dies is replaced and repeats its part under the same names, so that its files replace
those that are there. Only this process writes the manifest, once it has all rows of a part.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segrt.cli.console import progress_bar
from segrt.cli.jobs import Job, Part
from segrt.cli.options import PipelineOptions
from segrt.cli.saving import OutputOptions, Task, segmented
from segrt.errors import ConfigError, InputError
from segrt.manifest import Row
from segrt.pipeline import Pipeline

if TYPE_CHECKING:
    import pyarrow

SIZE = 32
"""Inputs that are done together, and again if their actor dies."""


def check(output: OutputOptions) -> None:
    """Refuse what no cluster can save or print, before anything is written.

    Raises:
        ConfigError: no folder is given, or PaddleX's form is asked for.
    """
    if output.form == "paddlex":
        raise ConfigError("--engine ray prints shares or JSON: use --show shares or --json")
    if output.save_path is None:
        raise ConfigError("--engine ray needs --save-path: a folder that all nodes share")


def local(model: PipelineOptions) -> Pipeline:
    """The pipeline by which this process checks the options; only actors need a GPU.

    Raises:
        SegrtError: see `create_pipeline`.
    """
    return replace(model, device="cpu", mode=None, use_hpip=False, hpi_config=None).create()


def rows(
    job: Job, model: PipelineOptions, workers: int, task: Task, address: str | None
) -> Generator[Row, None, None]:
    """Segment and save what is left of a job, with a progress bar.

    An input whose actor has died again and again is done alone, and if it ends that process too,
    it gets a row with an error.

    Args:
        job: its inputs.
        model: what the actors load.
        workers: copies of the model in an actor.
        task: what is done with the inputs.
        address: of the cluster, see `segrt.ray.cluster.start`.

    Yields:
        The rows of an input follow each other. Meanwhile, `sys.stdout` is stderr, since Ray prints.

    Raises:
        DeviceError: there is no such cluster or device.
        MissingExtraError: Ray is not installed.
        SegrtError: an actor can't load the model.
    """
    from segrt.ray import cluster

    if not job.todo.inputs:
        return
    handler = signal.getsignal(signal.SIGTERM)
    with redirect_stdout(sys.stderr):  # Ray prints about processes that died
        ray = cluster.start(address)
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
        try:
            yield from _rows(ray, job, model, workers, task)
        finally:
            ray.shutdown()


def _rows(
    ray: Any, job: Job, model: PipelineOptions, workers: int, task: Task
) -> Generator[Row, None, None]:
    from segrt.ray import cluster

    pool = cluster.actors(ray.nodes(), model.device, "auto")
    save_path = task.output.save_path and task.output.save_path.absolute()
    task = replace(task, output=replace(task.output, save_path=save_path))
    arguments = (os.getcwd(), model, workers, task)
    with progress_bar() as progress:
        bar = progress.add_task("segmenting", total=job.total, completed=job.before)
        left = dict.fromkeys(job.todo.inputs)
        for size, retries in ((SIZE, cluster.RETRIES), (1, 1)):
            parts = replace(job.todo, inputs=list(left)).split(size)
            found = cluster.run(ray, _tables(parts), Worker, arguments, pool, retries)
            with closing(found):
                for done in found:
                    yield from map(Row.from_json, done["rows"])
                    for name in parts[done["part"]].inputs:
                        del left[name]
                    progress.update(bar, completed=job.total - len(left))
    for name in left:
        error = f"{name}: the process that segmented it died"
        yield Row(input=name, shares={}, error=error)


class Worker:
    """The actor."""

    def __init__(self, directory: str, model: PipelineOptions, workers: int, task: Task) -> None:
        from segrt.ray import cluster

        cluster.enter(directory)
        folder = task.output.save_path
        if folder is None or not folder.is_dir():
            raise InputError(f"a node does not have {folder}: use a folder that all nodes share")
        self._task, self._pipeline = task, model.create(workers=workers)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Do the parts of a batch, and return the rows of each."""
        import pyarrow as pa

        done = []
        for number, packed in zip(*batch.to_pydict().values(), strict=True):
            frames = pickle.loads(packed).frames(self._task.reading)
            results = segmented(self._pipeline, frames, self._task)
            rows = [Row.of(result, [file.name for file in files]) for result, files in results]
            done.append({"part": number, "rows": [row.to_json() for row in rows]})
        columns = {"part": pa.int64(), "rows": pa.list_(pa.binary())}
        return pa.Table.from_pylist(done, pa.schema(columns))


def _tables(parts: Sequence[Part]) -> list[Any]:
    import pyarrow as pa

    return [
        pa.table({"part": [number], "packed": [pickle.dumps(part)]})
        for number, part in enumerate(parts)
    ]
