"""Responses: errors, and segmentations sent while their queue slot is held."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from segrt.serve import schema

_CHUNK_BYTES = 1 << 18


def failure(
    log_id: str,
    status: int,
    message: str,
    headers: dict[str, str] | None = None,
    *,
    kserve: bool = False,
) -> JSONResponse:
    """An error response: the JSON of a `schema.Failure`, or that of the Open Inference Protocol."""
    content: dict[str, object] = {"logId": log_id, "errorCode": status, "errorMsg": message}
    return JSONResponse({"error": message} if kserve else content, status, headers)


class SegmentationResponse(Response):
    """JSON, sent in chunks and within a time limit, so that a slow client occupies few buffers.

    Args:
        content: the JSON.
        seconds: time limit.
        held: closed once the response has been sent, or can't be sent.
    """

    media_type = schema.JSON

    def __init__(self, content: bytes, *, seconds: float, held: AsyncExitStack) -> None:
        super().__init__(content)
        self._seconds, self._held = seconds, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._held:
            with anyio.fail_after(self._seconds):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                for begin in range(0, len(self.body), _CHUNK_BYTES):
                    end = begin + _CHUNK_BYTES
                    chunk = bytes(self.body[begin:end])
                    more = end < len(self.body)
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})
