"""Signals that stop a command: all of them end it like Ctrl-C, which keeps what is done."""

from __future__ import annotations

import signal
from time import monotonic
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_AGAIN_SECONDS = 1  # `timeout` and terminals may send one signal twice

_before: dict[int, Any] = {}
_received: list[tuple[int, float]] = []


def catch() -> None:
    """Turn the signals into KeyboardInterrupt, except those that the caller made us ignore.

    The second signal, if it comes more than a second later, ends the process at once. During an
    import, and where C code calls Python, an exception may get lost: `check` notices.
    """
    for number in (getattr(signal, name, None) for name in _NAMES):
        if number is not None:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                _before[number] = signal.signal(number, _handle)


def restore() -> None:
    """Undo `catch`."""
    for number, handler in _before.items():
        signal.signal(number, handler)
    _before.clear()


def received() -> int:
    """The first signal received; 0 if there was none."""
    return _received[0][0] if _received else 0


def check() -> None:
    """Stop this thread if a signal was received.

    Raises:
        KeyboardInterrupt: a signal was received.
    """
    if _received:
        raise KeyboardInterrupt


def _handle(number: int, frame: FrameType | None) -> None:
    if not _received:
        _received.append((number, monotonic()))
        if _is_importing(frame):  # which would keep the lock of the module, or half of it
            return
        raise KeyboardInterrupt
    if monotonic() - _received[0][1] > _AGAIN_SECONDS:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
