"""The memory that networks may use: one budget for the process, and returning what is idle."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from threading import Condition
from time import monotonic
from typing import Any

import numpy as np

from segrt import forks
from segrt.backends import catalog
from segrt.errors import ConfigError, TooLargeError
from segrt.protobuf import encode, field

SHARE = 0.8
"""Share of the machine's, or control group's, memory that is used unless a limit is set."""

# Of glibc's malloc.h: M_ARENA_MAX, M_MMAP_THRESHOLD (larger blocks are returned when they are free)
# and M_TRIM_THRESHOLD.
_MALLOC = {-8: 2, -3: 4 << 20, -1: 64 << 20}

_RETAINED = 8
"""Runs that need more than 1/_RETAINED of the budget return their memory at once."""


class Budget:
    """The memory, in bytes, that the networks of a process may use together.

    What the process uses while no network runs (libraries, weights) is subtracted from the limit.

    Example:
        >>> budget = Budget(limit=2 << 30)
        >>> with budget.reserve(500 << 20, "a run"):
        ...     ...  # another thread that needs more than the rest waits here

    Attributes:
        limit: bytes for the whole process; None for `SHARE` of the usable memory.
        aside: bytes of the limit that are not for networks, such as a server's images and answers.
        reserved: bytes reserved now.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.aside = 0
        self.reserved = 0
        self._base = sys.maxsize  # the least that the process used while no network ran
        self._changed = Condition()
        forks.renew_in_child(self)

    def renew(self) -> None:
        """Forget the runs that go on in the parent of a forked process."""
        self.reserved = 0
        self._changed = Condition()

    @property
    def total(self) -> int:
        """The limit in bytes."""
        return self.limit or int(SHARE * (_usable(int(monotonic())) or sys.maxsize))

    def capacity(self) -> int:
        """What the networks may use together, in bytes."""
        with self._changed:
            if not self.reserved:
                self._base = min(self._base, resident())
            return self._capacity()

    def check(self, size: int, what: str) -> None:
        """Refuse work that can never fit.

        Args:
            size: bytes needed.
            what: the work, for the message.

        Raises:
            TooLargeError: more is needed than all networks may use together.
        """
        capacity = self.capacity()
        if size > capacity:
            raise TooLargeError(
                f"{what} needs about {_shown(size)} of memory, but only {_shown(capacity)} of the "
                f"limit of {_shown(self.total)} is available: use a smaller target_size or a "
                "sliding window, or raise the limit (--max-memory)"
            )

    @contextmanager
    def reserve(self, size: int, what: str, *, exact: bool = True) -> Iterator[None]:
        """Reserve memory while the block runs; wait until it is available.

        Args:
            size: bytes needed.
            what: the work, for messages.
            exact: whether that is the actual need rather than an upper bound of it; idle memory is
                returned after work that needs a large part of the budget.

        Raises:
            TooLargeError: see `check`.
        """
        self.check(size, what)
        with self._changed:
            self._changed.wait_for(lambda: self.reserved + size <= self._capacity())
            self.reserved += size
        try:
            yield
        finally:
            if exact and size > self._capacity() // _RETAINED:
                release()
            with self._changed:
                self.reserved -= size
                self._changed.notify_all()

    def _capacity(self) -> int:
        return max(0, self.total - self.aside - self._base)


BUDGET = Budget()
"""The budget of this process."""


@lru_cache(maxsize=1)
def _usable(second: int) -> int | None:
    """Usable memory in bytes, read once in each second: an image asks several times.

    Args:
        second: the current one.
    """
    return catalog.usable_memory()


def limit_memory(limit: int | str | None) -> None:
    """Limit the memory of this process, for all its pipelines.

    An image that can't be segmented within the limit gives a TooLargeError; one that does not fit
    at the moment waits, and a batch is split.

    Example:
        >>> segrt.limit_memory("2GiB")

    Args:
        limit: bytes, or text such as "2GiB" or "500MB", at least 64 MiB; None for the default, 80%
            of the memory of the machine or of its control group.

    Raises:
        ConfigError: the limit is invalid.
    """
    BUDGET.limit = None if limit is None else _parse(str(limit))


def _parse(text: str) -> int:
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
    units |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
    lower = text.strip().lower().removesuffix("b")
    number = lower.rstrip("kmgti")
    try:
        size = int(float(number) * units[lower[len(number) :]])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 64 << 20:
        raise ConfigError(
            f"max_memory {text!r:.40} is not valid: give at least 64MiB, as in 2GiB or 500MB"
        )
    return size


def share_arena() -> bool:
    """Let all sessions on the CPU use one arena, which grows by what is requested.

    ONNX Runtime's default is an arena per session that doubles and never shrinks.

    Returns:
        bool: whether there is one. A forked process can't use its parent's, which another thread
            may have locked at the fork.
    """
    return _create_arena() == os.getpid()


@cache
def _create_arena() -> int:
    """Create the arena; returns the process that it belongs to."""
    ort = catalog.onnxruntime()
    kind, memory = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    info = ort.OrtMemoryInfo("Cpu", kind, 0, memory)
    same_as_requested = 1
    ort.create_and_register_allocator(
        info, ort.OrtArenaCfg({"arena_extend_strategy": same_as_requested})
    )
    return os.getpid()


def release() -> None:
    """Return the memory to the system that ran networks, and Python, no longer need."""
    if share_arena():
        session, options = _shrinker()
        session.run(None, {"x": np.zeros((), np.float32)}, options)
    if trim := _libc("malloc_trim"):
        trim(0)


def tune_malloc() -> None:
    """Let the C library return the memory of images, and use two pools, not up to 8 per core.

    Each pool reserves 64 MiB of address space or more, and keeps what its threads no longer need.
    By default, images of up to 32 MiB are in them too. Call this in a program of segrt's own,
    before it starts threads.
    """
    if mallopt := _libc("mallopt"):
        for option, value in _MALLOC.items():
            mallopt(option, value)


def resident() -> int:
    """Bytes of memory that this process uses now; 0 if the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@cache
def _shrinker() -> tuple[Any, Any]:
    """A session on the shared arena, and options with which its run shrinks the arena."""
    ort = catalog.onnxruntime()
    share_arena()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(_identity(), options, providers=["CPUExecutionProvider"])
    forks.keep_forever(session)
    shrink = ort.RunOptions()
    shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return session, shrink


def _identity() -> bytes:
    """An ONNX model of one operator, Identity, on a float32 scalar."""

    def integer(number: int, value: int) -> bytes:
        return encode(number << 3) + encode(value)

    def scalar(name: bytes) -> bytes:
        tensor_type = integer(1, 1) + field(2, b"")  # float32, no dimensions
        return field(1, name) + field(2, field(1, tensor_type))

    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"identity")
    graph += field(11, scalar(b"x")) + field(12, scalar(b"y"))
    opset = field(1, b"") + integer(2, 17)
    return integer(1, 8) + field(7, graph) + field(8, opset)  # IR version 8


@cache
def _libc(name: str) -> Any:
    """A function of the C library; None where there is none."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)


def _shown(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"
