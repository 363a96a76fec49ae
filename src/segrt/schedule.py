"""Threads around the network: reading ahead, batches in parallel, and the pool of sessions."""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from threading import Condition, Event, Semaphore, Thread
from time import monotonic
from typing import Any, Generic, TypeAlias, TypeVar

from segrt.errors import SegrtError

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")
_Session = TypeVar("_Session")

Acquire: TypeAlias = Callable[[], AbstractContextManager[_Session]]
"""Waits for a session, which is released at the end of the `with` statement."""

_EXIT_SECONDS = 2
_reading: dict[Thread, Callable[[], None]] = {}  # threads that read ahead, and what stops them


def read_ahead(items: Iterator[_Item], size: int) -> Generator[_Item, None, None]:
    """Advance an iterator in a thread, so that items are ready when they are needed.

    Example:
        >>> with closing(read_ahead(frames("photos/"), 4)) as ready:
        ...     for frame in ready:
        ...         ...

    Args:
        items: advanced, and in the end closed, by the thread alone. What it raises is raised in its
            position.
        size: maximum number of items to hold in advance.

    Raises:
        SegrtError: the process was forked since the first item; the thread is in the parent.
    """
    free, closed, process = Semaphore(size), Event(), os.getpid()
    ready = SimpleQueue[tuple[Any, BaseException | None]]()

    def work() -> None:
        try:
            while free.acquire() and not closed.is_set():
                ready.put((next(items), None))
        except BaseException as error:  # StopIteration as well: it ends the consumer
            ready.put((None, error))
        finally:
            if isinstance(items, Generator):
                items.close()
            _reading.pop(thread, None)

    def stop() -> None:
        closed.set()
        free.release()

    thread = Thread(target=work, name="segrt-read", daemon=True)
    _reading[thread] = stop
    thread.start()
    try:
        while True:
            if os.getpid() != process:
                raise SegrtError(
                    "this iteration began before the process was forked, and can't go on in the "
                    "child: start a new one there"
                )
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield item
    finally:
        stop()
        # Callers may then close what `items` reads from. Don't wait forever: reading may hang.
        thread.join(1)


@atexit.register
def _stop_reading() -> None:
    """Wait for the threads that still read when the interpreter exits.

    Once it has, a thread that returns from C++ (OpenCV reading a video, ONNX Runtime) is unwound
    through destructors that must not be unwound, which aborts the process.
    """
    deadline = monotonic() + _EXIT_SECONDS  # a camera may hang
    threads = {thread: stop for thread, stop in [*_reading.items()] if thread.is_alive()}
    for stop in threads.values():
        stop()
    for thread in threads:
        thread.join(max(0, deadline - monotonic()))


def in_threads(
    work: Callable[[_Item], _Done], items: Iterator[_Item], threads: int
) -> Generator[_Done, None, None]:
    """Apply a function to items in several threads; yield the results in order.

    Args:
        work: what it raises is raised in its position.
        items: as in `read_ahead`.
        threads: number of threads, and of items in progress.
    """
    process = os.getpid()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="segrt-work")
    futures = read_ahead((pool.submit(work, item) for item in items), max(1, threads - 1))
    try:
        with closing(futures):
            for future in futures:
                yield future.result()
    finally:
        # In a forked child, the threads are gone, and one may have held a lock of the pool.
        if os.getpid() == process:
            pool.shutdown(cancel_futures=True)  # the items in progress are completed


def behind(
    work: Callable[[_Item], _Done], items: Iterator[_Item], threads: int
) -> Generator[_Done, None, None]:
    """Apply a function to items in several threads, while this thread advances the items.

    For items that are expensive to make, such as results: an interrupt reaches the thread that
    makes them. Work that has begun is completed even then.

    Args:
        work: what it raises is raised in its position.
        items: closed in the end, if they are a generator.
        threads: number of threads; there are at most twice as many items in progress.

    Yields:
        What `work` returns, in order.
    """
    with (
        closing(items) if isinstance(items, Generator) else nullcontext(),
        ThreadPoolExecutor(threads, thread_name_prefix="segrt-behind") as pool,
    ):
        futures: deque[Future[_Done]] = deque()
        for item in items:
            futures.append(pool.submit(work, item))
            while futures and (futures[0].done() or len(futures) >= 2 * threads):
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


def in_order(
    work: Callable[[_Item, Acquire[_Session]], _Done],
    items: Iterator[_Item],
    sessions: Iterable[_Session],
    threads: int,
) -> Generator[_Done, None, None]:
    """Apply a function that needs a session to items; yield the results in order.

    Args:
        work: called with an item and `acquire`; `with acquire() as session:` waits for a session.
            Items get their first session in order.
        items: as in `read_ahead`.
        sessions: shared by the items.
        threads: number of threads; one means that of the caller.
    """
    pool = SessionPool(sessions)

    def run(numbered: tuple[int, _Item]) -> _Done:
        number, item = numbered
        with pool.turn(number) as acquire:
            return work(item, acquire)

    if threads == 1:
        yield from map(run, enumerate(items))
    else:
        with closing(in_threads(run, enumerate(items), threads)) as results:
            yield from results


class SessionPool(Generic[_Session]):
    """Sessions, each used by one thread at a time, handed out in the order of the turns.

    Example:
        >>> pool = SessionPool(sessions)
        >>> with pool.turn(0) as acquire, acquire() as session:
        ...     output = session.run(batch)
    """

    def __init__(self, sessions: Iterable[_Session]) -> None:
        self._idle = SimpleQueue[_Session]()
        for session in sessions:
            self._idle.put(session)
        self._next = 0  # all turns before this one have started
        self._started: set[int] = set()  # later turns that started, or ended without a session
        self._changed = Condition()

    @contextmanager
    def turn(self, number: int) -> Iterator[Acquire[_Session]]:
        """Take turn `number`, counted from 0; every number must be taken once.

        A turn gets its first session after all earlier turns got one or ended.
        """
        try:
            yield partial(self._acquire, number)
        finally:
            self._start(number)  # a turn that never needed a session must not block later ones

    @contextmanager
    def _acquire(self, number: int) -> Iterator[_Session]:
        with self._changed:
            self._changed.wait_for(lambda: self._next >= number)
        session = self._idle.get()
        self._start(number)
        try:
            yield session
        finally:
            self._idle.put(session)

    def _start(self, number: int) -> None:
        with self._changed:
            if number >= self._next:
                self._started.add(number)
            while self._next in self._started:
                self._started.remove(self._next)
                self._next += 1
            self._changed.notify_all()
