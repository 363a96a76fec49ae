"""The work behind the API, without HTTP: decode the image, run it in a batch, encode the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segrt import __version__
from segrt.backends import catalog
from segrt.backends.memory import BUDGET
from segrt.errors import ConfigError, InputError, ModelError, TooLargeError
from segrt.names import is_url
from segrt.pipeline import Pipeline
from segrt.request import Request
from segrt.result import SegResult
from segrt.serve import schema
from segrt.serve.batching import Batcher
from segrt.serve.decoding import Decoders
from segrt.serve.errors import ApiError
from segrt.serve.fetch import fetch
from segrt.serve.image_memory import Held, ImageMemory
from segrt.serve.metrics import Metrics
from segrt.serve.settings import Settings

_MAX_FETCH_SECONDS = 10.0
_FETCHERS = 16  # threads, which mostly wait

# Time limit for decoding an image, per pixel of the largest one allowed: about 20 times what slow
# formats take. The limits on the structure of files keep the worst ones well below.
_MIN_DECODE_SECONDS = 10.0
_PIXELS_PER_SECOND = 1_600_000

# Large bodies may not occupy all decoders: the cost of some formats grows with their bytes.
_LARGE_BODY = 512 << 10

# Memory of an image until its answer is sent: 3 bytes per pixel of the image, 4 of the labels, 4 of
# the scores, up to 8 of the JSON and 6 of the pictures in it.
_BYTES_PER_PIXEL = 27
_IMAGE_SHARE = 6  # 1/6 of the memory limit is for images and answers

_Value = TypeVar("_Value")


class Service:
    """Segments images for the requests of one server.

    Example:
        >>> service = Service(pipeline, Settings())
        >>> head = schema.read_head({"content-type": "image/png"}, [("labelFormat", "png")])
        >>> async with AsyncExitStack() as held:
        ...     answer = await service.segment(body, head, "1", held)  # JSON

    Attributes:
        pipeline: runs the images.
        settings: the server's options.
        metrics: counters and times.
        batcher: the queue in front of the pipeline.
        decoders: the processes that decode images.
        images: the memory of images and answers.
        draining: whether the server is shutting down.
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
        cores = catalog.usable_cores()
        decoders = max(2, cores)
        self.decoders = Decoders(
            decoders,
            max_pixels=settings.max_pixels,
            seconds=min(
                settings.timeout,
                max(_MIN_DECODE_SECONDS, settings.max_pixels / _PIXELS_PER_SECOND),
            ),
        )
        self.draining = False
        self.images = ImageMemory(BUDGET.total // _IMAGE_SHARE)
        BUDGET.aside = self.images.size + settings.body_memory
        self._decoder_slots = asyncio.Semaphore(decoders)
        self._large_slots = asyncio.Semaphore(decoders // 2)
        self._decoding = ThreadPoolExecutor(decoders, "segrt-decode")  # wait for the processes
        self._coders = ThreadPoolExecutor(max(2, cores), "segrt-code")
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "segrt-fetch")

    def close(self) -> None:
        """Finish the images in progress, then stop all threads."""
        self.decoders.close()
        self._decoding.shutdown(cancel_futures=True)
        self.batcher.close()
        self._coders.shutdown()
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    async def segment(
        self, body: bytes, head: schema.Head, log_id: str, held: AsyncExitStack
    ) -> bytes:
        """Segment the image of a request.

        Args:
            body: JSON, a form, or an image file, according to `head.media_type`.
            head: the headers and the query string.
            log_id: id of the request.
            held: closed once the answer has been sent; releases its memory.

        Returns:
            bytes: the JSON of a `schema.Answer`.

        Raises:
            ApiError: the request is invalid, or the image can't be segmented.
        """
        options, content = await self._in_thread(schema.read_body, body, head)
        if isinstance(content, str) and is_url(content[:8]):
            content = await self._fetch(content)
        [result], pages, memory = await self.label([content], options, held)
        answer = await self._in_thread(self._encode, result, options, log_id, pages)
        memory.shrink(len(answer))
        return answer

    async def label(
        self,
        files: Sequence[bytes | str],
        options: schema.Options,
        held: AsyncExitStack,
        *,
        bytes_per_pixel: int = _BYTES_PER_PIXEL,
    ) -> tuple[list[SegResult], int, Held]:
        """Segment images of the same size.

        Args:
            files: image files; as text, base64.
            options: how to segment them.
            held: closed once the answer has been sent; releases its memory.
            bytes_per_pixel: memory of the images and their answer.

        Returns:
            tuple: the results, the number of pages of the first file, and their memory.

        Raises:
            ApiError: an image can't be segmented, or the sizes differ.
        """
        request = self._request(options)
        # One slot for all images of a request: one that waited for a second slot while it has
        # memory could wait for those that have a slot and wait for memory.
        async with AsyncExitStack() as slots:  # held until there is memory for the decoded images
            if max(map(len, files)) > _LARGE_BODY:
                await slots.enter_async_context(self._large_slots)
            await slots.enter_async_context(self._decoder_slots)

            async def decode(
                file: bytes | str,
            ) -> tuple[npt.NDArray[np.uint8], int, tuple[int, int]]:
                return await self._in_thread(
                    self._decode, file, options.page, request, pool=self._decoding
                )

            image, pages, size = await decode(files[0])
            pixels = len(files) * (image.size // 3)
            if pixels > self.settings.max_pixels:
                raise ApiError(
                    413,
                    f"{len(files)} images of {image.shape[0]} x {image.shape[1]} have more than "
                    f"{self.settings.max_pixels:,} pixels together: send fewer at once.",
                )
            memory = await held.enter_async_context(self.images.hold(bytes_per_pixel * pixels))
            images = [image]
            for file in files[1:]:
                other, _, _ = await decode(file)
                if other.shape != image.shape:
                    raise ApiError(
                        422,
                        f"The images are {image.shape[0]} x {image.shape[1]} and {other.shape[0]} "
                        f"x {other.shape[1]}: images of one request must have the same size.",
                    )
                images.append(other)
        runs = [asyncio.ensure_future(self.batcher.run(one, request, size)) for one in images]
        try:
            return await asyncio.gather(*runs), pages, memory
        except TooLargeError as error:
            raise ApiError.from_error(413, error) from None
        except (ConfigError, ModelError) as error:
            raise ApiError.from_error(422, error) from None
        finally:
            for run in runs:
                run.cancel()

    def info(self) -> schema.Info:
        """The model, how it runs, and the limits."""
        pipeline, settings = self.pipeline, self.settings
        names = list(pipeline.class_names)
        plan = pipeline.session.plan
        return schema.Info(
            version=__version__,
            model=pipeline.model_name,
            classes=names,
            palette=[tuple(colour) for colour in pipeline.palette[: len(names) or None].tolist()],
            provider=plan.provider,
            precision=plan.precision,
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

    async def _in_thread(
        self,
        work: Callable[..., _Value],
        *arguments: Any,
        pool: ThreadPoolExecutor | None = None,
    ) -> _Value:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool or self._coders, work, *arguments)

    def _request(self, options: schema.Options) -> Request:
        try:
            return self.pipeline.request(
                options.targetSize,
                batch_size=self.settings.max_batch,
                scores=options.scores,
                slide=options.slide,
            )
        except ConfigError as error:
            raise ApiError.from_error(422, error) from None

    async def _fetch(self, url: str) -> bytes:
        settings = self.settings
        if not settings.allow_urls:
            raise ApiError(400, "This server does not fetch URLs: send the image itself as base64.")
        seconds = min(settings.timeout, _MAX_FETCH_SECONDS)
        work = partial(fetch, url, seconds=seconds, max_bytes=settings.max_body)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._fetchers, work)
        except TooLargeError as error:
            raise ApiError.from_error(413, error) from None
        except InputError as error:
            raise ApiError.from_error(424, error) from None

    def _decode(
        self, content: bytes | str, page: int | None, request: Request
    ) -> tuple[npt.NDArray[np.uint8], int, tuple[int, int]]:
        """The image, uint8 (H, W, 3) BGR, the number of pages, and the inference size."""
        data = schema.from_base64(content) if isinstance(content, str) else content
        limit = self.settings.max_pixels
        try:
            image, pages = self.decoders.decode(data, page)
        except ConfigError as error:
            raise ApiError.from_error(422, error) from None
        except TooLargeError as error:
            raise ApiError.from_error(413, error) from None
        except InputError as error:
            raise ApiError.from_error(400, error) from None
        height, width = self.pipeline.transforms.size(image.shape[:2], request.target_size)
        if height * width > limit:
            raise ApiError(
                413,
                f"The inference size {height} x {width} exceeds the limit of {limit:,} pixels: "
                "lower targetSize.",
            )
        return image, pages, (height, width)

    def _encode(self, result: SegResult, options: schema.Options, log_id: str, pages: int) -> bytes:
        with self.metrics.encoding.time():
            if options.visualize is None:
                options = options.model_copy(update={"visualize": self.settings.visualize})
            return schema.encode(result, options, log_id, pages)
