"""`segrt predict`: segment images, and save the results; videos become overlay videos."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

from cyclopts import Parameter

from segrt.cli import inputs, interrupts, outputs, ray_engine, shares
from segrt.cli.console import complain, progress_bar, say
from segrt.cli.jobs import Job, JobOptions
from segrt.cli.options import DEVICE, INPUTS, InferenceOptions, PipelineOptions
from segrt.cli.pictures import PictureOptions
from segrt.cli.saving import OutputOptions, Task, segmented
from segrt.errors import ConfigError, SegrtError
from segrt.look import Look
from segrt.manifest import Row
from segrt.overlay_video import save_overlay_video
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.settings import settings as decisive
from segrt.types import parse_label_format
from segrt.video import names_video


def predict(
    input: Annotated[list[str] | None, Parameter(negative="", group=INPUTS)] = None,
    *,
    model: PipelineOptions = PipelineOptions(),
    workers: Annotated[int, Parameter(group=DEVICE)] = 1,
    inference: InferenceOptions = InferenceOptions(),
    reading: Annotated[Reading, Parameter(name="*", group=INPUTS)] = Reading(),
    output: OutputOptions = OutputOptions(),
    pictures: PictureOptions = PictureOptions(),
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
    look = pictures.look()
    shard = job.part
    if on_ray := model.engine == "ray":
        ray_engine.check(output)
        model = replace(model, engine=None)
    elif job.ray_address is not None:
        raise ConfigError("--ray-address needs --engine ray")
    output = replace(output, overlay=output.overlay or pictures.given).completed()
    save_path, videos = output.save_path, dict[str, Path]()
    input = inputs.listed(input, save_path)
    if file := output.file:
        outputs.check_single(input, file)
    input = inputs.expand(input, save_path)
    films = [name for name in input if names_video(name)]
    job.check(films, file, on_ray=on_ray)
    if save_path is not None:
        if films:
            input = [name for name in input if name not in films]
        videos = outputs.video_targets(films, save_path)
        outputs.check(input, videos, save_path)
    pipeline = ray_engine.local(model) if on_ray else model.create(workers=workers)
    request = pipeline.request(
        inference.target_size, batch_size=inference.batch_size, slide=inference.slide
    )  # before any folder is made
    look.shows(pipeline.class_names)
    if save_path is not None:
        outputs.make_folder(file.parent if file else save_path)
    total = len(input) if videos or not films else None  # else their frames are segmented
    work = None
    if job.manifest or shard or on_ray:
        settings = decisive(pipeline, request, reading, output.kind)
        work = Job(input, settings, job, save_path)
    task = Task(inference=inference, reading=reading, output=output, look=look)
    if work and on_ray:
        rows = ray_engine.rows(work, model, workers, task, job.ray_address)
    else:
        rows = _rows(pipeline, work or input, total, task)
    done, failed, ran = _collect(rows, work, output.form, len(input))
    ran = ran or ("Ray" if on_ray else str(pipeline.session.plan))
    if videos:
        saved = _save_videos(pipeline, videos, inference, look)
        done, failed = done + saved, failed + len(videos) - saved
    where = f", {'saved as' if file else 'results in'} {save_path}" if save_path and done else ""
    before = f", {work.before} of {work.total} inputs before" if work and work.before else ""
    say(f"{done} segmented, {failed} failed ({pipeline.model_name} on {ran}){before}{where}")
    return 1 if failed else 0


def _collect(
    rows: Generator[Row, None, None], work: Job | None, form: str, inputs: int
) -> tuple[int, int, str]:
    """Print and record rows; returns the number segmented and failed, and what ran them.

    Raises:
        KeyboardInterrupt: a signal was received; the message says how far it came.
    """
    done, failed, ran = 0, 0, ""
    try:
        with work or nullcontext(), closing(rows):
            for row in rows:
                if work:
                    work.record(row)
                if form == "json":
                    print(row.to_json().decode(), flush=True)
                if row.error is not None:
                    failed += 1
                    complain(row.error)
                    continue
                done += 1
                ran = f"{row.provider} {row.precision}"
                if form == "shares":
                    index = "" if row.index is None else f", {row.index}"
                    print(f"{row.input}{index}: {shares.line(row.shares)}")
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


def _rows(
    pipeline: Pipeline, images: list[str] | Job, total: int | None, task: Task
) -> Generator[Row, None, None]:
    """Segment and save images, with a progress bar; `total` is the number of inputs, if known."""
    with progress_bar() as progress:
        bar = progress.add_task("segmenting", total=total)
        if isinstance(images, Job):
            progress.update(bar, total=images.total, completed=images.before)
        crops = progress.add_task("crops of the image", total=None, visible=False)

        def show(done: int, total: int) -> None:
            interrupts.check()
            progress.update(crops, completed=done, total=total, visible=True)

        found = images.todo.frames(task.reading) if isinstance(images, Job) else images
        with closing(segmented(pipeline, found, task, show)) as results:
            for result, files in results:
                if task.output.form == "paddlex" and isinstance(result, SegResult):
                    result.print(format_json=False)
                yield Row.of(result, [file.name for file in files])
                # Inputs are counted by their first page or frame, unless their number is unknown.
                progress.advance(bar, total is None or not result.page_index)


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
