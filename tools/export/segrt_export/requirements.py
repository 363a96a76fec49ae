"""Checks that the packages that segrt-export uses are installed: not all are in its extra."""

from __future__ import annotations

import ctypes
import importlib.util
import sys

from segrt.errors import MissingExtraError

_EXTRA = "pip install 'segrt[export]'"
EDGE = "pip install 'segrt[edge]'"
"""Installs what device files need, without Paddle."""
_COMMANDS = {
    "onnxruntime": "pip install 'segrt[cpu]'",  # or another wheel of it, so the extra has none
    # Its pins conflict with those of current packages; the extra has what it imports.
    "paddleseg": "pip install --no-deps paddleseg==2.8.0",
}


def require(*modules: str, extra: str = _EXTRA) -> None:
    """Check that modules are installed, without importing them; `extra` installs most of them.

    Example:
        >>> require("paddle2onnx")

    Raises:
        MissingExtraError: some are not, or a library that Paddle needs is not; the message contains
            the commands that install them.
    """
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        raise missing(*absent, extra=extra)
    if "paddle" in modules and sys.platform == "linux":
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            raise MissingExtraError(
                "Paddle needs libgomp.so.1, the OpenMP library of GCC: on Debian, run  apt install "
                "libgomp1"
            ) from None


def missing(*modules: str | None, extra: str = _EXTRA) -> MissingExtraError:
    """The error for modules that are not installed; `extra` is the command for most of them."""
    commands = dict.fromkeys(_COMMANDS.get(module or "", extra) for module in modules)
    return MissingExtraError(
        f"this needs {', '.join(map(str, modules))}, which {'is' if len(modules) == 1 else 'are'} "
        f"not installed: run  {' && '.join(commands)}"
    )
