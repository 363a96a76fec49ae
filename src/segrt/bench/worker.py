"""An object in a process of its own, so that runtimes share no threads and each has its own peak memory."""

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
    """Makes an object in a new process, and calls its methods from here.

    A context manager: leaving it ends the process. Ctrl-C reaches only the process that started the worker.
    """

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        """Start the process and make the object.

        Args:
            make: a class or function at the top of a module.
            arguments: what it is called with; they are pickled.

        Raises:
            SegrtError: what `make` raised, or that it took its process down.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        try:
            with _interrupts_held():
                self._process.start()
            theirs.close()
            self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the object and wait for its answer.

        Raises:
            SegrtError: what the method raised, or that it took its process down.
        """
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise self._ended() from None
        return self._answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(0.2)  # it ends by itself when it waits for a call
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, SegrtError):
            raise answer
        return answer

    def _ended(self) -> SegrtError:
        self._process.join(5)
        code = self._process.exitcode or 0
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        hint = ", as happens when memory runs out" if code == -9 else ""
        return SegrtError(f"the process that ran it ended ({how}{hint})")

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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that measures
    os.dup2(2, 1)  # what a runtime prints must not get into the result

    def answer(work: Callable[..., object], *arguments: object) -> object:
        try:
            return work(*arguments)
        except SegrtError as error:
            return error
        except (
            Exception
        ) as error:  # of a runtime or a file: one line of it is worth more than a dead process
            return SegrtError(
                f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
            )

    subject = answer(make, *arguments)
    pipe.send(subject if isinstance(subject, SegrtError) else None)
    while not isinstance(subject, SegrtError):
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(answer(getattr(subject, method), *arguments))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back and not lose it: it comes afterwards, and a process that is started meanwhile never gets it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
