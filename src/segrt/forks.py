"""Makes locks and objects survive `os.fork`: only the forking thread goes on in the child.

A lock that another thread held at that moment stays locked in the child for ever, and what it
guarded may be half changed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Protocol
from weakref import WeakSet


class Lock(Protocol):
    """A lock, reentrant or not."""

    def acquire(self) -> Any:
        """Wait for it."""

    def release(self) -> Any:
        """Let others have it."""


class Renewable(Protocol):
    """An object that can't be used as it is in a forked process."""

    def renew(self) -> None:
        """Make it usable; no other thread runs yet."""


_renewables: WeakSet[Renewable] = WeakSet()


def hold(lock: Lock) -> None:
    """Make every later fork wait until no other thread holds a lock, so that it is free in both.

    For locks that are held for a few seconds at most.

    Example:
        >>> _PDFIUM = threading.Lock()
        >>> forks.hold(_PDFIUM)
    """
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )


def renew_in_child(value: Renewable) -> None:
    """Call `value.renew()` in every process forked from now on; `value` is not kept alive.

    Example:
        >>> forks.renew_in_child(self)
    """
    _renewables.add(value)


def keep_forever(value: object) -> None:
    """Never free an object, not even when the interpreter exits.

    For objects whose destructor would wait for threads that the fork left behind.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _renew_all() -> None:
    if "onnxruntime" in sys.modules:
        _exit_without_destructors()
    for value in list(_renewables):
        value.renew()


def _exit_without_destructors() -> None:
    """Let the C library end this process at once where it would call destructors of C++.

    Those of ONNX Runtime wait, for ever, for threads that exist only in the parent: `sys.exit`
    would hang in every process that was forked after `import onnxruntime`. Python has called its
    own exit handlers by then, and flushed its files.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc; called in reverse order, with the exit status
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)  # flushes the files of C


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
