"""`segrt predict`: segment images, and save the results; videos become overlay videos."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
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
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.frame import SegFailure
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
    """Folder for the results; default: output, with overlays. No input is overwritten."""

    label_format: Annotated[str, Parameter(group=OUTPUT)] = "list"
    """Labels in the JSON: list (as PaddleX), rle (as COCO) or png."""

    overlay: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Also save the photo with the class colours and a legend."""

    show: Annotated[Literal["shares", "paddlex"], Parameter(group=OUTPUT)] = "shares"
    """Print the share of each class, or what PaddleX prints."""

    def completed(self) -> OutputOptions:
        """With the default folder, except in PaddleX's form, which saves nothing by default."""
        if self.save_path is not None or self.show == "paddlex":
            return self
        return replace(self, save_path=FOLDER, overlay=True)


def predict(
    input: Annotated[list[str] | None, Parameter(negative="", group=INPUTS)] = None,
    *,
    model: PipelineOptions = PipelineOptions(),
    workers: Annotated[int, Parameter(group=DEVICE)] = 1,
    inference: InferenceOptions = InferenceOptions(),
    reading: Annotated[Reading, Parameter(name="*", group=INPUTS)] = Reading(),
    output: OutputOptions = OutputOptions(),
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
    output = output.completed()
    save_path, videos = output.save_path, dict[str, Path]()
    if save_path is not None:
        films = [name for name in input if names_video(name)]
        input = outputs.expand([name for name in input if name not in films], save_path)
        videos = outputs.video_targets(films, save_path)
        outputs.check(input, videos, save_path)
    pipeline = model.create(workers=workers)
    pipeline.request(
        inference.target_size, batch_size=inference.batch_size, slide=inference.slide
    )  # before any folder is made
    if save_path is not None:
        outputs.make_folder(save_path if input else next(iter(videos.values())).parent)
    done = failed = 0
    with closing(_results(pipeline, input, inference, reading, output)) as results:
        for result in results:
            if isinstance(result, SegFailure):
                failed += 1
                complain(result.error)
            else:
                done += 1
                _show(result, output.show)
    if videos:
        saved = _save_videos(pipeline, videos, inference)
        done, failed = done + saved, failed + len(videos) - saved
    where = f", results in {output.save_path}" if output.save_path and done else ""
    ran = f"{pipeline.model_name} on {pipeline.session.provider} {pipeline.session.precision}"
    say(f"{done} segmented, {failed} failed ({ran}){where}")
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
) -> Generator[SegResult | SegFailure, None, None]:
    """Segment and save images, with a progress bar."""

    def save(result: SegResult | SegFailure) -> SegResult | SegFailure:
        if output.save_path is None or isinstance(result, SegFailure):
            return result
        try:
            _save(result, output.save_path, output)
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
        with closing(behind(save, results, SAVERS)) as saved:
            for result in saved:
                yield result
                progress.advance(task)


def _save(result: SegResult, save_path: Path, output: OutputOptions) -> None:
    result.save_to_img(save_path)
    result.save_to_json(save_path, label_format=parse_label_format(output.label_format))
    if output.overlay:
        result.save_overlay(save_path)


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
