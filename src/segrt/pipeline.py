"""The data flow of every image: sources -> preprocess -> session.run -> postprocess -> result."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from threading import Lock
from time import perf_counter
from typing import Any, Literal, NoReturn, TypeAlias, overload

import cv2
import numpy as np

from segrt.backends.memory import release
from segrt.backends.session import Session, device_of
from segrt.errors import ConfigError, DeviceError, InputError, SegrtError
from segrt.frame import Frame, SegFailure
from segrt.names import NamedBatch, named_batches
from segrt.palette import PaletteLike, parse_palette, voc_palette
from segrt.postprocess import Labels, Scores, finish, to_source
from segrt.preprocess import Layout, Transforms
from segrt.reading import Reading
from segrt.request import Request, check_size, too_large
from segrt.result import SegResult, Timings
from segrt.schedule import Acquire, in_order, read_ahead
from segrt.slide import Crops, Progress, SlideLike, parse_window, run_window, whole
from segrt.sources import Source, frames, is_likely_single
from segrt.types import (
    Color,
    Device,
    Mode,
    OnError,
    SizeLike,
    TargetSize,
    parse_color,
    parse_target_size,
)
from segrt.validation import refuse_unknown

log = logging.getLogger("segrt")

Size: TypeAlias = tuple[int, int]
Start: TypeAlias = Callable[[Device], list[Session]]
"""Loads the model on a device; one session per worker."""
_Ready: TypeAlias = tuple[Frame, str, Layout]  # with the name under which the result is saved


class Pipeline:
    """A loaded model. Threads may share one.

    Calling it is the same as `predict`. `close`, or the end of a `with` block, frees its memory.
    `copy.copy` shares the loaded model; pickling a pipeline, as for another process, loads the
    model there once more.

    Example:
        >>> with segrt.create_pipeline("semantic_segmentation") as pipeline:
        ...     for result in pipeline.predict(["road.png", "photos/"]):
        ...         result.save_to_img("./output/")
        ...     pipeline.segment("road.png").areas()

    Attributes:
        sessions: the sessions that share the work, at least one; empty once it is closed.
        model_name: the model's name.
        class_names: the name of each class id; `class_7` if the model has no names.
        batch_size: default number of images that run together.
        target_size: default inference size.
        slide: default sliding window; True for the model's own, False for none.
        palette: the class colours of overlays and legends, uint8 (K, 3), RGB.
        label_palette: those of label pictures, likewise.
        mode: how the backend was chosen.
        transforms: from an image to the input of the network.
    """

    def __init__(
        self,
        *sessions: Session,
        start: Start | None = None,
        batch_size: int = 1,
        target_size: TargetSize = None,
        palette: PaletteLike = None,
        slide: SlideLike = None,
        mode: Mode = Mode.NORMAL,
        reopen: Callable[[], Pipeline] | None = None,
    ) -> None:
        self.sessions: Sequence[Session] = sessions
        meta = self.session.meta
        self.model_name, self.class_names = meta.name, meta.class_names
        self.batch_size, self.target_size, self.mode = batch_size, target_size, mode
        self.slide = parse_window(slide)
        self.transforms: Transforms = self.session.description.transforms
        classes = len(self.class_names)
        chosen = (meta.palette or "distinct") if palette is None else palette
        self.palette = parse_palette(chosen, self.class_names)
        # Label pictures are PaddleX's, unless the user wants other colours.
        self.label_palette = voc_palette(max(256, classes)) if palette is None else self.palette
        self._start, self._starting, self._reopen = start, Lock(), reopen
        self._started: dict[Device, Sequence[Session]] = {device_of(sessions): sessions}
        if (colours := len(self.palette)) < classes:
            what = f"the palette has {colours} colours, but {meta.name} has {classes} classes"
            raise ConfigError(what)

    @property
    def session(self) -> Session:
        """The first of `sessions`, with its provider, precision and plan.

        Raises:
            ConfigError: the pipeline is closed.
        """
        sessions = self.sessions  # once: another thread may close the pipeline
        if not sessions:
            raise ConfigError("this pipeline is closed: create another one")
        return sessions[0]

    def close(self) -> None:
        """Free the sessions on all devices. Closing twice does no harm.

        What uses the pipeline afterwards raises ConfigError. So does, for the images that are not
        yet in the network, a call of `predict` that is still in progress; its memory is freed when
        it ends.

        Example:
            >>> pipeline.close()
        """
        with self._starting:
            self.sessions, self._start = (), None
            self._started.clear()
        release()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> Pipeline:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _started=dict(self._started), _starting=Lock())
        return other

    def __reduce__(self) -> tuple[Callable[[], Pipeline], tuple[()], dict[str, Any]]:
        """A pickled pipeline is created again, with the settings that it has now.

        Raises:
            ConfigError: it is closed, or was not made by `create_pipeline`.
        """
        if self._reopen is None:
            raise ConfigError(
                f"this {type(self).__name__} can't be pickled: create it with create_pipeline, or "
                "create one in each process"
            )
        self.session  # noqa: B018 - raises if it is closed
        settings = ("batch_size", "target_size", "slide", "palette", "label_palette")
        return self._reopen, (), {name: getattr(self, name) for name in settings}

    def describe(self) -> dict[str, tuple[str, str]]:
        """Everything that decides a label, with its source.

        Example:
            >>> pipeline.describe()["mean"]
            ('0.5, 0.5, 0.5', 'the metadata of model.onnx')

        Returns:
            dict: a value and its source, as text, for each of: model, input, batch, height, width,
                channel order, size, scale, mean, std, output, labels at, classes, ignore index.
        """
        return self.session.description.values()

    def segment(self, input: Source, target_size: SizeLike = None, **options: Any) -> SegResult:
        """Segment one image.

        Example:
            >>> pipeline.segment("road.png").areas()
            {'road': 0.41, 'sky': 0.33, 'building': 0.26}

        Args:
            input: as in `predict`: whatever gives one image.
            target_size: as in `predict`.
            options: as in `predict`, except `on_error`.

        Raises:
            InputError: it gives several images, as a folder or a PDF may, or none.
            SegrtError: see `predict`.
        """
        results = self.predict(input, target_size, on_error="raise", **options)
        found: list[SegResult] = list(islice(results, 2))
        if len(found) != 1:
            is_path = isinstance(input, (str, os.PathLike))
            raise InputError(
                f"{input if is_path else f'this {type(input).__name__}'} gives "
                f"{'several images' if found else 'no image'}: segment takes exactly one, predict "
                "any number"
            )
        return found[0]

    @overload
    def predict(
        self,
        input: Source,
        target_size: SizeLike = None,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        scores: bool = False,
        slide: SlideLike = None,
        progress: Progress | None = None,
        color: Color = "bgr",
        exif: bool = True,
        pdf_scale: float = 2.0,
        max_pixels: int | None = None,
    ) -> Iterator[SegResult]: ...

    @overload
    def predict(
        self,
        input: Source,
        target_size: SizeLike = None,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        on_error: Literal["yield"],
        scores: bool = False,
        slide: SlideLike = None,
        progress: Progress | None = None,
        color: Color = "bgr",
        exif: bool = True,
        pdf_scale: float = 2.0,
        max_pixels: int | None = None,
    ) -> Iterator[SegResult | SegFailure]: ...

    def predict(
        self,
        input: Source,
        target_size: SizeLike = None,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        scores: bool = False,
        slide: SlideLike = None,
        progress: Progress | None = None,
        color: Color = "bgr",
        exif: bool = True,
        pdf_scale: float = 2.0,
        max_pixels: int | None = None,
        **unknown: NoReturn,
    ) -> Iterator[SegResult] | Iterator[SegResult | SegFailure]:
        """Segment images, lazily and in order. Threads read and finish batches next to the network.

        Example:
            >>> for result in pipeline.predict(["road.png", "photos/"], target_size=1024):
            ...     print(result.input_path, result.areas())

        Args:
            input: a file or folder (str or Path), an http(s) URL, a camera (0, or "camera:0"), the
                bytes of a file, an opened file, a PIL image, an array of any library, or an
                iterable of these, nested to any depth. Folders are searched recursively for images
                and PDFs, sorted by path. Each page of a PDF and each frame of a TIFF, animation,
                video or camera gives a result, with its zero-based `page_index`. An array is
                (H, W, 3), or grey, or with alpha, which is dropped; uint8, uint16 (its upper 8
                bits), bool, or float from 0 to 1; see `color`. For a model that takes bands
                (`session.meta.bands`), it is (H, W, C) with these bands in order; uint8, uint16,
                int16 or float32, whose values are used as they are. Such a model takes no pictures.
            target_size: -1: the image's own size; N: fit inside N x N; (height, width): exactly
                that size; None: the pipeline's setting, else the image's own size.
            device: "cpu", "gpu:0,1", ... where the model is loaded once; None: the pipeline's.
            batch_size: images that run together; None: the pipeline's setting.
            on_error: for an input that can't be segmented, "raise" the error in its position,
                "skip" it with a warning, or "yield" a SegFailure in its position.
            scores: compute each pixel's softmax probability as well, which takes longer.
            slide: sliding window, for images too large or too detailed to run at once:
                {"crop": ..., "stride": ...}, each a number or (height, width) in pixels at the
                inference size, or the text "CROP,STRIDE". Logits are averaged where crops overlap,
                and `batch_size` crops run together. True: the window of the model's published
                accuracy. False: whole images. None: the pipeline's setting, else whole images.
            progress: with `slide`, called with the crops done and their total after each step.
            color: the order of the channels of arrays: "bgr", as OpenCV and PaddleX have it, or
                "rgb", as most other libraries do. Files and PIL images say it themselves.
            exif: apply the EXIF orientation of photos.
            pdf_scale: pixels per point (1/72 inch) of PDF pages; 2 is 144 dpi.
            max_pixels: limit on the pixels of an image, page or frame; None for 178,956,970.
            unknown: other keyword arguments are a TypeError that lists these.

        Yields:
            SegResult: for each image, with labels at the size of the source image; or SegFailure.

        Raises:
            ConfigError: an argument is invalid, or the model has no scores.
            DeviceError: the device can't run here.
            InputError: an input can't be read, with `on_error="raise"`.
            ModelError: the model can't run on it.
            TypeError: there is no such argument.
        """
        refuse_unknown(Pipeline.predict, unknown)
        if on_error not in ("raise", "skip", "yield"):
            raise ConfigError(f"on_error {on_error!r} is not valid: use raise, skip or yield")
        request = self.request(
            target_size, batch_size=batch_size, scores=scores, slide=slide, progress=progress
        )
        sessions = self._sessions(device)
        reading = Reading(exif=exif, pdf_scale=pdf_scale, max_pixels=max_pixels)
        items = frames(input, reading, parse_color(color), self.session.meta.bands)
        return self._predict(items, request, sessions, on_error, is_likely_single(input))

    __call__ = predict

    def request(
        self,
        target_size: SizeLike = None,
        *,
        batch_size: int | None = None,
        scores: bool = False,
        slide: SlideLike = None,
        progress: Progress | None = None,
    ) -> Request:
        """Validate arguments of `predict`, and fill in the pipeline's settings.

        Raises:
            ConfigError: one is invalid, or the model has no scores, or not that size.
        """
        size = parse_target_size(target_size)
        if scores and (why := self.session.description.output.unscored):
            raise ConfigError(f"{self.model_name} has no scores: {why}")
        request = Request.parse(
            self.model_name,
            self.session.meta.output,
            target_size=self.target_size if size is None else size,
            batch_size=self.batch_size if batch_size is None else batch_size,
            scores=scores,
            slide=self.slide if slide is None else slide,
            progress=progress,
        )
        check_size(self.model_name, request, self.transforms.fixed)
        return request

    def _sessions(self, device: str | None) -> Sequence[Session]:
        if device is None:
            return self.sessions or (self.session,)  # which raises if the pipeline is closed
        parsed = Device.parse(device)
        with self._starting:
            if parsed not in self._started:
                if self._start is None:
                    own = device_of(self.sessions)
                    what = f"this pipeline runs on {own} alone: create_pipeline makes one for it"
                    raise DeviceError(what)
                self._started[parsed] = self._start(parsed)
            return self._started[parsed]

    def _predict(
        self,
        items: Iterator[Frame | SegFailure],
        request: Request,
        sessions: Sequence[Session],
        on_error: OnError,
        is_single: bool,
    ) -> Iterator[SegResult | SegFailure]:
        batches = self._batches(items, request, sessions, is_single)
        with closing(batches):
            for result in chain.from_iterable(batches):
                if isinstance(result, SegFailure) and on_error == "raise":
                    raise result.error
                if isinstance(result, SegFailure) and on_error == "skip":
                    log.warning("skipped %s: %s", result.input_path or "an array", result.error)
                else:
                    yield result

    def _batches(
        self,
        items: Iterator[Frame | SegFailure],
        request: Request,
        sessions: Sequence[Session],
        is_single: bool,
    ) -> Generator[list[SegResult | SegFailure], None, None]:
        """Segment batches in threads; the first one in this thread, if it is likely the last."""

        def segment(batch: NamedBatch, acquire: Acquire[Session]) -> list[SegResult | SegFailure]:
            return self._segment(batch, request, acquire)

        # One thread more than there are sessions prepares and finishes batches, except with the
        # sliding window, whose images are too large to hold several.
        size, spare = (1, 0) if request.window else (request.batch_size, 1)
        if not is_single:
            items = read_ahead(items, 1 if request.window else max(2, size))
        batches = named_batches(items, size)
        if is_single:
            yield from in_order(segment, islice(batches, 1), sessions, threads=1)
            more = next(batches, None)
            if more is None:
                return
            batches = chain([more], batches)
        with closing(in_order(segment, batches, sessions, len(sessions) + spare)) as results:
            yield from results

    def _segment(
        self, batch: NamedBatch, request: Request, acquire: Acquire[Session]
    ) -> list[SegResult | SegFailure]:
        """Segment a batch; images of the same inference size run together."""
        results: dict[int, SegResult | SegFailure] = {}
        groups: dict[Size, dict[int, _Ready]] = {}
        for index, (item, stem) in enumerate(batch):
            if isinstance(item, SegFailure):
                results[index] = item
                continue
            height, width = item.image.shape[:2]
            try:
                self._check_bands(item)
                layout = self.transforms.layout(
                    (height, width), request.target_size, in_crops=request.window is not None
                )
                groups.setdefault(layout.size, {})[index] = item, stem, layout
            except SegrtError as error:
                results[index] = SegFailure(item.input_path, item.page_index, error)
        for size, group in groups.items():
            segment = self._in_crops if request.window else self._whole
            try:
                done = segment([*group.values()], size, request, acquire)
                results.update(zip(group, done, strict=True))
            except (SegrtError, MemoryError, cv2.error) as error:
                cause = error if isinstance(error, SegrtError) else too_large(error, size)
                for index, (frame, _, _) in group.items():
                    results[index] = SegFailure(frame.input_path, frame.page_index, cause)
        return [results[index] for index in range(len(batch))]

    def _check_bands(self, frame: Frame) -> None:
        """Refuse a picture for a network that takes bands.

        Raises:
            InputError: it is one, or the network takes whole numbers below 256 only.
        """
        bands = self.session.meta.bands
        if frame.bands != bands:
            raise InputError(
                f"{frame.input_path or 'this'} is a picture, and {self.model_name} takes "
                f"{len(bands)} bands ({', '.join(bands)}): run segrt geo on GeoTIFFs, or pass "
                f"arrays of shape (H, W, {len(bands)})"
            )
        if bands and self.session.description.input.dtype == np.uint8 != frame.image.dtype:
            raise InputError(
                f"{self.model_name} takes bands of uint8, not {frame.image.dtype}: convert the "
                "array to that"
            )

    def _whole(
        self, group: list[_Ready], size: Size, request: Request, acquire: Acquire[Session]
    ) -> Iterator[SegResult]:
        """Prepare, run and finish whole images, as many at once as fit into memory."""
        count = self.session.fits(size, len(group))
        for part in (group[first : first + count] for first in range(0, len(group), count)):
            start = perf_counter()
            fitted = [self.transforms.fit(frame.image, layout) for frame, _, layout in part]
            batch = self.transforms.batch(fitted)
            del fitted
            prepared = perf_counter()
            with acquire() as session, session.reserve(batch.shape):
                begun = perf_counter()
                output = session.run(batch)
                ran = perf_counter()
            share = 1000 / len(part)
            for named, logits in zip(part, output, strict=True):
                begin = perf_counter()
                labels, scores = finish(logits, self.session.meta, named[2], request.scores)
                post = (perf_counter() - begin) * 1000
                timings = Timings((prepared - start) * share, (ran - begun) * share, post)
                yield self._result(named, labels, scores, timings, session)

    def _in_crops(
        self, group: list[_Ready], size: Size, request: Request, acquire: Acquire[Session]
    ) -> Iterator[SegResult]:
        """Prepare, run and finish one image crop by crop, with the sliding window."""
        [named], window = group, request.window
        assert window
        layout, meta = named[2], self.session.meta
        crop = min(window.crop[0], size[0]), min(window.crop[1], size[1])
        channels, dtype = self.transforms.channels, named[0].image.dtype
        # Bytes of the image, the labels and the scores.
        rest = (13 + max(3, channels * dtype.itemsize)) * size[0] * size[1]
        count = self.session.fits(crop, request.batch_size, rest)
        with acquire() as session, session.reserve((count, channels, *crop), rest):
            start = perf_counter()
            image = self.transforms.fit(named[0].image, layout)
            crops = Crops(image, self.transforms, session.run, meta.align_corners)
            strips = run_window(
                size,
                window,
                crops.infer,
                batch_size=count,
                with_scores=request.scores,
                probabilities=meta.output == "probabilities",
                progress=request.progress,
            )
            labels, scores = whole(size, strips, request.scores)
            labels = to_source(labels, layout)
            scores = None if scores is None else to_source(scores, layout)
        post = perf_counter() - start - crops.preprocess_s - crops.run_s
        timings = Timings(crops.preprocess_s * 1000, crops.run_s * 1000, post * 1000)
        yield self._result(named, labels, scores, timings, session)

    def _result(
        self, named: _Ready, labels: Labels, scores: Scores, timings: Timings, session: Session
    ) -> SegResult:
        frame, stem, layout = named
        log.debug(
            "%s: %d x %d at %d x %d: preprocessing %.1f ms, network %.1f ms, postprocessing %.1f "
            "ms, on %s %s",
            stem,
            *frame.image.shape[:2],
            *layout.size,
            *(timings.preprocess, timings.run, timings.postprocess),
            *(session.provider, session.precision),
        )
        return SegResult(
            labels=labels,
            image=frame.image,
            input_path=frame.input_path,
            page_index=frame.page_index,
            class_names=self.class_names,
            palette=self.palette,
            model_name=self.model_name,
            provider=session.provider,
            precision=session.precision,
            timings=timings,
            stem=stem,
            scores=scores,
            time=frame.time,
            geotags=frame.geotags,
            label_palette=self.label_palette,
            bands=frame.bands,
        )
