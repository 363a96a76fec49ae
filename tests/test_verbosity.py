from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from cyclopts import App

from segrt import verbosity, waiting
from segrt.errors import ConfigError

log = logging.getLogger("segrt")


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    before = log.level
    yield
    log.setLevel(before)


def _run(*arguments: str) -> tuple[list[str], int, bool]:
    """What the command gets, and the level and quiet as it sees them."""
    app = App(result_action="return_value")

    @app.command
    def do(*names: str, size: int = 0) -> tuple[list[str], int, bool]:
        return [*names, str(size)], log.level, waiting.is_quiet()

    verbosity.add_to(app, lambda tokens: ["do" if token == "DO" else token for token in tokens])
    result: tuple[list[str], int, bool] = app.meta(
        arguments, exit_on_error=False, print_error=False
    )
    return result


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], logging.INFO),
        (["-q"], logging.ERROR),
        (["--quiet"], logging.ERROR),
        (["-v"], logging.DEBUG),
        (["--verbose"], logging.DEBUG),
    ],
)
def test_the_level_before_and_after_the_subcommand(options: list[str], level: int) -> None:
    expected = ["a", "-q", "-1"], level, level == logging.ERROR
    for line in ([*options, "DO", "a", "--size", "-1"], ["do", "a", *options, "--size", "-1"]):
        assert _run(*line, "--", "-q") == expected


def test_both_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        _run("do", "-qv")


def test_a_program_that_imports_segrt_is_not_quiet() -> None:
    log.setLevel(logging.NOTSET)
    assert not waiting.is_quiet()


def test_ctrl_c_reaches_the_program() -> None:
    app = App(suppress_keyboard_interrupt=False)

    @app.default
    def stop() -> None:
        raise KeyboardInterrupt

    verbosity.add_to(app)
    with pytest.raises(KeyboardInterrupt):
        app.meta([])
