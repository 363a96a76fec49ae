"""Requests of one shape go through the network together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

import numpy as np
import numpy.typing as npt

from segrt.errors import SegrtError
from segrt.pipeline import Pipeline
from segrt.frame import SegFailure
from segrt.result import SegResult
from segrt.slide import Window
from segrt.types import TargetSize


@dataclass(frozen=True)
class How:
    """What `Pipeline.predict` is asked for.

    Attributes:
        target_size: size of inference.
        slide: sliding window; True for the model's own, None for what the pipeline is set to.
        scores: give scores too.
    """

    target_size: TargetSize = None
    slide: Window | bool | None = None
    scores: bool = False


@dataclass(eq=False)
class _Job:
    image: npt.NDArray[np.uint8]
    how: How
    size: tuple[int, int]
    arrived: float
    done: Future[SegResult] = field(default_factory=Future)
    wanted: bool = True


class Batcher:
    """A queue of images and the threads that run them, a batch each.

    A batch begins with the request that waits longest, and takes those of the same options and the same size of
    inference that are there; while all threads are busy the queue fills, so batches grow with the load. Only when a
    thread is idle does the first request wait for company, `max_delay_ms` at most.
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
        """Start the threads.

        Args:
            pipeline: what runs the images.
            max_batch: most images of a batch.
            max_pixels: most pixels of a batch of more than one image, at the size of inference.
            max_delay_ms: milliseconds that a request waits for others.
            workers: how many threads.
            on_batch: told the images and the seconds of each batch, by the thread that ran it.
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
        """Images that wait for a thread."""
        return len(self._waiting)

    async def run(self, image: npt.NDArray[np.uint8], how: How, size: tuple[int, int]) -> SegResult:
        """Segment one image. If this is cancelled, the image leaves the queue.

        Args:
            image: uint8 (H, W, 3), BGR.
            how: as `predict` takes it.
            size: (height, width) of the inference.

        Raises:
            SegrtError: what `predict` raises.
        """
        job = _Job(image, how, size, time.monotonic())
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
        """Run what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[_Job]:
        """The next batch; empty when there will be none."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                most = self._most(first)
                batch = [
                    job for job in self._waiting if job.how == first.how and job.size == first.size
                ][:most]
                left = first.arrived + self._delay - time.monotonic()
                if len(batch) == most or left <= 0 or self._closed:
                    self._waiting = [job for job in self._waiting if job not in batch]
                    return batch
                self._changed.wait(left)

    def _most(self, job: _Job) -> int:
        if job.how.slide or (job.how.slide is None and self._pipeline.slide):
            return 1  # its crops make the batches
        return max(1, min(self._max_batch, self._max_pixels // (job.size[0] * job.size[1])))

    def _work(self) -> None:
        while batch := self._take():
            jobs = [job for job in batch if job.done.set_running_or_notify_cancel()]
            if jobs:
                start = time.perf_counter()
                self._run(jobs)
                self._on_batch(len(jobs), time.perf_counter() - start)

    def _run(self, jobs: list[_Job]) -> None:
        def progress(done: int, of: int) -> None:
            if not any(job.wanted for job in jobs):
                raise SegrtError("nobody waits for this image any more")

        how = jobs[0].how
        rest = iter(jobs)
        try:
            results = self._pipeline.predict(
                [job.image for job in jobs],
                how.target_size,
                batch_size=self._max_batch,
                on_error="yield",
                scores=how.scores,
                slide=how.slide,
                progress=progress,
            )
            for result in results:
                job = next(rest)
                if isinstance(result, SegFailure):
                    job.done.set_exception(result.error)
                else:
                    job.done.set_result(result)
        except (
            Exception
        ) as error:  # whatever it is, those who wait must hear of it, and the thread must live
            for job in rest:
                job.done.set_exception(error)
