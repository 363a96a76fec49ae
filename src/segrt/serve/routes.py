"""The endpoints of the API, and the files of the web page."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from segrt import package_data
from segrt.serve import docs_page, openapi, schema
from segrt.serve.admission import Admission
from segrt.serve.errors import ApiError
from segrt.serve.responses import SegmentationResponse
from segrt.serve.service import Service

PATH = "/semantic-segmentation"
_PAGES = ("page", "serve/page")

log = logging.getLogger("segrt.serve")

_Value = TypeVar("_Value")
_bearer = HTTPBearer(auto_error=False, description="The token the server was started with.")


def add_routes(app: FastAPI, *, with_token: bool, public_page: bool) -> None:
    """Add all endpoints; they expect a Service and an Admission in `app.state`.

    Args:
        app: the application.
        with_token: whether the endpoints require the token, apart from /health and /ready.
        public_page: whether the page and the documentation never require it.
    """
    guarded = [Depends(authorize)] if with_token else []
    page = [] if public_page else guarded
    app.add_api_route(
        PATH,
        segment,
        methods=["POST"],
        response_model=schema.Answer,
        responses=openapi.failures(400, 408, 413, 415, 422, 424, 503, 504, token=with_token),
        dependencies=guarded,
        summary="Segment an image",
        openapi_extra=openapi.segment_request(),
    )
    app.add_api_route("/health", health, responses=openapi.failures(), summary="Liveness check")
    app.add_api_route(
        "/ready",
        ready,
        response_model=schema.State,
        responses=openapi.failures()
        | {503: {"model": schema.State, "description": "The server is shutting down."}},
        summary="Readiness check",
    )
    app.add_api_route(
        "/info",
        info,
        responses=openapi.failures(token=with_token),
        dependencies=guarded,
        summary="Model, classes and limits",
    )
    app.add_api_route(
        "/metrics",
        metrics,
        response_class=Response,
        responses=openapi.failures(token=with_token)
        | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=guarded,
        summary="Prometheus metrics",
    )
    app.add_api_route("/docs", docs, include_in_schema=False, dependencies=page)
    app.add_api_route("/openapi.json", document, include_in_schema=False, dependencies=page)
    served = {
        f"/{name}": f"{folder}/{name}" for folder in _PAGES for name in package_data.names(folder)
    }
    served["/"] = served.pop("/index.html")
    for path, name in served.items():
        app.add_api_route(path, _file(name), include_in_schema=False, dependencies=page)
    _add_aliases(app)


def _add_aliases(app: FastAPI) -> None:
    """Answer HEAD wherever GET is answered, and each path with a slash at its end.

    Monitors ask with HEAD; some clients and proxies add the slash, and don't follow a redirect
    after a POST.
    """
    for route in [route for route in app.routes if isinstance(route, APIRoute)]:
        own = route.methods or set()
        methods = {*own, *(["HEAD"] if "GET" in own else [])}
        hidden: dict[str, Any] = {
            "include_in_schema": False,
            "dependencies": route.dependencies,
            "response_model": route.response_model,
        }
        if methods != own:
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], **hidden)
        if route.path != "/":
            app.add_api_route(f"{route.path}/", route.endpoint, methods=[*methods], **hidden)


def authorize(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Check the token.

    Raises:
        ApiError: 401, it is missing or wrong.
    """
    sent = "" if credentials is None else credentials.credentials
    expected = service_of(request).settings.token or ""
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise ApiError(
            401,
            "This server requires a token: send Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )


async def segment(request: Request) -> Response:
    """Segment an image, sent as JSON, in a form, or as the body itself."""
    service, timeout = service_of(request), service_of(request).settings.timeout
    admission: Admission = request.app.state.admission
    deadline = anyio.current_time() + timeout
    head = schema.read_head(request.headers, request.query_params.multi_items())
    async with AsyncExitStack() as held:
        body = await held.enter_async_context(admission.admit(request))
        work = service.segment(body, head, request.state.log_id, held)
        try:
            content = await in_time(request, work, deadline)
        except ApiError:
            await _answer_to(request, body, head)
            raise
        # The queue slot is held until the response has been sent.
        return SegmentationResponse(content, seconds=timeout, held=held.pop_all())


async def in_time(request: Request, work: Awaitable[_Value], deadline: float) -> _Value:
    """Wait for `work` until the deadline, and only while the client does.

    Example:
        >>> deadline = anyio.current_time() + 60
        >>> content = await in_time(request, service.segment(body, head, "1", held), deadline)

    Args:
        request: a request whose body has been read.
        work: cancelled if it takes longer, or if the client disconnects.
        deadline: in the time of `anyio.current_time`.

    Raises:
        ApiError: 504, it takes longer.
        ClientDisconnect: the client disconnected.
    """
    try:
        with anyio.fail_after(deadline - anyio.current_time()):
            return await _until_disconnect(request, work)
    except TimeoutError:
        raise ApiError(
            504,
            f"The result was not ready within {service_of(request).settings.timeout:g} s: send a "
            "smaller image, or try again later.",
        ) from None


async def health(request: Request) -> schema.Healthy:
    """Respond while the process runs."""
    return schema.Healthy(logId=request.state.log_id)


async def ready(request: Request) -> Response:
    """Respond with 200 while the server accepts requests, with 503 while it shuts down."""
    if service_of(request).draining:
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


async def info(request: Request) -> schema.Info:
    """Describe the model, how it runs, and the limits."""
    return service_of(request).info()


async def metrics(request: Request) -> Response:
    """Counters and times in the text format of Prometheus."""
    return Response(service_of(request).metrics.expose(), media_type=CONTENT_TYPE_LATEST)


async def document(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


async def docs(request: Request) -> HTMLResponse:
    """Show the OpenAPI document."""
    root = "../" if request.url.path.endswith("/") else ""
    return HTMLResponse(docs_page.render(request.app.openapi(), root))


def service_of(request: Request) -> Service:
    """The Service of the application that handles the request."""
    service: Service = request.app.state.service
    return service


def _file(name: str) -> Callable[[], Awaitable[FileResponse]]:
    async def read() -> FileResponse:
        # Python knows WebP from 3.13 on.
        kind = "image/webp" if name.endswith(".webp") else None
        return FileResponse(
            package_data.path(name), headers={"Cache-Control": "no-cache"}, media_type=kind
        )

    return read


async def _answer_to(request: Request, body: bytes, head: schema.Head) -> None:
    """Let the response to a failed request have the client's own id, as in PaddleX."""
    found = await asyncio.to_thread(schema.client_log_id, body, head)
    if found:
        log.info("the client calls this request %s", found)
        request.state.log_id = found


async def _until_disconnect(request: Request, work: Awaitable[_Value]) -> _Value:
    """Wait for `work`; cancel it if the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
