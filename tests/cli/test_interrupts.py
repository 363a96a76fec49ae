from __future__ import annotations

import signal
from collections.abc import Iterator

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


def test_what_is_ignored_stays_ignored() -> None:
    interrupts.restore()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        interrupts.catch()
        signal.raise_signal(signal.SIGTERM)
        assert not interrupts.received()
    finally:
        signal.signal(signal.SIGTERM, before)
