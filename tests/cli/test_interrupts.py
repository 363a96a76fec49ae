from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from segrt.cli import interrupts


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    interrupts.catch()
    yield
    interrupts.restore()
    interrupts._received.clear()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_interrupts_once(name: str) -> None:
    number = getattr(signal, name)
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
