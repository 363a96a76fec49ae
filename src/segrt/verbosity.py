"""The options --quiet and --verbose, which all three commands have: they set the level of the log.

What else a command says to people follows that level; see `segrt.waiting.is_quiet`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import App, Group, Parameter

from segrt.errors import ConfigError

MESSAGES = Group("Messages", sort_key=99)

log = logging.getLogger("segrt")

_FLAG = Parameter(group=MESSAGES, negative="", show_default=False)


def add_to(app: App, rewrite: Callable[[Sequence[str]], Sequence[str]] = list) -> None:
    """Add the options to a command, before or after its subcommand. `app.meta` then runs it.

    Example:
        >>> add_to(app)
        >>> app.meta(["predict", "road.png", "--quiet"])

    Args:
        app: the command.
        rewrite: changes its arguments, without these two options, before they are parsed.
    """
    app.meta.suppress_keyboard_interrupt = app.suppress_keyboard_interrupt  # not passed on

    @app.meta.default
    def run(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        quiet: Annotated[bool, _FLAG, Parameter(alias="-q")] = False,
        verbose: Annotated[bool, _FLAG, Parameter(alias="-v")] = False,
    ) -> object:
        """Set the level, and run the command.

        Args:
            quiet: Print errors and what is asked for, nothing else.
            verbose: Also say what is loaded, what runs it and why, and the time of each image.
        """
        if quiet and verbose:
            raise ConfigError("--quiet and --verbose contradict each other: give one of them")
        log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
        return app(rewrite(tokens), exit_on_error=False, print_error=False)
