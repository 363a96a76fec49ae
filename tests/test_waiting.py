from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from segrt.waiting import Messages, spinner


def test_messages_are_neither_wrapped_nor_padded() -> None:
    file = io.StringIO()
    text = "[run]  " + "segrt models remove --converter  " * 5 + "end"
    handler = Messages(Console(file=file, width=40))
    handler.emit(logging.LogRecord("segrt", logging.WARNING, "", 0, "%s", (text,), None))
    assert file.getvalue() == text + "\n"


def test_a_spinner_says_what_it_waits_for_where_it_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "segrt")
    with spinner("converting"):
        assert caplog.messages == ["converting ..."]
    with spinner("converting", shown=False) as step:
        step("more")
    assert len(caplog.messages) == 1
