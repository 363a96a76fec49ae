"""Consent to what costs gigabytes: the user is asked on a terminal, or agrees beforehand.

Environment variables: SEGRT_YES=1 agrees.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from segrt.errors import ConfigError

Ask = Callable[[str], bool]
"""Asks the user a question; returns whether the answer is yes."""

_ask: list[Ask] = []  # at most one; library callers are never asked


def ask_with(ask: Ask) -> None:
    """Set how the user is asked, as a command does when it starts.

    Example:
        >>> ask_with(lambda question: input(f"{question} [y/N] ").lower() == "y")
    """
    _ask[:] = [ask]


def agree() -> None:
    """Agree for the rest of this process, as the option `--yes` does."""
    ask_with(lambda question: True)


def given(question: str) -> bool:
    """Whether the user agrees: by SEGRT_YES, or when asked.

    Example:
        >>> given("Install 1.9 GB?")
        False

    Raises:
        ConfigError: SEGRT_YES is invalid.
    """
    if flag("SEGRT_YES"):
        return True
    return bool(_ask) and _ask[0](question)


def flag(name: str) -> bool:
    """The value of an environment variable that is 1 or 0; unset is 0.

    Example:
        >>> flag("SEGRT_OFFLINE")
        False

    Raises:
        ConfigError: it is neither.
    """
    value = os.environ.get(name, "")
    if value.lower() not in ("", "0", "1", "false", "true"):
        raise ConfigError(f"{name} {value!r} is not valid: use 1 or 0")
    return value.lower() in ("1", "true")
