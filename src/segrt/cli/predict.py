"""`segrt predict`: segment images, and save the results; videos become overlay videos."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

from cyclopts import Parameter

from segrt.cli import interrupts, outputs, shares
from segrt.cli.console import complain, progress_bar, say
from segrt.cli.options import (
    DEVICE,
    INPUTS,
    OUTPUT,
    InferenceOptions,
    PipelineOptions,
    SavePath,
)
from segrt.cli.pictures import PictureOptions
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.frame import SegFailure
from segrt.look import Look
from segrt.overlay_video import save_overlay_video
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.types import parse_label_format
from segrt.video import names_video

FOLDER = Path("output")
"""Where results are saved by default."""

SAVERS = 2
"""Threads that save results; they wait for the disk more than they compute."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is saved, and where."""

    save_path: SavePath = None
    """Folder, or a file for one result (.png, .json); default: output, with overlays."""

    label_format: Annotated[str, Parameter(group=OUTPUT)] = "list"
    """Labels in the JSON: list (as PaddleX), rle (as COCO) or png."""

    overlay: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Also save the photo with class colours and a legend; with a file, save only that."""

    show: Annotated[Literal["shares", "paddlex"], Parameter(group=OUTPUT)] = "shares"
    """Print the share of each class, or what PaddleX prints."""

    def completed(self) -> OutputOptions:
        """With the default folder, except in PaddleX's form, which saves nothing by default."""
        if self.save_path is not None or self.show == "paddlex":
            return self
        return replace(self, save_path=FOLDER, overlay=True)

    @property
    def file(self) -> Path | None:
        """`save_path` if it is a file name; None if it is a folder.

        Raises:
            ConfigError: another option contradicts that name, or no picture of that format can be
                written.
        """
        path = self.save_path
        if path is None or not outputs.names_file(path):
            return None
        is_json = path.suffix.lower() == ".json"
        if self.overlay and is_json:
            raise ConfigError(
                f"--overlay saves a picture, but {path} is a JSON file: use a folder for both, or "
                f"a name such as {path.with_suffix('.png')}"
            )
        if self.label_format != "list" and not is_json:
            raise ConfigError(
                f"--label_format {self.label_format} is for JSON, but {path} is not a JSON file: "
                f"use a folder for both, or a name such as {path.with_suffix('.json')}"
            )
        return path


def predict(
    input: Annotated[list[str] | None, Parameter(negative="", group=INPUTS)] = None,
    *,
    model: PipelineOptions = PipelineOptions(),
    workers: Annotated[int, Parameter(group=DEVICE)] = 1,
    inference: InferenceOptions = InferenceOptions(),
    reading: Annotated[Reading, Parameter(name="*", group=INPUTS)] = Reading(),
    output: OutputOptions = OutputOptions(),
    pictures: PictureOptions = PictureOptions(),
) -> int:
    """Segment images, and save label pictures and JSON. Videos and cameras give overlay videos.

    Args:
        input: Images, PDFs, folders, URLs, videos, cameras (camera:0).
        workers: Number of model copies, which share the cores.

    Returns:
        int: exit status; 1 if an input failed.
    """
    if not input:
        raise ConfigError("predict needs an input: an image, a folder of images, a URL or a video")
    parse_label_format(output.label_format)
    look = pictures.look()
    output = replace(output, overlay=output.overlay or pictures.given).completed()
    save_path, videos = output.save_path, dict[str, Path]()
    if file := output.file:
        outputs.check_single(input, file)
    if save_path is not None:
        films = [name for name in input if names_video(name)]
        input = outputs.expand([name for name in input if name not in films], save_path)
        videos = outputs.video_targets(films, save_path)
        outputs.check(input, videos, save_path)
    pipeline = model.create(workers=workers)
    pipeline.request(
        inference.target_size, batch_size=inference.batch_size, slide=inference.slide
    )  # before any folder is made
    look.shows(pipeline.class_names)
    if save_path is not None:
        outputs.make_folder(file.parent if file else save_path)
    done = failed = 0
    ran = str(pipeline.session.plan)
    with closing(_results(pipeline, input, inference, reading, output, look)) as results:
        for result in results:
            if isinstance(result, SegFailure):
                failed += 1
                complain(result.error)
            else:
                done += 1
                ran = f"{result.provider} {result.precision}"
                _show(result, output.show)
    if videos:
        saved = _save_videos(pipeline, videos, inference, look)
        done, failed = done + saved, failed + len(videos) - saved
    where = f", {'saved as' if file else 'results in'} {save_path}" if save_path and done else ""
    say(f"{done} segmented, {failed} failed ({pipeline.model_name} on {ran}){where}")
    return 1 if failed else 0


def _show(result: SegResult, form: str) -> None:
    if form == "paddlex":
        result.print(format_json=False)
        return
    index = "" if result.page_index is None else f", {result.page_index}"
    print(f"{result.input_path}{index}: {shares.line(result.areas())}")


def _results(
    pipeline: Pipeline,
    images: list[str],
    inference: InferenceOptions,
    reading: Reading,
    output: OutputOptions,
    look: Look,
) -> Generator[SegResult | SegFailure, None, None]:
    """Segment and save images, with a progress bar."""

    def save(result: SegResult | SegFailure) -> SegResult | SegFailure:
        if output.save_path is None or isinstance(result, SegFailure):
            return result
        try:
            _save(result, output.save_path, output, look)
        except (OSError, SegrtError, MemoryError) as error:
            return SegFailure(result.input_path, result.page_index, _not_saved(result, error))
        return result

    with progress_bar() as progress:
        task = progress.add_task("segmenting", total=None)
        crops = progress.add_task("crops of the image", total=None, visible=False)

        def show(done: int, total: int) -> None:
            interrupts.check()
            progress.update(crops, completed=done, total=total, visible=True)

        results = pipeline.predict(
            images,
            inference.target_size,
            batch_size=inference.batch_size,
            slide=inference.slide,
            progress=show,
            on_error="yield",
            **asdict(reading),
        )
        if output.file:
            results = _only(results, output.file)
        with closing(behind(save, results, SAVERS)) as saved:
            for result in saved:
                yield result
                progress.advance(task)


def _only(
    results: Iterator[SegResult | SegFailure], file: Path
) -> Iterator[SegResult | SegFailure]:
    """The result of an input with one page.

    Raises:
        InputError: there are more, which can't be saved as one file; none is.
    """
    with closing(results) if isinstance(results, Generator) else nullcontext():
        found = list(islice(results, 2))
    if len(found) > 1:
        raise InputError(
            f"{file} is one file, but {found[0].input_path} has several pages or frames: save to a "
            "folder"
        )
    yield from found


def _save(result: SegResult, save_path: Path, output: OutputOptions, look: Look) -> None:
    file = output.file
    is_json = file is not None and file.suffix.lower() == ".json"
    if not (is_json or (file and output.overlay)):
        result.save_to_img(save_path)
    if is_json or not file:
        result.save_to_json(save_path, label_format=parse_label_format(output.label_format))
    if output.overlay:
        result.save_overlay(save_path, **asdict(look))


def _not_saved(result: SegResult, error: Exception) -> InputError:
    name = result.input_path or "an image"
    where = name if result.page_index is None else f"{name}, page {result.page_index}"
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return InputError(f"the result of {where} can't be saved: {reason}")


def _save_videos(
    pipeline: Pipeline, videos: dict[str, Path], inference: InferenceOptions, look: Look
) -> int:
    """Save an overlay video of each; returns how many succeeded."""
    saved = 0
    for name, target in videos.items():
        try:
            frames, speed = _save_video(pipeline, name, target, inference, look)
        except (OSError, SegrtError, MemoryError) as error:
            complain(str(error) or f"{name}: out of memory")
            continue
        saved += 1
        say(f"{target}: {frames} frames, {speed:.1f} a second")
    return saved


def _save_video(
    pipeline: Pipeline, name: str, target: Path, inference: InferenceOptions, look: Look
) -> tuple[int, float]:
    """Save one overlay video, with a progress bar; returns its frames, and frames per second."""
    start, frames, speed = perf_counter(), 0, 0.0
    with progress_bar() as progress:
        task = progress.add_task(name, total=None)

        def show(done: int, total: int | None) -> None:
            nonlocal frames, speed
            frames, speed = done, done / (perf_counter() - start)
            text = f"{speed:.1f} frames/s"
            progress.update(task, completed=done, total=total, description=text)

        save_overlay_video(
            pipeline,
            name,
            target,
            inference.target_size,
            batch_size=inference.batch_size,
            slide=inference.slide,
            alpha=look.alpha,
            outlines=look.outlines,
            only=look.only,
            background=look.background,
            progress=show,
        )
    return frames, speed
