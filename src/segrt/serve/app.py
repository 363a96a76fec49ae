"""The HTTP application: endpoints, error handlers and middleware around a Service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segrt import __version__
from segrt.pipeline import Pipeline
from segrt.serve import kserve
from segrt.serve.admission import Admission
from segrt.serve.errors import ApiError
from segrt.serve.middleware import RequestContextMiddleware
from segrt.serve.responses import failure
from segrt.serve.routes import add_routes
from segrt.serve.service import Service
from segrt.serve.settings import Settings


def create_app(pipeline: Pipeline, settings: Settings) -> FastAPI:
    """Create the application.

    Example:
        >>> app = create_app(segrt.create_pipeline(), Settings(max_queue=16))
        >>> uvicorn.run(app)

    Returns:
        FastAPI: with its Service and its Admission in `app.state`.

    Raises:
        ModelError: the model takes bands, and clients send pictures.
    """
    pipeline.session.description.check_pictures("it can't be served")
    service, admission = Service(pipeline, settings), Admission(settings)
    service.metrics.watch(lambda: admission.slots, lambda: service.batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="segrt",
        version=__version__,
        description=f"Semantic segmentation with {pipeline.model_name}.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to the Host that the client sent; the routes have aliases
        lifespan=lifespan,
    )
    app.state.service, app.state.admission = service, admission
    with_token = settings.token is not None
    if settings.kserve:
        kserve.add_routes(app, pipeline.model_name, with_token=with_token)
    add_routes(app, with_token=with_token, public_page=settings.public_page)
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(MemoryError)(_memory_error)
    app.exception_handler(ClientDisconnect)(_client_disconnect)
    app.exception_handler(HTTPException)(_http_exception)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Content-Encoding", kserve.HEADER],
            expose_headers=["Retry-After", kserve.HEADER],
        )
    app.add_middleware(
        RequestContextMiddleware,
        metrics=service.metrics,
        is_draining=lambda: service.draining,
        kserve=settings.kserve,
    )
    return app


def _failure(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    state = request.state
    return failure(state.log_id, status, message, headers, kserve=state.kserve)


async def _api_error(request: Request, error: ApiError) -> Response:
    return _failure(request, error.status, error.message, error.headers)


async def _memory_error(request: Request, error: MemoryError) -> Response:
    message = "The server has too little memory at the moment: try again in a second."
    return _failure(request, 503, message, {"Retry-After": "1"})


async def _client_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # never sent, but shown in the log and the metrics


async def _http_exception(request: Request, error: HTTPException) -> Response:
    messages = {
        404: "Not found: see /docs for the API.",
        405: f"{request.method[:20]} is not allowed here: see /docs for the API.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return _failure(request, error.status_code, message, dict(error.headers or {}))
