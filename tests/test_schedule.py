from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt.schedule import Acquire, SessionPool, behind, in_order, in_threads, read_ahead


def test_reading_ahead_stops_at_its_bound_and_when_closed() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    items = read_ahead(numbers(), 3)
    before = set(threading.enumerate())
    assert taken == []
    assert next(items) == 0
    time.sleep(0.05)
    assert taken == [0, 1, 2, 3]
    (thread,) = set(threading.enumerate()) - before
    items.close()
    assert not thread.is_alive()
    assert len(taken) == 4


def test_reading_ahead_keeps_order_and_raises_in_place() -> None:
    def numbers() -> Iterator[int]:
        yield from range(20)
        raise KeyError("here")

    items = read_ahead(numbers(), 4)
    assert [next(items) for _ in range(20)] == list(range(20))
    with pytest.raises(KeyError, match="here"):
        next(items)
    assert list(read_ahead(iter(range(50)), 2)) == list(range(50))


def test_work_in_threads_keeps_order_bounds_and_errors() -> None:
    taken: list[int] = []
    meeting = threading.Barrier(3, timeout=30)  # three at once, or it breaks

    def numbers() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        if number < 18:
            meeting.wait()
        if number == 20:
            raise KeyError("here")
        return -number

    results = in_threads(work, numbers(), 3)
    assert taken == []
    for expected in range(20):
        assert next(results) == -expected
        assert len(taken) <= expected + 4
    with pytest.raises(KeyError, match="here"):
        next(results)
    assert list(in_threads(str, iter("abc"), 1)) == ["a", "b", "c"]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(["run", "twice", "skip", "fail"]), max_size=20),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_sessions_are_handed_out_in_order_and_used_by_one_thread_at_a_time(
    kinds: list[str], sessions: int, threads: int
) -> None:
    handed_out: list[int] = []
    busy: set[int] = set()

    def work(item: tuple[int, str], acquire: Acquire[int]) -> int:
        number, kind = item
        for round_ in range({"run": 1, "twice": 2}.get(kind, 0)):
            with acquire() as session:
                assert session not in busy
                busy.add(session)
                if not round_:
                    handed_out.append(number)
                busy.remove(session)
        if kind == "fail":
            raise KeyError(number)
        return number

    expected = next((i for i, kind in enumerate(kinds) if kind == "fail"), None)
    done: list[int] = []
    results = in_order(work, iter(enumerate(kinds)), range(sessions), threads)
    with closing(results), suppress(KeyError):
        for number in results:
            done.append(number)
    assert done == list(range(len(kinds) if expected is None else expected))
    if sessions == 1:
        assert handed_out == sorted(handed_out)


def test_a_turn_waits_for_all_earlier_ones_but_not_for_those_that_ended() -> None:
    pool = SessionPool(["a", "b", "c"])
    order: list[int] = []
    first_may_go = threading.Event()

    def take(number: int) -> None:
        with pool.turn(number) as acquire:
            if number == 0:
                first_may_go.wait(30)
            if number != 1:  # this turn ends without a session
                with acquire():
                    order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in (2, 1, 0)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert order == []
    first_may_go.set()
    for thread in threads:
        thread.join(30)
    assert order == [0, 2]


def test_a_session_is_released_when_work_raises() -> None:
    pool = SessionPool(["only"])
    with pytest.raises(KeyError), pool.turn(0) as acquire, acquire():
        raise KeyError
    with pool.turn(1) as acquire, acquire() as session:
        assert session == "only"


def test_work_behind_completes_what_it_began_in_order() -> None:
    main, finished = threading.current_thread(), []

    def numbers() -> Iterator[int]:
        for number in range(20):
            assert threading.current_thread() is main
            if number == 10:
                raise KeyboardInterrupt
            yield number

    def work(number: int) -> int:
        assert threading.current_thread() is not main
        time.sleep(0.001)
        finished.append(number)
        return number

    with pytest.raises(KeyboardInterrupt):
        list(behind(work, numbers(), 2))
    assert sorted(finished) == list(range(10))
    assert list(behind(str, iter("abc"), 1)) == ["a", "b", "c"]


def test_queued_work_is_dropped_when_the_consumer_stops() -> None:
    started, go = [], threading.Event()

    def work(number: int) -> int:
        started.append(number)
        if number:
            go.wait(0.1)
        return number

    results = in_threads(work, iter(range(100)), 4)
    assert next(results) == 0
    results.close()
    assert len(started) < 12
