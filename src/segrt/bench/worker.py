"""Objects in separate processes, so that runtimes share no threads and no peak memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from segrt.errors import SegrtError


class Worker:
    """Creates an object in a new process and calls its methods remotely.

    A context manager that ends the process on exit. The process ignores Ctrl-C.

    Example:
        >>> with Worker(SegrtContender, [image], None, {"device": "cpu"}) as worker:
        ...     facts = worker.call("facts")
    """

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        """Start the process and create the object.

        Args:
            make: a class or function defined at module level.
            arguments: arguments of `make`; they are pickled.

        Raises:
            SegrtError: `make` raised an exception, or the process died.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        try:
            with _interrupts_blocked():
                self._process.start()
            theirs.close()
            self._receive()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the object and return its result.

        Raises:
            SegrtError: the method raised an exception, or the process died.
        """
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise self._death() from None
        return self._receive()

    def close(self) -> None:
        """End the process, even in the middle of a call."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(0.2)  # an idle process exits when the pipe closes
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, SegrtError):
            raise answer
        return answer

    def _death(self) -> SegrtError:
        self._process.join(5)
        code = self._process.exitcode or 0
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        hint = ", as happens when memory runs out" if code == -9 else ""
        return SegrtError(f"the worker process died ({how}{hint})")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _serve(pipe: Connection, make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the measuring process handles Ctrl-C
    os.dup2(2, 1)  # output of a runtime must not mix with the report

    def answer(work: Callable[..., object], *arguments: object) -> object:
        try:
            return work(*arguments)
        except SegrtError as error:
            return error
        except Exception as error:  # from a runtime or a file: report it in one line
            first_line = (str(error).strip().splitlines() or [""])[0]
            return SegrtError(f"{type(error).__name__}: {first_line[:300]}")

    subject = answer(make, *arguments)
    pipe.send(subject if isinstance(subject, SegrtError) else None)
    while not isinstance(subject, SegrtError):
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(answer(getattr(subject, method), *arguments))


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block; a process started in it inherits the blocked signal."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
