"""The outermost middleware: what every request gets, whichever endpoint handles it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segrt.serve.logs import log_id
from segrt.serve.metrics import Metrics
from segrt.serve.responses import failure

log = logging.getLogger("segrt.serve")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
}
"""Headers of every response, unless the endpoint sets them."""

_REST_SECONDS = 10.0  # for the rest of a body that the response did not wait for


class RequestContextMiddleware:
    """Gives each request an id, a log line, metrics, security headers and, at worst, a 500.

    Args:
        app: the application inside.
        metrics: counts the responses.
        is_draining: whether the server is shutting down; connections are then closed.
        kserve: whether paths under /v2 belong to the Open Inference Protocol, with its errors.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        is_draining: Callable[[], bool],
        kserve: bool = False,
    ) -> None:
        self._app, self._metrics, self._is_draining = app, metrics, is_draining
        self._kserve = kserve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        state = scope.setdefault("state", {})
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        state["log_id"], state["kserve"] = request_id, self._kserve and path.startswith("/v2")
        token = log_id.set(request_id)
        start, seconds, status = time.perf_counter(), 0.0, 0
        headers = dict(scope["headers"])
        received = not _has_body(headers)

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received = not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal seconds, status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message)
            ends = message["type"] == "http.response.body" and not message.get("more_body")
            early = ends and not received
            await send({**message, "more_body": True} if early else message)
            seconds = time.perf_counter() - start
            if early:
                # To close the connection while the client sends would reset it, and the client may
                # lose the response.
                with anyio.move_on_after(_REST_SECONDS):
                    while not received:
                        await receiving()
                await send({"type": "http.response.body"})

        try:
            await (_refusal(scope, headers) or self._app)(scope, receiving, sending)
        except Exception as error:
            started = status
            status = 500
            if started:
                log.warning("the response was interrupted: %s", error or type(error).__name__)
                raise
            log.exception("a request failed")
            message = f"Internal error: see the server's log for logId {request_id}."
            answer = failure(request_id, 500, message, kserve=state["kserve"])
            await answer(scope, receive, sending)
        finally:
            self._record(scope, status, seconds)
            log_id.reset(token)

    def _add_headers(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        if self._is_draining():
            headers["Connection"] = "close"

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other").rstrip("/") or "/"
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": (scope.get("client") or ("",))[0],
        }
        log.info(
            "%(method)s %(path)s %(status)s %(ms)s ms %(client)s", fields, extra={"fields": fields}
        )


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _refusal(scope: Scope, headers: dict[bytes, bytes]) -> ASGIApp | None:
    """The response to a request that a proxy in front may read in another way."""
    version = scope["http_version"]
    if version not in ("1.0", "1.1", "2", "3"):
        status, message = 505, f"HTTP/{version} is not supported: send HTTP/1.1."
    elif b"transfer-encoding" in headers and (b"content-length" in headers or version == "1.0"):
        status, message = 400, "The length of the body is ambiguous: send Content-Length or chunks."
    else:
        return None
    state = scope["state"]
    return failure(
        state["log_id"], status, message, {"Connection": "close"}, kserve=state["kserve"]
    )
