"""`segrt predict`: segment images, and save the results; videos become overlay videos."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from segrt.cli import inputs, interrupts, outputs, shares
from segrt.cli.console import complain, progress_bar, say
from segrt.cli.jobs import Job, JobOptions
from segrt.cli.options import (
    DEVICE,
    INPUTS,
    OUTPUT,
    InferenceOptions,
    PipelineOptions,
    SavePath,
)
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.frame import SegFailure
from segrt.overlay_video import save_overlay_video
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.settings import settings as decisive
from segrt.types import parse_label_format
from segrt.video import names_video

FOLDER = Path("output")
"""Where results are saved by default."""

SAVERS = 2
"""Threads that save results; they wait for the disk more than they compute."""

_Saved: TypeAlias = tuple[SegResult | SegFailure, list[Path]]
"""What became of an image, with the files in which it is saved."""


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
    def kind(self) -> dict[str, str | bool]:
        """What is saved of each image."""
        return {"label_format": self.label_format, "overlay": self.overlay}

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
    job: JobOptions = JobOptions(),
) -> int:
    """Segment images, and save label pictures and JSON. Videos and cameras give overlay videos.

    Args:
        input: Images, PDFs, folders, URLs, videos, cameras (camera:0), patterns such as
            'photos/**/*.jpg', or - for a list of names on standard input.
        workers: Number of model copies, which share the cores.

    Returns:
        int: exit status; 1 if an input failed.
    """
    if not input:
        raise ConfigError("predict needs an input: an image, a folder of images, a URL or a video")
    parse_label_format(output.label_format)
    shard = job.part
    output = output.completed()
    save_path, videos = output.save_path, dict[str, Path]()
    input = inputs.listed(input, save_path)
    if file := output.file:
        outputs.check_single(input, file)
    input = inputs.expand(input, save_path)
    films = [name for name in input if names_video(name)]
    job.check(films, file)
    if save_path is not None:
        if films:
            input = [name for name in input if name not in films]
        videos = outputs.video_targets(films, save_path)
        outputs.check(input, videos, save_path)
    pipeline = model.create(workers=workers)
    request = pipeline.request(
        inference.target_size, batch_size=inference.batch_size, slide=inference.slide
    )  # before any folder is made
    if save_path is not None:
        outputs.make_folder(file.parent if file else save_path)
    total = len(input) if videos or not films else None  # else their frames are segmented
    work = None
    if job.manifest or shard:
        settings = decisive(pipeline, request, reading, output.kind)
        work = Job(input, settings, job, save_path)
    results = _results(pipeline, work or input, total, inference, reading, output)
    done, failed, ran = _collect(results, work, output.show, len(input))
    ran = ran or str(pipeline.session.plan)
    if videos:
        saved = _save_videos(pipeline, videos, inference)
        done, failed = done + saved, failed + len(videos) - saved
    where = f", {'saved as' if file else 'results in'} {save_path}" if save_path and done else ""
    before = f", {work.before} of {work.total} inputs before" if work and work.before else ""
    say(f"{done} segmented, {failed} failed ({pipeline.model_name} on {ran}){before}{where}")
    return 1 if failed else 0


def _collect(
    results: Generator[_Saved, None, None], work: Job | None, form: str, inputs: int
) -> tuple[int, int, str]:
    """Print and record results; returns the number segmented and failed, and what ran them.

    Raises:
        KeyboardInterrupt: a signal was received; the message says how far it came.
    """
    done, failed, ran = 0, 0, ""
    try:
        with work or nullcontext(), closing(results):
            for result, files in results:
                if work:
                    work.record(result, files)
                if isinstance(result, SegFailure):
                    failed += 1
                    complain(result.error)
                else:
                    done += 1
                    ran = f"{result.provider} {result.precision}"
                    _show(result, form)
            if work:
                work.finish()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_so_far(work, done, failed, inputs)) from None
    return done, failed, ran


def _so_far(work: Job | None, done: int, failed: int, inputs: int) -> str:
    """What an interrupted command has done."""
    if work and work.is_recorded:
        return (
            f"{work.complete} of {work.total} inputs are done; the same command with --resume "
            "does the others"
        )
    if not done + failed:
        return ""
    hint = "; with --manifest, a job can be resumed" if inputs > 1 else ""
    return f"{done} segmented, {failed} failed{hint}"


def _show(result: SegResult, form: str) -> None:
    if form == "paddlex":
        result.print(format_json=False)
        return
    index = "" if result.page_index is None else f", {result.page_index}"
    print(f"{result.input_path}{index}: {shares.line(result.areas())}")


def _results(
    pipeline: Pipeline,
    images: list[str] | Job,
    total: int | None,
    inference: InferenceOptions,
    reading: Reading,
    output: OutputOptions,
) -> Generator[_Saved, None, None]:
    """Segment and save images, with a progress bar; `total` is the number of inputs, if known."""

    def save(result: SegResult | SegFailure) -> _Saved:
        if output.save_path is None or isinstance(result, SegFailure):
            return result, []
        try:
            return result, _save(result, output.save_path, output)
        except (OSError, SegrtError, MemoryError) as error:
            failure = _not_saved(result, error)
            return SegFailure(result.input_path, result.page_index, failure), []

    with progress_bar() as progress:
        task = progress.add_task("segmenting", total=total)
        if isinstance(images, Job):
            progress.update(task, total=images.total, completed=images.before)
        crops = progress.add_task("crops of the image", total=None, visible=False)

        def show(done: int, total: int) -> None:
            interrupts.check()
            progress.update(crops, completed=done, total=total, visible=True)

        results = pipeline.predict(
            images.frames(reading) if isinstance(images, Job) else images,
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
            for result, files in saved:
                yield result, files
                # Inputs are counted by their first page or frame, unless their number is unknown.
                progress.advance(task, total is None or not result.page_index)


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


def _save(result: SegResult, save_path: Path, output: OutputOptions) -> list[Path]:
    file, saved = output.file, list[Path]()
    is_json = file is not None and file.suffix.lower() == ".json"
    if not (is_json or (file and output.overlay)):
        saved += result.save_to_img(save_path)
    if is_json or not file:
        label_format = parse_label_format(output.label_format)
        saved.append(result.save_to_json(save_path, label_format=label_format))
    if output.overlay:
        saved.append(result.save_overlay(save_path))
    return saved


def _not_saved(result: SegResult, error: Exception) -> InputError:
    name = result.input_path or "an image"
    where = name if result.page_index is None else f"{name}, page {result.page_index}"
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return InputError(f"the result of {where} can't be saved: {reason}")


def _save_videos(pipeline: Pipeline, videos: dict[str, Path], inference: InferenceOptions) -> int:
    """Save an overlay video of each; returns how many succeeded."""
    saved = 0
    for name, target in videos.items():
        try:
            frames, speed = _save_video(pipeline, name, target, inference)
        except (OSError, SegrtError, MemoryError) as error:
            complain(str(error) or f"{name}: out of memory")
            continue
        saved += 1
        say(f"{target}: {frames} frames, {speed:.1f} a second")
    return saved


def _save_video(
    pipeline: Pipeline, name: str, target: Path, inference: InferenceOptions
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
            progress=show,
        )
    return frames, speed
