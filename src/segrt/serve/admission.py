"""Admission control: limits on the requests in progress and on the memory of their bodies."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from gzip import GzipFile
from io import BytesIO

import anyio
from starlette.requests import Request

from segrt.serve.errors import ApiError
from segrt.serve.schema import GZIP
from segrt.serve.settings import Settings

_GUNZIPS = 2  # at the same time, as each reserves memory for the largest body
_MAX_RATIO = 1032  # of bytes that a byte of gzip can stand for

# What each member of gzip begins with; by chance, about one is in 16 MiB. Those that are empty take
# time, and no byte of the limit.
_MEMBER, _MAX_MEMBERS = b"\x1f\x8b\x08", 1000


class Admission:
    """Admits requests while there are queue slots and memory for their bodies.

    Attributes:
        slots: queue slots in use: requests that wait, run, or whose response is being sent.
        body_bytes: bytes of all request bodies in use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.slots = 0
        self.body_bytes = 0
        self._gunzips = asyncio.Semaphore(_GUNZIPS)

    @asynccontextmanager
    async def admit(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body and take a queue slot; both are released when the block ends.

        Example:
            >>> async with admission.admit(request) as body:
            ...     ...  # segment the image, then send the response

        Yields:
            bytes: the body.

        A body with the Content-Encoding gzip is decompressed, within the same limits.

        Raises:
            ApiError: 400 if the body is empty or no valid gzip, 408 if it is slow, 413 if it is too
                large, 503 if the server is full.
            ClientDisconnect: the client is gone.
        """
        settings, size = self._settings, 0
        received = BytesIO()  # a list of small parts would take many times their bytes
        declared = request.headers.get("content-length", "")
        if declared.isdigit():
            self._check_size(int(declared))
        try:
            with _time_limit(settings.timeout):
                async for part in request.stream():
                    received.write(part)
                    size += len(part)
                    self.body_bytes += len(part)
                    self._check_size(size)
                    if self.body_bytes > settings.body_memory:
                        raise _full("too many bytes are being received")
            if not size:
                raise ApiError(400, "The body is empty: send JSON, a form, or an image file.")
            if self.slots >= settings.max_queue:
                raise _full("too many requests are waiting")
            self.slots += 1
            try:
                body = received.getvalue()  # not a copy, and the only one once it is closed
                received.close()
                if request.headers.get("content-encoding", "").strip().lower() in GZIP:
                    body = await self._decompressed(body)
                    size += len(body)
                yield body
            finally:
                self.slots -= 1
        finally:
            self.body_bytes -= size

    async def _decompressed(self, body: bytes) -> bytes:
        """Undo gzip; the result counts among the bodies in memory."""
        limit = self._settings.max_body
        room = min(limit, _MAX_RATIO * len(body))
        async with self._gunzips:
            if self.body_bytes + room > self._settings.body_memory:
                raise _full("too many bytes are being received")
            self.body_bytes += room
            try:
                content = await anyio.to_thread.run_sync(_gunzip, body, limit)
            finally:
                self.body_bytes -= room
            self._check_size(len(content))
            self.body_bytes += len(content)
        return content

    def _check_size(self, size: int) -> None:
        limit = self._settings.max_body
        if size > limit:
            raise ApiError(
                413,
                f"The body is larger than {limit:,} bytes: send a smaller image, or JPEG instead "
                "of PNG.",
            )


def _gunzip(data: bytes, limit: int) -> bytes:
    """Decompress gzip: at most `limit` bytes, and one more if there are more.

    Raises:
        ApiError: 400, it is not valid.
    """
    if data.count(_MEMBER) > _MAX_MEMBERS:
        raise ApiError(
            400, f"The body has more than {_MAX_MEMBERS:,} members of gzip: compress it at once."
        )
    try:
        with GzipFile(fileobj=BytesIO(data)) as file:
            body = file.read(limit + 1)
    except (EOFError, OSError, zlib.error):
        body = b""
    if not body:
        raise ApiError(400, "The body is not valid gzip: send it uncompressed.")
    return body


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {seconds:g} s.") from None


def _full(reason: str) -> ApiError:
    return ApiError(
        503, f"The server is full ({reason}): try again in a second.", {"Retry-After": "1"}
    )
