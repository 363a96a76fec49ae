from __future__ import annotations

from segrt.cli import shares


def test_line() -> None:
    assert shares.line({"road": 0.412, "sky": 0.33}) == "road 41.2%, sky 33.0%"


def test_bars_are_aligned_and_as_long_as_the_share() -> None:
    first, second, third = shares.bars({"road": 1.0, "sign": 0.5, "a b": 0.0001})
    assert first == f"road  100.0%  {'█' * shares.BAR}"
    assert second == f"sign   50.0%  {'█' * (shares.BAR // 2)}"
    assert third == "a b     0.0%"


def test_bars_of_a_terminal_without_blocks() -> None:
    assert shares.bars({"road": 0.5}, "ascii") == [f"road   50.0%  {'#' * (shares.BAR // 2)}"]
    assert shares.bars({}) == []
