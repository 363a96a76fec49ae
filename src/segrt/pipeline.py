"""The way of a pixel: sources -> preprocess -> session -> postprocess -> result."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segrt import config as configuration
from segrt import store, zoo
from segrt.backends.plan import HpiConfig
from segrt.backends.session import Session, start_all
from segrt.errors import ConfigError, DeviceError, MissingExtraError, ModelError, SegrtError
from segrt.postprocess import Upsampled, labels_from_logits, resize_labels, resize_nearest
from segrt.preprocess import Transforms
from segrt.render import Labels, parse_palette
from segrt.result import SegFailure, SegResult, Timings, file_name
from segrt.slide import Box, Progress, Window, parse_window, run_window
from segrt.sources import Frame, Reading, ahead, frames, in_threads
from segrt.types import Device, Mode, OnError, TargetSize, parse_target_size

log = logging.getLogger("segrt")

MAX_WORKERS = 64
"""Most sessions on one device."""

Start: TypeAlias = Callable[[Device], list[Session]]
"""Loads the model on a device: one session a worker."""


class Pipeline:
    """A model ready to run. Threads may share one.

    Attributes:
        sessions: what runs the network, at least one: several share the work.
        model_name: the model's name.
        class_names: the name of each class id, empty where the model names none.
        batch_size: images that run together, unless `predict` is told otherwise.
        target_size: size of inference, unless `predict` is told otherwise.
        slide: sliding window, unless `predict` is told otherwise; True for the model's own, False for none.
        palette: colours of the classes, uint8 (K, 3), RGB.
        mode: how the backend was chosen.
        transforms: from an image to the network's input.
    """

    def __init__(
        self,
        *sessions: Session,
        start: Start | None = None,
        batch_size: int = 1,
        target_size: TargetSize = None,
        palette: object = None,
        slide: object = None,
        mode: Mode = Mode.NORMAL,
    ) -> None:
        self.sessions = sessions
        meta = self.session.meta
        self.model_name = meta.name
        self.class_names = meta.class_names
        self.batch_size = batch_size
        self.target_size = target_size
        self.slide = parse_window(slide)
        self.mode = mode
        self.transforms = Transforms.parse(list(meta.transforms))
        self.palette = parse_palette(meta.palette or "voc" if palette is None else palette)
        self._start, self._starting = start, Lock()
        self._started: dict[Device, Sequence[Session]] = {_device(sessions): sessions}
        colours, classes = len(self.palette), len(self.class_names)
        if colours < classes:
            raise ConfigError(
                f"the palette has {colours} colours, but {self.model_name} has {classes} classes"
            )

    @property
    def session(self) -> Session:
        """The first of `sessions`: its provider, precision and plan."""
        return self.sessions[0]

    def predict(
        self,
        input: object,
        target_size: object = None,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        scores: bool = False,
        slide: object = None,
        progress: Progress | None = None,
        exif: bool = True,
        pdf_scale: float = 2.0,
        max_pixels: int | None = None,
    ) -> Iterator[SegResult | SegFailure]:
        """Segment images, lazily and in order.

        While a batch runs, threads prepare the next one and finish the one before: there is at most one batch more than
        sessions, and at most `batch_size` images, or 2 if that is more, are read ahead. With `slide` it is one image.

        Args:
            input: a file or folder (str or Path), an http(s) URL, the number of a camera (0, or "camera:0"), bytes of a
                file, a PIL image, an array, or an iterable of these, nested as one likes. Folders are searched for
                images and PDFs, recursively, sorted by path. Every page of a PDF and every frame of a TIFF, a video or
                a camera gives a result, with its number, from 0, as `page_index`. An array is (H, W, 3) BGR, or grey,
                or with alpha, which is dropped; uint8, uint16 (its upper 8 bits count), bool, or float from 0 to 1.
            target_size: -1: infer at the image's own size; N: at a size that fits inside N x N; (height, width): at
                exactly that; None: as the pipeline is set, else at the image's own size.
            device: "cpu", "gpu:1", "gpu:0,1", ...: this call runs there, or this raises. The model is loaded there when
                it is first named, and stays. None: where the pipeline was made to run.
            batch_size: images that run together; None: as the pipeline is set.
            on_error: what to do with an input that can't be segmented: "raise" its error when its turn comes, "skip" it
                with a warning, or "yield" a SegFailure in its place.
            scores: give the softmax probability of each pixel's class too, which takes longer.
            slide: a sliding window, for images that are too large or too rich in detail to go through the network
                at once: {"crop": ..., "stride": ...}, each a number or (height, width) in pixels of the inference, or
                text "CROP,STRIDE"; logits are averaged where crops overlap. True: the window that the model's published
                accuracy was measured with. False: whole images. None: as the pipeline is set, else whole images.
                `batch_size` crops run together.
            progress: with `slide`, called after each step with the crops of the image that are done, and all of them.
            exif: turn photos the way their EXIF orientation says.
            pdf_scale: pixels to one point (1/72 inch) of a PDF page: 2 is 144 dpi.
            max_pixels: most pixels of one file's image, page or frame; None for 178,956,970. Larger ones are an error.

        Yields:
            SegResult: one an image, its labels at the size of the source; with `on_error="yield"` also SegFailure.

        Raises:
            ConfigError: target_size, batch_size, on_error, slide, pdf_scale or max_pixels is not valid, or the model
                has no scores.
            DeviceError: the device can't run here.
            InputError: an input can't be read, with `on_error="raise"`.
            ModelError: the model can't run on it.
        """
        size = parse_target_size(target_size)
        size = self.target_size if size is None else size
        batch_size = self.batch_size if batch_size is None else batch_size
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(
                f"batch_size {batch_size!r} is not valid: it must be a whole number from 1"
            )
        if on_error not in ("raise", "skip", "yield"):
            raise ConfigError(f"on_error {on_error!r} is not valid: use raise, skip or yield")
        window = self._window(self.slide if slide is None else parse_window(slide))
        if self.session.meta.output == "labels" and (scores or window):
            raise ConfigError(
                f"{self.model_name} ends in labels: it has no scores, and nothing to average in a window"
            )
        sessions = self._sessions(device)
        how = _How(size, batch_size, scores, window, progress, SimpleQueue(), Event(), Event())
        how.begun.set()  # nothing is before the first batch
        for session in sessions:
            how.idle.put(session)
        items = frames(input, Reading(exif=exif, pdf_scale=pdf_scale, max_pixels=max_pixels))
        return self._predict(
            ahead(items, 1 if window else max(2, batch_size)), how, len(sessions), on_error
        )

    def _sessions(self, device: str | None) -> Sequence[Session]:
        if device is None:
            return self.sessions
        place = Device.parse(device)
        with self._starting:
            if place not in self._started:
                if self._start is None:
                    raise DeviceError(
                        f"this pipeline runs on {_device(self.sessions)} alone: create_pipeline makes one for {place}"
                    )
                self._started[place] = self._start(place)
            return self._started[place]

    def _predict(
        self,
        items: Generator[Frame | SegFailure, None, None],
        how: _How,
        workers: int,
        on_error: OnError,
    ) -> Iterator[SegResult | SegFailure]:
        for result in self._batches(items, how, workers):
            if isinstance(result, SegFailure) and on_error == "raise":
                raise result.error
            if isinstance(result, SegFailure) and on_error == "skip":
                log.warning("skipped %s: %s", result.input_path or "an array", result.error)
            else:
                yield result

    def _batches(
        self, items: Generator[Frame | SegFailure, None, None], how: _How, workers: int
    ) -> Iterator[SegResult | SegFailure]:
        """Run batches side by side, and give their results in order."""
        stems = Stems()

        def batches() -> Iterator[tuple[list[tuple[Frame | SegFailure, str]], _How]]:
            turn = how
            with closing(items):  # by the thread that takes from it
                while batch := list(islice(items, 1 if how.window else how.batch_size)):
                    turn = replace(turn, before=turn.begun, begun=Event())
                    yield (
                        [(item, stems.give(item.input_path, item.page_index)) for item in batch],
                        turn,
                    )

        # One more than there are sessions prepares and finishes batches; not of large images, for the sake of memory.
        threads = workers if how.window else workers + 1
        if threads == 1:
            yield from chain.from_iterable(self._segment(*batch) for batch in batches())
        else:
            segmented = in_threads(lambda batch: self._segment(*batch), batches(), threads)
            with closing(segmented):
                yield from chain.from_iterable(segmented)

    def _segment(
        self, items: list[tuple[Frame | SegFailure, str]], how: _How
    ) -> list[SegResult | SegFailure]:
        """Run one batch: images of one inference size go through the network together."""
        done: dict[int, SegResult | SegFailure] = {}
        groups: dict[tuple[int, int], list[tuple[int, Frame, str]]] = {}
        try:
            for place, (item, stem) in enumerate(items):
                if isinstance(item, SegFailure):
                    done[place] = item
                else:
                    inference = self.transforms.size(item.image.shape[:2], how.size)
                    groups.setdefault(inference, []).append((place, item, stem))
            for inference, members in groups.items():
                places, group, names = zip(*members, strict=True)
                run = self._slide if how.window else self._run
                done.update(zip(places, run(group, names, inference, how), strict=True))
        finally:  # a batch that never ran must not hold up those after it
            how.before.wait()
            how.begun.set()
        return [done[place] for place in range(len(items))]

    def _run(
        self, group: Sequence[Frame], names: Sequence[str], inference: tuple[int, int], how: _How
    ) -> Iterator[SegResult | SegFailure]:
        start = perf_counter()
        batch = np.empty((len(group), 3, *inference), np.float32)
        for slot, frame in zip(batch, group, strict=True):
            self.transforms.write(frame.image, out=slot)
        prepared = perf_counter()
        try:
            with how.session() as session:
                begun = perf_counter()
                output = session.run(batch)
        except SegrtError as error:
            yield from (SegFailure(frame.input_path, frame.page_index, error) for frame in group)
            return
        ran = perf_counter()
        share = 1000 / len(group)
        for frame, stem, item in zip(group, names, output, strict=True):
            begin = perf_counter()
            labels, scores = self._labels(item[None], inference, frame.image.shape[:2], how.scores)
            post = (perf_counter() - begin) * 1000
            timings = Timings((prepared - start) * share, (ran - begun) * share, post)
            yield self._result(frame, stem, labels, scores, timings, session)

    def _slide(
        self, group: Sequence[Frame], names: Sequence[str], inference: tuple[int, int], how: _How
    ) -> Iterator[SegResult | SegFailure]:
        """Run each image in crops. The normalised image, and its logits, exist for a batch of crops only."""
        for frame, stem in zip(group, names, strict=True):
            try:
                with how.session() as session:
                    yield self._slide_one(frame, stem, inference, how, session)
            except SegrtError as error:
                yield SegFailure(frame.input_path, frame.page_index, error)

    def _slide_one(
        self, frame: Frame, stem: str, inference: tuple[int, int], how: _How, session: Session
    ) -> SegResult:
        assert how.window
        start, preprocess, run = perf_counter(), 0.0, 0.0
        image = self.transforms.fit(frame.image, inference)

        def infer(boxes: list[Box]) -> Iterator[Upsampled]:
            nonlocal preprocess, run
            begin = perf_counter()
            crops = [image[box] for box in boxes]
            size = crops[0].shape[:2]
            batch = np.empty((len(crops), 3, *size), np.float32)
            for slot, crop in zip(batch, crops, strict=True):
                self.transforms.write(np.ascontiguousarray(crop), out=slot)
            prepared = perf_counter()
            output = session.run(batch)
            preprocess, run = preprocess + prepared - begin, run + perf_counter() - prepared
            return (Upsampled(logits, size, align_corners=self._align_corners) for logits in output)

        labels, scores = run_window(
            inference,
            how.window,
            infer,
            batch_size=how.batch_size,
            with_scores=how.scores,
            progress=how.progress,
        )
        source = frame.image.shape[:2]
        labels, scores = (
            resize_nearest(labels, source),
            None if scores is None else resize_nearest(scores, source),
        )
        post = perf_counter() - start - preprocess - run
        timings = Timings(preprocess * 1000, run * 1000, post * 1000)
        return self._result(frame, stem, labels, scores, timings, session)

    def _result(
        self,
        frame: Frame,
        stem: str,
        labels: Labels,
        scores: npt.NDArray[np.float32] | None,
        timings: Timings,
        session: Session,
    ) -> SegResult:
        return SegResult(
            labels=labels,
            image=frame.image,
            input_path=frame.input_path,
            page_index=frame.page_index,
            class_names=self.class_names
            or tuple(f"class_{i}" for i in range(int(labels.max()) + 1)),
            palette=self.palette,
            model_name=self.model_name,
            provider=session.provider,
            precision=session.precision,
            timings=timings,
            stem=stem,
            scores=scores,
        )

    @property
    def _align_corners(self) -> bool:
        upsampling = self.session.meta.upsample
        return upsampling is not None and upsampling.align_corners

    def _labels(
        self,
        output: npt.NDArray[Any],
        inference: tuple[int, int],
        source: tuple[int, int],
        with_scores: bool,
    ) -> tuple[Labels, npt.NDArray[np.float32] | None]:
        if self.session.meta.output == "labels":
            return resize_labels(output, source)[0], None
        labels, scores = labels_from_logits(
            output, inference, source, align_corners=self._align_corners, with_scores=with_scores
        )
        return labels[0], None if scores is None else scores[0]

    def _window(self, slide: Window | bool) -> Window | None:
        if isinstance(slide, Window) or not slide:
            return slide or None
        window = next(
            (spec.slide for spec in zoo.load().models if spec.answers_to(self.model_name)), None
        )
        if window is None:
            raise ConfigError(
                f"model_zoo.yaml gives {self.model_name} no sliding window: name one, as in slide={{'crop': 1024, "
                "'stride': 768}"
            )
        return Window(window.crop_size, window.stride)


@dataclass(frozen=True)
class _How:
    """What `predict` was asked for, parsed."""

    size: TargetSize
    batch_size: int
    scores: bool
    window: Window | None
    progress: Progress | None
    idle: SimpleQueue[Session]
    before: Event
    begun: Event

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that no other batch of this call uses meanwhile; batches get theirs in the order of the input."""
        self.before.wait()
        session = self.idle.get()
        self.begun.set()
        try:
            yield session
        finally:
            self.idle.put(session)


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: dict[str, Any] | None = None,
    device: str | None = None,
    use_hpip: bool = False,
    hpi_config: dict[str, Any] | str | None = None,
    mode: str | None = None,
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    palette: object = None,
    workers: int = 1,
) -> Pipeline:
    """Build a segmentation pipeline.

    Args:
        pipeline: "semantic_segmentation", or the path of a pipeline YAML. It may be left out where a model is named.
        config: the content of such a YAML; wins over `pipeline`, and must name the same one.
        device: "cpu", "gpu:0", "gpu:0,1", ...: it runs there, or this raises; several share the work. None: GPU 0 if it
            can run, else the CPU.
        use_hpip: the same as mode="high-performance".
        hpi_config: settings of high-performance mode that override the chosen plan: a mapping, or the JSON text of one,
            of any of backend, precision, threads and provider_options.
        mode: "normal" (the default) or "high-performance".
        model_name: a name of the model zoo; overrides the configuration. None anywhere: the bundled model.
        model_dir: a `.onnx` file, or a folder that holds one, or a folder with a Paddle inference model, which is
            converted when it is first used (this needs the export extra); overrides the configuration.
        palette: the colours of the classes: "voc", "cityscapes", "ade20k", "camvid", or (R, G, B) for each class, 0 to
            255; overrides the configuration. None anywhere: the model's own, else voc.
        workers: how many times the model is loaded on each device. Batches then run side by side, with the threads of
            the CPU shared between them; on a CPU with many cores that is faster than all threads for each in turn.

    Returns:
        Pipeline: with its model loaded.

    Raises:
        ConfigError: an argument or the configuration is not valid.
        DeviceError: the device can't run here.
        MissingExtraError: no ONNX Runtime is installed.
        ModelError: the model is unknown, not there or damaged.
    """
    if pipeline is None and config is None and (model_name or model_dir):
        pipeline = configuration.PIPELINE
    settings = configuration.load(pipeline, config)
    module = settings.module
    if mode is not None and use_hpip and Mode.parse(mode) is not Mode.HIGH_PERFORMANCE:
        raise ConfigError(f"use_hpip=True and mode={mode!r} disagree: give one of them")
    fallback = settings.mode or (Mode.HIGH_PERFORMANCE if settings.use_hpip else Mode.NORMAL)
    chosen = Mode.parse(mode) if mode else Mode.HIGH_PERFORMANCE if use_hpip else fallback
    if hpi_config and chosen is Mode.NORMAL:
        raise ConfigError(
            "hpi_config says nothing in normal mode: add mode='high-performance', or leave it out"
        )
    named = device or settings.device
    place = (
        Device.parse(named) if named else None
    )  # before a model is looked for, or even downloaded
    hpi = HpiConfig.parse(hpi_config if hpi_config is not None else settings.hpi_config)
    folder = Path(model_dir) if model_dir else module.model_dir
    name = model_name or module.model_name
    size = module.target_size if isinstance(module.target_size, tuple) else None
    preselected = () if folder else zoo.get(name or zoo.DEFAULT_MODEL).plans
    if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(
            f"workers {workers!r} is not valid: it must be a whole number from 1 to {MAX_WORKERS}"
        )
    file = _model_file(name, folder)

    def start(where: Device | None) -> list[Session]:
        return start_all(
            file,
            device=where,
            mode=chosen,
            preselected=preselected,
            hpi_config=hpi,
            size=size,
            workers=workers,
        )

    return Pipeline(
        *start(place),
        start=start,
        batch_size=module.batch_size,
        target_size=module.target_size,
        palette=module.palette if palette is None else palette,
        slide=module.slide,
        mode=chosen,
    )


class Stems:
    """Gives the names under which results are saved, each unlike all earlier ones of the same call.

    A series such as clip_0, clip_1, ... is remembered by its last number, so that endless ones take no memory.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def give(self, path: str | None, page: int | None = None) -> str:
        """The name, without suffix, for an input and its page or frame; says so where that is not the input's own."""
        base = (Path(file_name(path)).stem if path else "") or "image"
        stem = unique = base if page is None else f"{base}_{page}"
        if self._is_taken(stem):
            number = max(2, self._last.get(stem.lower(), 0) + 1)
            while self._is_taken(unique := f"{stem}_{number}"):
                number += 1
            self._last[stem.lower()] = number
            if path:
                log.warning(
                    "%s is saved as %s: another input of this call is saved as %s",
                    path,
                    unique,
                    stem,
                )
        elif page is None:
            self._taken.add(stem.lower())
        else:
            self._last[base.lower()] = page
        return unique

    def _is_taken(self, stem: str) -> bool:
        stem = stem.lower()  # some file systems don't tell A from a
        base, _, number = stem.rpartition("_")
        return stem in self._taken or (
            number.isdecimal() and int(number) <= self._last.get(base, -1)
        )


def _device(sessions: Sequence[Session]) -> Device:
    """Where these sessions, which are of one kind of device, run."""
    plans = [session.plan for session in sessions]
    ids = tuple(dict.fromkeys(plan.device_id for plan in plans)) if plans[0].device != "cpu" else ()
    return Device(plans[0].device, ids)


def _model_file(name: str | None, folder: Path | None) -> Path:
    if folder is None:
        return store.require(zoo.get(name or zoo.DEFAULT_MODEL))
    if not folder.is_dir():
        return folder
    files = sorted(folder.glob("*.onnx"))
    if len(files) > 1:
        raise ModelError(f"model_dir {folder} holds {len(files)} .onnx files: name the one to use")
    return files[0] if files else _exported(folder)


def _exported(folder: Path) -> Path:
    """A folder with a Paddle model is exported when it is first used; the result stays in the user's cache."""
    try:
        from segrt_export.convert import require
        from segrt_export.export import export
        from segrt_export.program import PaddleModel

        source = PaddleModel.open(folder)
        digest = hashlib.sha256("".join(source.sha256().values()).encode()).hexdigest()
        file = (
            store.home() / "onnx" / f"{store.folder_name(source.name)}-{digest[:16]}" / "model.onnx"
        )
        if not file.is_file():
            require("paddle2onnx")
            log.warning("%s is a Paddle model: converting it to %s, this once", folder, file)
            export(source, file)
    except MissingExtraError as error:
        raise ModelError(
            f"{folder} holds a Paddle model, which must be converted to ONNX first, and {error}; or convert it"
            f" elsewhere with  segrt-export {folder} -o OUT  and give the .onnx file as model_dir"
        ) from None
    return file
