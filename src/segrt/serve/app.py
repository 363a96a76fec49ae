"""The HTTP application: from a request to a `Batcher`, and back."""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import numpy as np
import numpy.typing as npt
from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from segrt import __version__
from segrt.errors import ConfigError, InputError, ModelError, TooLargeError
from segrt.pipeline import Pipeline
from segrt.result import SegResult
from segrt.serve import schema
from segrt.serve.batching import Batcher, How
from segrt.serve.fetch import fetch
from segrt.serve.metrics import Metrics
from segrt.serve.outer import Outer, failure
from segrt.serve.reference import page as reference_page
from segrt.serve.schema import ApiError
from segrt.serve.settings import Settings
from segrt.slide import parse_window
from segrt.sources import Reading, one_image
from segrt.types import parse_target_size

PAGE = Path(__file__).with_name("page")
SAMPLE = Path(__file__).parents[1] / "models" / "sample.png"
PATH = "/semantic-segmentation"

_CHUNK = 1 << 18  # bytes of an answer handed to the network at once
_Value = TypeVar("_Value")

STATUS = {
    400: "The base64 or the image can't be read.",
    401: "The token is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body, the image or the size of inference is too large.",
    415: "The Content-Type is not one of those above.",
    422: "An option is not valid, or the model can't run on this.",
    424: "The URL can't be fetched.",
    500: "The server failed; its log says why.",
    503: "The server is full: ask again after the seconds in Retry-After.",
    504: "The answer was not ready in time.",
}


class Service:
    """What the requests of one server share.

    Attributes:
        pipeline: what segments.
        settings: limits and access.
        metrics: what is counted.
        batcher: the queue in front of the pipeline.
        draining: whether the server is about to stop.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.metrics = Metrics()
        self.batcher = Batcher(
            pipeline,
            max_batch=settings.max_batch,
            max_pixels=settings.max_pixels,
            max_delay_ms=settings.max_delay_ms,
            workers=settings.workers,
            on_batch=self.metrics.batch,
        )
        self.draining = False
        self._bodies = 0  # bytes of all bodies that are held
        self._places = 0  # requests that wait or run
        # Images exist from decoding to encoding. So many at once keep the network busy; more would only take memory.
        self._images = asyncio.Semaphore(3 * settings.max_batch * settings.workers)
        self._coders = ThreadPoolExecutor(max(2, os.cpu_count() or 2), "segrt-code")
        self._fetchers = ThreadPoolExecutor(16, "segrt-fetch")
        self.metrics.watch(lambda: self._places, lambda: self.batcher.waiting)

    def close(self) -> None:
        """Finish what runs."""
        self.batcher.close()
        self._coders.shutdown()
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    async def segment(self, request: Request, log_id: str) -> Response:
        """Answer a request for a segmentation.

        Raises:
            ApiError: it can't be answered.
        """
        start = time.monotonic()
        content_type = request.headers.get("content-type", "")
        kind = schema.media_type(content_type)
        query = dict(request.query_params)
        options = schema.read_options(query)
        held = [0]
        place = False
        answer: _Answer | None = None
        try:
            body = await self._body(request, held)
            if self._places >= self.settings.max_queue:
                raise self._full("so many requests are waiting")
            self._places, place = self._places + 1, True
            left = self.settings.timeout - (time.monotonic() - start)
            work = self._answer(body, kind, content_type, query, options, log_id)
            try:
                with anyio.fail_after(left):
                    content = await _until_gone(request, work)
            except TimeoutError:
                raise ApiError(
                    504,
                    f"The answer was not ready within {self.settings.timeout:g} s: try a smaller image, or later.",
                ) from None
            answer = _Answer(content, self.settings.timeout, partial(self._release, held, True))
            return answer
        finally:
            if answer is None:
                self._release(held, place)

    def _release(self, held: list[int], place: bool) -> None:
        self._bodies -= held[0]
        self._places -= place

    def _full(self, why: str) -> ApiError:
        return ApiError(
            503, f"The server is full, {why}: try again in a second.", {"Retry-After": "1"}
        )

    async def _body(self, request: Request, held: list[int]) -> bytes:
        """Read the body; `held[0]` counts its bytes among those of all bodies."""
        limit = self.settings.max_body
        large = ApiError(
            413,
            f"The body is larger than {limit:,} bytes: send a smaller image, or JPEG instead of PNG.",
        )
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise large
        parts = []
        try:
            with anyio.fail_after(self.settings.timeout):
                async for part in request.stream():
                    parts.append(part)
                    held[0] += len(part)
                    self._bodies += len(part)
                    if held[0] > limit:
                        raise large
                    if self._bodies > self.settings.body_memory:
                        raise self._full("so many bytes are on their way")
        except TimeoutError:
            raise ApiError(
                408, f"The body did not come within {self.settings.timeout:g} s."
            ) from None
        if not held[0]:
            raise ApiError(400, "The body is empty: send JSON, a form, or an image file.")
        return b"".join(parts)

    async def _answer(
        self,
        body: bytes,
        kind: str,
        content_type: str,
        query: dict[str, str],
        options: schema.Options,
        log_id: str,
    ) -> bytes:
        content: bytes | str
        if kind == schema.JSON:
            if query:
                raise ApiError(
                    422,
                    "A JSON request takes its options from the body: leave the query string out.",
                )
            asked = await self._coded(schema.read_json, body)
            options, content = asked, asked.image
        elif kind == schema.FORM:
            options, content = await self._coded(schema.read_form, body, content_type, query)
        else:
            content = body
        how = How(
            parse_target_size(options.targetSize),
            None if options.slide is None else parse_window(options.slide),
            options.scores,
        )
        if isinstance(content, str) and content[:8].lower().startswith(("http://", "https://")):
            content = await self._fetched(content)
        async with self._images:
            image, size = await self._coded(self._decode, content, how)
            try:
                result = await self.batcher.run(image, how, size)
            except (ConfigError, ModelError) as error:
                raise ApiError(422, f"{_capital(error)}.") from None
            return await self._coded(self._encode, result, options, log_id)

    async def _coded(self, work: Callable[..., _Value], *arguments: Any) -> _Value:
        return await asyncio.get_running_loop().run_in_executor(self._coders, work, *arguments)

    async def _fetched(self, url: str) -> bytes:
        if not self.settings.allow_urls:
            raise ApiError(400, "This server does not fetch URLs: send the image itself as base64.")
        settings = self.settings
        work = partial(fetch, url, seconds=min(settings.timeout, 10), max_bytes=settings.max_body)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._fetchers, work)
        except TooLargeError as error:
            raise ApiError(413, f"{_capital(error)}.") from None
        except InputError as error:
            raise ApiError(424, f"{_capital(error)}.") from None

    def _decode(
        self, content: bytes | str, how: How
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        data = schema.from_base64(content) if isinstance(content, str) else content
        most = self.settings.max_pixels
        try:
            image = one_image(data, Reading(max_pixels=most))
        except TooLargeError as error:
            raise ApiError(413, f"{_capital(error)}.") from None
        except InputError as error:
            raise ApiError(400, f"{_capital(error)}.") from None
        target = self.pipeline.target_size if how.target_size is None else how.target_size
        height, width = self.pipeline.transforms.size(image.shape[:2], target)
        if height * width > most:
            raise ApiError(
                413,
                f"Inference at {height} x {width} is over the limit of {most:,} pixels: lower targetSize.",
            )
        return image, (height, width)

    def _encode(self, result: SegResult, options: schema.Options, log_id: str) -> bytes:
        with self.metrics.encoding.time():
            return schema.encode(result, options, log_id)

    def info(self) -> schema.Info:
        """What runs, and its limits."""
        pipeline, settings = self.pipeline, self.settings
        names = list(pipeline.class_names)
        plan = pipeline.session.plan
        return schema.Info(
            version=__version__,
            model=pipeline.model_name,
            classes=names,
            palette=[tuple(colour) for colour in pipeline.palette[: len(names) or None].tolist()],
            provider=pipeline.session.provider,
            precision=pipeline.session.precision,
            device=plan.device if plan.device == "cpu" else f"{plan.device}:{plan.device_id}",
            mode=pipeline.mode.value,
            limits=schema.Limits(
                maxBody=settings.max_body,
                maxPixels=settings.max_pixels,
                timeoutSeconds=settings.timeout,
                maxQueue=settings.max_queue,
                maxBatch=settings.max_batch,
                allowUrls=settings.allow_urls,
            ),
        )


class _Answer(Response):
    """JSON handed over piece by piece: little waits in buffers for a slow reader, and not for ever."""

    media_type = schema.JSON

    def __init__(self, content: bytes, seconds: float, done: Callable[[], None]) -> None:
        super().__init__(content)
        self._seconds, self._done = seconds, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with anyio.fail_after(self._seconds):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                for begin in range(0, len(self.body), _CHUNK):
                    piece = bytes(self.body[begin : begin + _CHUNK])
                    more = begin + _CHUNK < len(self.body)
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
        finally:
            self._done()


async def _until_gone(request: Request, work: Awaitable[_Value]) -> _Value:
    """Wait for `work`; it is cancelled when the client goes away.

    Raises:
        ClientDisconnect: the client is gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _capital(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:1].upper() + text[1:]


def create_app(pipeline: Pipeline, settings: Settings) -> FastAPI:
    """Make the application. `app.state.service` is its Service."""
    service = Service(pipeline, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="segrt",
        version=__version__,
        description=f"Semantic segmentation with {pipeline.model_name}.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    _add_routes(app, service)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Outer, service=service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    settings = service.settings
    bearer = HTTPBearer(auto_error=False, description="The token that the server was started with.")

    # A default, not an Annotated: FastAPI could not resolve the local name `bearer` in an annotation that is text.
    def authorise(found: HTTPAuthorizationCredentials | None = Depends(bearer)) -> None:  # noqa: B008
        sent = "" if found is None else found.credentials
        if not hmac.compare_digest(sent.encode(), (settings.token or "").encode()):
            raise ApiError(
                401,
                "This server asks for a token: send Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )

    guarded = [Depends(authorise)] if settings.token is not None else []

    def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
        known = {*statuses, *([401] if guarded else []), 500}
        found: dict[int | str, dict[str, Any]] = {
            status: {"model": schema.Failure, "description": STATUS[status]}
            for status in sorted(known)
        }
        if 503 in found:
            found[503]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
            }
        return found

    open_answers: dict[int | str, dict[str, Any]] = {
        500: {"model": schema.Failure, "description": STATUS[500]},
    }

    @app.post(
        PATH,
        response_model=schema.Answer,
        responses=answers(400, 408, 413, 415, 422, 424, 503, 504),
        dependencies=guarded,
        summary="Segment an image",
        openapi_extra=_request_body(),
    )
    async def segment(request: Request) -> Response:
        return await service.segment(request, request.state.log_id)

    @app.get("/health", responses=open_answers, summary="Whether the process answers")
    async def health(request: Request) -> schema.Healthy:
        return schema.Healthy(logId=request.state.log_id)

    @app.get(
        "/ready",
        response_model=schema.State,
        responses=open_answers
        | {503: {"model": schema.State, "description": "The server is about to stop."}},
        summary="Whether requests are welcome",
    )
    async def ready() -> Response:
        if service.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get(
        "/info",
        responses=answers(),
        dependencies=guarded,
        summary="The model, its classes, and the limits",
    )
    async def info() -> schema.Info:
        return service.info()

    @app.get(
        "/metrics",
        response_class=Response,
        responses=answers() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=guarded,
        summary="Counters and times, for Prometheus",
    )
    async def metrics() -> Response:
        return Response(service.metrics.expose(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    for file in sorted(p for p in PAGE.rglob("*") if p.is_file()):
        name = file.relative_to(PAGE).as_posix()
        app.add_api_route(
            "/" if name == "index.html" else f"/{name}", _file(file), include_in_schema=False
        )
    app.add_api_route("/sample.png", _file(SAMPLE), include_in_schema=False)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return failure(request.state.log_id, error.status, error.message, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def client_disconnect(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; it stands in the log and the metrics

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        messages = {
            404: "There is nothing at this address: the API is described at /docs.",
            405: f"{request.method[:20]} is not allowed here: the API is described at /docs.",
        }
        message = messages.get(error.status_code, str(error.detail))
        return failure(request.state.log_id, error.status_code, message, dict(error.headers or {}))


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def read() -> FileResponse:
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return read


def _request_body() -> dict[str, Any]:
    """The three forms of a request, for the OpenAPI document."""
    json = schema.SegmentRequest.model_json_schema()
    options = schema.Options.model_json_schema()["properties"]
    texts = {name: _as_text(option) for name, option in options.items()}
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"image": {**file, "description": "The image file."}, **texts},
        "required": ["image"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                schema.JSON: {"schema": json},
                schema.FORM: {"schema": form},
                "image/*": {"schema": file},
                "application/octet-stream": {"schema": file},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": text,
                "description": "Not with JSON.",
            }
            for name, text in texts.items()
        ],
    }


def _as_text(option: dict[str, Any]) -> dict[str, Any]:
    """The schema of an option in a form or query string."""
    about = {key: option[key] for key in ("description", "default") if option.get(key) is not None}
    kinds = [one.get("type") for one in option.get("anyOf", [option])]
    if "string" not in kinds and "boolean" in kinds:
        return {"type": "boolean", **about}
    return {"type": "string", **({"enum": option["enum"]} if "enum" in option else {}), **about}


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        app.openapi_schema = document
    return app.openapi_schema
