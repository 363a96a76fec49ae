"""Error messages for invalid values, shared by everything that parses user input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The most similar known word as " (did you mean 'x'?)"; empty if none is similar.

    Example:
        >>> f"unknown backend{did_you_mean('openvin', ['cpu', 'openvino'])}"
        "unknown backend (did you mean 'openvino'?)"
    """
    close = get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse_unknown(function: Callable[..., object], unknown: Mapping[str, object]) -> None:
    """Refuse keyword arguments that a function has collected because they are not its own.

    Example:
        >>> def scale(image, *, factor=1, **unknown):
        ...     refuse_unknown(scale, unknown)
        >>> scale(image, factors=2)
        TypeError: scale() has no argument 'factors' (did you mean 'factor'?): use image, factor

    Raises:
        TypeError: there is one; the message lists the arguments of the function.
    """
    if not unknown:
        return
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.items()
    known = [name for name, p in parameters if p.kind not in kinds and name != "self"]
    word = next(iter(unknown))
    raise TypeError(
        f"{function.__name__}() has no argument {word!r}{did_you_mean(word, known)}: use "
        f"{', '.join(known)}"
    )


def first_problem(error: ValidationError, known: Iterable[str] = ()) -> str:
    """Describe the first problem that pydantic found: "key.subkey: message, not value".

    Args:
        error: pydantic's error.
        known: the valid keys, listed if the problem is an unknown key.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {message(first, known)}" if where else message(first, known)


def message(problem: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """The text of one entry of `ValidationError.errors()`, without the key.

    Args:
        problem: the entry.
        known: the valid keys, listed if the problem is an unknown key.
    """
    kind, text = problem["type"], str(problem["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return "this key is missing"
    if kind == "extra_forbidden":
        hint = did_you_mean(problem["loc"][-1], known)
        return f"there is no such key{hint}" + ("" if hint else f"; use {', '.join(known)}")
    if kind != "value_error" and isinstance(problem["input"], (str, int, float)):
        text += f", not {problem['input']!r}"
    return text
