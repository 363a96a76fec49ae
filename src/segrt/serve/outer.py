"""Around every request: its id, its line in the log, its metrics, security headers, and an answer if all else fails."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segrt.serve.logs import log_id

if TYPE_CHECKING:
    from segrt.serve.app import Service

log = logging.getLogger("segrt.serve")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
}


def failure(
    request_id: str, status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that can't be answered; see `schema.Failure`."""
    content = {"logId": request_id, "errorCode": status, "errorMsg": message}
    return JSONResponse(content, status, headers)


class Outer:
    """ASGI middleware; the outermost."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope.setdefault("state", {})["log_id"] = request_id
        token = log_id.set(request_id)
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if self._service.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            started = status
            status = 500
            if started:
                log.warning("the answer broke off: %s", error or type(error).__name__)
                raise
            log.exception("a request failed")
            message = f"The server failed on this request; its log says why at logId {request_id}."
            await failure(request_id, 500, message)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.requests.labels(route, status).inc()
            self._service.metrics.seconds.labels(route).observe(seconds)
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 1),
                "client": (scope.get("client") or ("",))[0],
            }
            log.info(
                "%(method)s %(path)s %(status)s %(ms)s ms %(client)s",
                fields,
                extra={"fields": fields},
            )
            log_id.reset(token)
