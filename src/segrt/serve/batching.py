"""Micro-batching: concurrent requests of the same kind run together."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.backends.memory import release
from segrt.errors import SegrtError
from segrt.frame import SegFailure
from segrt.pipeline import Pipeline
from segrt.request import Request
from segrt.result import SegResult

Size: TypeAlias = tuple[int, int]

# Seconds without images after which idle memory is returned, and after which the network gives up
# the sessions that it can do without.
_IDLE_S, _LONG_IDLE_S = 1.0, 30.0


@dataclass(eq=False)
class _Job:
    image: npt.NDArray[np.uint8]
    request: Request
    size: Size
    arrived: float
    done: Future[SegResult] = field(default_factory=Future)
    wanted: bool = True

    def matches(self, other: _Job) -> bool:
        """Whether both may run in one batch."""
        return self.request == other.request and self.size == other.size


class Batcher:
    """A queue of images, and worker threads that run them in batches.

    A batch starts with the image that has waited longest and adds waiting images with an equal
    request and the same inference size. While all workers are busy the queue fills, so batches grow
    with the load. Only with an idle worker does the first image wait for others, for `max_delay_ms`
    at most.

    Example:
        >>> batcher = Batcher(
        ...     pipeline, max_batch=8, max_pixels=16_000_000, max_delay_ms=2, workers=1
        ... )
        >>> request = pipeline.request(batch_size=8)
        >>> result = await batcher.run(image, request, (512, 1024))
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        max_batch: int,
        max_pixels: int,
        max_delay_ms: float,
        workers: int,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """Start the workers.

        Args:
            pipeline: runs the images.
            max_batch: maximum images per batch.
            max_pixels: maximum pixels, at the inference size, of a batch with several images.
            max_delay_ms: maximum milliseconds that an image waits for others.
            workers: number of threads.
            on_batch: called with the images and seconds of each batch, in the worker's thread.
        """
        self._pipeline = pipeline
        self._max_batch, self._max_pixels, self._delay = max_batch, max_pixels, max_delay_ms / 1000
        self._on_batch = on_batch
        self._waiting: list[_Job] = []
        self._changed = Condition()
        self._closed = False
        self._threads = [
            Thread(target=self._work, name=f"segrt-run-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of images in the queue."""
        return len(self._waiting)

    async def run(self, image: npt.NDArray[np.uint8], request: Request, size: Size) -> SegResult:
        """Segment one image. Cancelling this removes the image from the queue.

        Args:
            image: uint8 (H, W, 3), BGR.
            request: from `Pipeline.request`.
            size: inference size (height, width) of the image.

        Raises:
            SegrtError: see `Pipeline.predict`.
        """
        job = _Job(image, request, size, time.monotonic())
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(job)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.done)
        finally:
            job.wanted = False
            with self._changed:
                if job in self._waiting:
                    self._waiting.remove(job)

    def close(self) -> None:
        """Run the queued images, then stop the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self, patience: float | None) -> list[_Job] | None:
        """Wait for the next batch; None once the batcher is closed and the queue is empty.

        Args:
            patience: seconds after which the batch is empty if there are no images; None for ever.
        """
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closed:
                        return None
                    if not self._changed.wait(patience):
                        return []
                    continue
                first = self._waiting[0]
                most = self._most(first)
                batch = [job for job in self._waiting if job.matches(first)][:most]
                left = first.arrived + self._delay - time.monotonic()
                if len(batch) == most or left <= 0 or self._closed:
                    self._waiting = [job for job in self._waiting if job not in batch]
                    return batch
                self._changed.wait(left)

    def _most(self, job: _Job) -> int:
        if job.request.window:
            return 1  # the crops of the image form the batches
        return max(1, min(self._max_batch, self._max_pixels // (job.size[0] * job.size[1])))

    def _work(self) -> None:
        # There is nothing to return until something has run.
        idle: list[tuple[float, Callable[[], None]]] = []
        while (batch := self._take(idle[0][0] if idle else None)) is not None:
            if batch:
                idle = [(_IDLE_S, release), (_LONG_IDLE_S, self._rest)]
            else:
                gc.collect()  # errors refer to the images of their requests, in circles
                idle.pop(0)[1]()
            jobs = [job for job in batch if job.done.set_running_or_notify_cancel()]
            if jobs:
                start = time.perf_counter()
                self._run(jobs)
                self._on_batch(len(jobs), time.perf_counter() - start)

    def _rest(self) -> None:
        for session in self._pipeline.sessions:
            session.rest()

    def _run(self, jobs: list[_Job]) -> None:
        def progress(done: int, total: int) -> None:
            if not any(job.wanted for job in jobs):
                raise SegrtError("the request was cancelled")

        request = jobs[0].request
        pending = iter(jobs)
        try:
            results = self._pipeline.predict(
                [job.image for job in jobs],
                request.target_size,
                batch_size=request.batch_size,
                on_error="yield",
                scores=request.scores,
                slide=request.window or False,
                progress=progress,
            )
            for result in results:
                job = next(pending)
                if isinstance(result, SegFailure):
                    job.done.set_exception(result.error)
                else:
                    job.done.set_result(result)
        except Exception as error:  # any error must reach the callers, not end the worker
            for job in pending:
                job.done.set_exception(error)
