"""Paddle Inference as the other side of a pair, in a process of its own: two runtimes in one process share threads."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from segrt.errors import ExportError, MissingExtraError, SegrtError


class PaddleWorker:
    """Runs one Paddle model on one image, again and again, from pixels to labels.

    The network's input is prepared by segrt's own front, so that a ratio compares the runtimes and not two ways of
    writing a normalisation. A context manager: leaving it ends the process.
    """

    def __init__(self, folder: Path, image: npt.NDArray[np.uint8], size: tuple[int, int], *, threads: int) -> None:
        """Start the process and load the model.

        Args:
            folder: a Paddle inference model.
            image: uint8 (H, W, 3), BGR.
            size: (height, width) of inference.
            threads: of Paddle's math library; oneDNN is on.

        Raises:
            MissingExtraError: paddlepaddle is not installed.
            ExportError: Paddle can't load the model.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=_work, args=(child, folder, image, size, threads), daemon=True)
        self._process.start()
        child.close()
        self._answer()

    def run(self) -> float:
        """Segment the image once; returns the seconds that it took, measured in the other process."""
        self._pipe.send("run")
        return float(self._answer())

    def labels(self) -> npt.NDArray[np.int32]:
        """The labels of the last run, int32 (h, w) at the size of inference."""
        self._pipe.send("labels")
        return np.asarray(self._answer(), np.int32)

    def peak_memory(self) -> int:
        """Most memory that the process has held so far, in bytes."""
        self._pipe.send("memory")
        return int(self._answer())

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise ExportError("Paddle Inference ended its process while it ran the model") from None
        if isinstance(answer, SegrtError):
            raise answer
        return answer

    def __enter__(self) -> PaddleWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()


def _work(pipe: Connection, folder: Path, image: npt.NDArray[np.uint8], size: tuple[int, int], threads: int) -> None:
    import tempfile

    from segrt.preprocess import Transforms

    try:
        from segrt_export.parity import PaddleReference
        from segrt_export.program import PaddleModel

        source = PaddleModel.open(folder)
        transforms = Transforms.parse(list(source.transforms))
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            reference = PaddleReference(source, Path(work), threads=threads, logits=False)
    except SegrtError as error:
        pipe.send(error)
        return
    except ImportError as error:
        pipe.send(MissingExtraError(f"Paddle is not usable ({error}): run  pip install 'segrt[export]'"))
        return
    pipe.send("ready")
    labels: npt.NDArray[np.int32] = np.empty((0, 0), np.int32)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task == "run":
            start = perf_counter()
            batch = np.empty((1, 3, *size), np.float32)
            transforms.write(image, out=batch[0])
            labels = reference.run(batch)[0][0]
            pipe.send(perf_counter() - start)
        else:
            pipe.send(labels if task == "labels" else _peak_memory())


def _peak_memory() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
