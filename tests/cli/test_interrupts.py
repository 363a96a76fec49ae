from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segrt.cli import interrupts

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    # As `nohup` does, the caller may have made this process ignore a signal.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    interrupts.catch()
    yield
    interrupts.restore()
    interrupts._received.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts_once(number: signal.Signals) -> None:
    interrupts.check()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(number)  # sent twice, as `timeout` does
    assert interrupts.received() == number
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_during_an_import_waits_for_its_end(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "a_module_that_is_interrupted"
    text = f"import signal\nsignal.raise_signal({int(number)})\nis_whole = True\n"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module(module).is_whole
    del sys.modules[module]
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_what_is_ignored_stays_ignored() -> None:
    interrupts.restore()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        interrupts.catch()
        signal.raise_signal(signal.SIGTERM)
        assert not interrupts.received()
    finally:
        signal.signal(signal.SIGTERM, before)
