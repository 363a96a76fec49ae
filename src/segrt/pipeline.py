"""The way of a pixel: sources -> preprocess -> session -> postprocess -> result."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from segrt import config as configuration
from segrt import store, zoo
from segrt.backends.plan import HpiConfig
from segrt.backends.session import Session, start
from segrt.errors import ConfigError, MissingExtraError, ModelError, SegrtError
from segrt.postprocess import labels_from_logits, resize_labels
from segrt.preprocess import Transforms
from segrt.render import Labels, voc_palette
from segrt.result import SegFailure, SegResult, Timings, file_name
from segrt.sources import Frame, Reading, ahead, frames
from segrt.types import Device, Mode, OnError, TargetSize, parse_target_size

log = logging.getLogger("segrt")


class Pipeline:
    """A model ready to run. Threads may share one.

    Attributes:
        session: what runs the network: its provider, precision and plan.
        model_name: the model's name.
        class_names: the name of each class id, empty where the model names none.
        batch_size: images that run together, unless `predict` is told otherwise.
        target_size: size of inference, unless `predict` is told otherwise.
    """

    def __init__(self, session: Session, *, batch_size: int = 1, target_size: TargetSize = None) -> None:
        self.session = session
        self.model_name = session.meta.name
        self.class_names = session.meta.class_names
        self.batch_size = batch_size
        self.target_size = target_size
        self._transforms = Transforms.parse(list(session.meta.transforms))
        self._palette = voc_palette()
        if session.meta.palette:
            self._palette = np.array(session.meta.palette, np.uint8)

    def predict(
        self,
        input: object,
        target_size: object = None,
        *,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        exif: bool = True,
        pdf_scale: float = 2.0,
    ) -> Iterator[SegResult | SegFailure]:
        """Segment images, lazily and in order. A thread reads ahead: at most `batch_size` images, or 2 if that is more.

        Args:
            input: a file or folder (str or Path), an http(s) URL, bytes of an image file, a PIL image, an array, or an
                iterable of these, nested as one likes. Folders are searched recursively, sorted by path. Every page of
                a PDF and every frame of a TIFF gives a result. An array is (H, W, 3) BGR, or grey, or with alpha, which
                is dropped; uint8, uint16 (its upper 8 bits count), bool, or float from 0 to 1.
            target_size: -1: infer at the image's own size; N: at a size that fits inside N x N; (height, width): at
                exactly that; None: as the pipeline is set, else at the image's own size.
            batch_size: images that run together; None: as the pipeline is set.
            on_error: what to do with an input that can't be segmented: "raise" its error when its turn comes, "skip" it
                with a warning, or "yield" a SegFailure in its place.
            exif: turn photos the way their EXIF orientation says.
            pdf_scale: pixels to one point (1/72 inch) of a PDF page: 2 is 144 dpi.

        Yields:
            SegResult: one an image, its labels at the size of the source; with `on_error="yield"` also SegFailure.

        Raises:
            ConfigError: target_size, batch_size, on_error or pdf_scale is not valid.
            InputError: an input can't be read, with `on_error="raise"`.
            ModelError: the model can't run on it.
        """
        size = parse_target_size(target_size)
        size = self.target_size if size is None else size
        batch_size = self.batch_size if batch_size is None else batch_size
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size {batch_size!r} is not valid: it must be a whole number from 1")
        if on_error not in ("raise", "skip", "yield"):
            raise ConfigError(f"on_error {on_error!r} is not valid: use raise, skip or yield")
        items = frames(input, Reading(exif=exif, pdf_scale=pdf_scale))
        return self._predict(ahead(items, max(2, batch_size)), size, batch_size, on_error)

    def _predict(
        self, items: Generator[Frame | SegFailure, None, None], size: TargetSize, batch_size: int, on_error: OnError
    ) -> Iterator[SegResult | SegFailure]:
        stems: set[str] = set()
        with closing(items):
            while batch := list(islice(items, batch_size)):
                for result in self._segment(batch, size, stems):
                    if isinstance(result, SegFailure) and on_error == "raise":
                        raise result.error
                    if isinstance(result, SegFailure) and on_error == "skip":
                        log.warning("skipped %s: %s", result.input_path or "an array", result.error)
                    else:
                        yield result

    def _segment(
        self, items: list[Frame | SegFailure], size: TargetSize, stems: set[str]
    ) -> Iterable[SegResult | SegFailure]:
        """Run one batch: images of one inference size go through the network together."""
        done: dict[int, SegResult | SegFailure] = {}
        groups: dict[tuple[int, int], list[tuple[int, Frame, str]]] = {}
        for place, item in enumerate(items):
            if isinstance(item, SegFailure):
                done[place] = item
            else:
                inference = self._transforms.size(item.image.shape[:2], size)
                groups.setdefault(inference, []).append((place, item, _stem(item, stems)))
        for inference, members in groups.items():
            places, group, names = zip(*members, strict=True)
            done.update(zip(places, self._run(group, names, inference), strict=True))
        return [done[place] for place in range(len(items))]

    def _run(
        self, group: Sequence[Frame], names: Sequence[str], inference: tuple[int, int]
    ) -> Iterator[SegResult | SegFailure]:
        start = perf_counter()
        batch = np.empty((len(group), 3, *inference), np.float32)
        for slot, frame in zip(batch, group, strict=True):
            self._transforms.write(frame.image, out=slot)
        prepared = perf_counter()
        try:
            output = self.session.run(batch)
        except SegrtError as error:
            yield from (SegFailure(frame.input_path, frame.page_index, error) for frame in group)
            return
        ran = perf_counter()
        share = 1000 / len(group)
        for frame, stem, item in zip(group, names, output, strict=True):
            begin = perf_counter()
            labels = self._labels(item[None], inference, frame.image.shape[:2])
            post = (perf_counter() - begin) * 1000
            yield SegResult(
                labels=labels,
                image=frame.image,
                input_path=frame.input_path,
                page_index=frame.page_index,
                class_names=self.class_names or tuple(f"class_{i}" for i in range(int(labels.max()) + 1)),
                palette=self._palette,
                model_name=self.model_name,
                provider=self.session.provider,
                precision=self.session.precision,
                timings=Timings((prepared - start) * share, (ran - prepared) * share, post),
                stem=stem,
            )

    def _labels(self, output: npt.NDArray[Any], inference: tuple[int, int], source: tuple[int, int]) -> Labels:
        meta = self.session.meta
        if meta.output == "labels":
            return np.asarray(resize_labels(output, source)[0])
        align_corners = meta.upsample.align_corners if meta.upsample else False
        return np.asarray(labels_from_logits(output, inference, source, align_corners=align_corners)[0][0])


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
) -> Pipeline:
    """Build a segmentation pipeline.

    Args:
        pipeline: "semantic_segmentation", or the path of a pipeline YAML. It may be left out where a model is named.
        config: the content of such a YAML; wins over `pipeline`, and must name the same one.
        device: "cpu", "gpu:0", ...: it runs there, or this raises. None: GPU 0 if it can run, else the CPU.
        use_hpip: the same as mode="high-performance".
        hpi_config: settings of high-performance mode that override the chosen plan: a mapping, or the JSON text of one,
            of any of backend, precision, threads and provider_options.
        mode: "normal" (the default) or "high-performance".
        model_name: a name of the model zoo; overrides the configuration. None anywhere: the bundled model.
        model_dir: a `.onnx` file, or a folder that holds one, or a folder with a Paddle inference model, which is
            converted when it is first used (this needs the export extra); overrides the configuration.

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
        raise ConfigError("hpi_config says nothing in normal mode: add mode='high-performance', or leave it out")
    named = device or settings.device
    place = Device.parse(named) if named else None  # before a model is looked for, or even downloaded
    hpi = HpiConfig.parse(hpi_config if hpi_config is not None else settings.hpi_config)
    folder = Path(model_dir) if model_dir else module.model_dir
    name = model_name or module.model_name
    size = module.target_size if isinstance(module.target_size, tuple) else None
    preselected = () if folder else zoo.get(name or zoo.DEFAULT_MODEL).plans
    session = start(
        _model_file(name, folder), device=place, mode=chosen, preselected=preselected, hpi_config=hpi, size=size
    )
    return Pipeline(session, batch_size=module.batch_size, target_size=module.target_size)


def _stem(frame: Frame, taken: set[str]) -> str:
    """The name under which a result is saved, unlike every earlier one of the same call."""
    stem = (Path(file_name(frame.input_path)).stem if frame.input_path else "") or "image"
    if frame.page_index is not None:
        stem = f"{stem}_{frame.page_index}"
    unique, count = stem, 1
    while unique.lower() in taken:  # some file systems don't tell A from a
        count += 1
        unique = f"{stem}_{count}"
    if unique != stem:
        log.warning("%s is saved as %s: another input of this call is saved as %s", frame.input_path, unique, stem)
    taken.add(unique.lower())
    return unique


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
        file = store.home() / "onnx" / f"{store.folder_name(source.name)}-{digest[:16]}" / "model.onnx"
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
