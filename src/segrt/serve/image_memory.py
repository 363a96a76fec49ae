"""The memory of images, results and answers, which requests hold until their answer is sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ImageMemory:
    """Bytes that the requests of a server share, granted in the order in which they are requested.

    Example:
        >>> memory = ImageMemory(512 << 20)
        >>> async with memory.hold(24 * height * width) as held:
        ...     answer = ...  # segment the image
        ...     held.shrink(len(answer))
        ...     ...  # send the answer

    Attributes:
        size: bytes that may be held together.
        used: bytes held now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Held]:
        """Hold `size` bytes while the block runs; wait until they are free.

        A request for more than `size` of the whole memory waits until nothing else is held.
        """
        await self._acquire(size)
        held = Held(self, size)
        try:
            yield held
        finally:
            held.shrink(0)

    def release(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size
        while self._waiting and self._fits(self._waiting[0][1]):
            granted, size = self._waiting.popleft()
            if not granted.cancelled():
                self.used += size
                granted.set_result(None)

    async def _acquire(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((granted, size))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # granted, and then cancelled
                self.release(size)
            raise

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self.size


class Held:
    """The bytes held by one request."""

    def __init__(self, memory: ImageMemory, size: int) -> None:
        self._memory, self._size = memory, size

    def shrink(self, size: int) -> None:
        """Hold at most `size` bytes from now on."""
        if size < self._size:
            self._memory.release(self._size - size)
            self._size = size
