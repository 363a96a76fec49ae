from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt.serve.image_memory import ImageMemory


async def _hold(memory: ImageMemory, size: int, order: list[int], may_end: asyncio.Event) -> None:
    async with memory.hold(size):
        order.append(size)
        await may_end.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_wait_in_order_until_there_is_memory() -> None:
    async def scenario() -> None:
        memory, order, ends = ImageMemory(10), list[int](), [asyncio.Event() for _ in range(4)]
        sizes = (6, 5, 3, 20)
        tasks = [
            asyncio.ensure_future(_hold(memory, size, order, end))
            for size, end in zip(sizes, ends, strict=True)
        ]
        await _settle()
        assert order == [6]  # 3 would fit, but 5 was first
        ends[0].set()
        await _settle()
        assert order == [6, 5, 3]
        ends[1].set()
        await _settle()
        assert memory.used == 3
        ends[2].set()
        await _settle()
        assert order == [6, 5, 3, 20]  # more than there is, alone
        ends[3].set()
        await asyncio.gather(*tasks)
        assert memory.used == 0

    asyncio.run(scenario())


def test_memory_shrinks_and_never_grows() -> None:
    async def scenario() -> None:
        memory = ImageMemory(10)
        async with memory.hold(8) as held:
            held.shrink(3)
            assert memory.used == 3
            held.shrink(5)
            assert memory.used == 3
        assert memory.used == 0

    asyncio.run(scenario())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 15), st.sampled_from(["end", "fail", "cancel"]))))
def test_all_memory_is_given_back(requests: list[tuple[int, str]]) -> None:
    async def request(memory: ImageMemory, size: int, how: str) -> None:
        async with memory.hold(size):
            assert memory.used <= memory.size or memory.used == size
            await asyncio.sleep(0)
            if how == "fail":
                raise KeyError

    async def scenario() -> None:
        memory = ImageMemory(10)
        tasks = [asyncio.ensure_future(request(memory, *one)) for one in requests]
        for task, (_, how) in zip(tasks, requests, strict=True):
            await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
        for task in tasks:
            with suppress(KeyError, asyncio.CancelledError):
                await asyncio.wait_for(task, 30)
        assert memory.used == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("granted_first", [False, True])
def test_cancelled_requests_hold_nothing(granted_first: bool) -> None:
    async def scenario() -> None:
        memory, order, end = ImageMemory(10), list[int](), asyncio.Event()
        first = asyncio.ensure_future(_hold(memory, 10, order, end))
        await _settle()
        second = asyncio.ensure_future(_hold(memory, 4, order, end))
        await _settle()
        if granted_first:
            end.set()
            await first
        second.cancel()
        end.set()
        with suppress(asyncio.CancelledError):
            await second
        await first
        assert memory.used == 0

    asyncio.run(scenario())
