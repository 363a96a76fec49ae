"""Checks that the packages of the `export` extra are installed."""

from __future__ import annotations

import importlib.util

from segrt.errors import MissingExtraError


def require(module: str) -> None:
    """Check that a package of the `export` extra is installed, without importing it.

    Example:
        >>> require("paddle2onnx")

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise missing(module)


def missing(module: str | None) -> MissingExtraError:
    """The error for a package that is not installed."""
    return MissingExtraError(
        f"this needs {module}, which is not installed: run  pip install 'segrt[export]'"
    )
