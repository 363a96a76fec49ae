"""`segrt predict`: segment images, and save the results; videos become overlay videos."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated

from cyclopts import Parameter

from segrt.cli import inputs, interrupts, outputs, ray_engine, shares
from segrt.cli.console import complain, progress_bar, say
from segrt.cli.jobs import Job, JobOptions
from segrt.cli.options import DEVICE, INPUTS, InferenceOptions, PipelineOptions
from segrt.cli.pictures import PictureOptions
from segrt.cli.saving import Kept, OutputOptions, Task, segmented
from segrt.cli.standard import STDOUT, Piped, opened
from segrt.coco import CocoFile
from segrt.errors import ConfigError, SegrtError
from segrt.manifest import Row
from segrt.overlay_video import save_overlay_video
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.settings import settings as decisive
from segrt.sources import Source
from segrt.waiting import is_quiet


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
            'photos/**/*.jpg', or - for an image, or a list of names, on standard input.
        workers: Number of model copies, which share the cores.

    Returns:
        int: exit status; 1 if an input failed.
    """
    if not input:
        raise ConfigError("predict needs an input: an image, a folder of images, a URL or a video")
    on_ray = model.engine == "ray"
    output.check(job, on_ray=on_ray)
    look, shard = pictures.look(), job.part
    if on_ray:
        ray_engine.check(output)
        model = replace(model, engine=None)
    elif job.ray_address is not None:
        raise ConfigError("--ray-address needs --engine ray")
    output = replace(output, overlay=output.overlay or pictures.given).completed()
    images, videos = _checked(input, output, job, on_ray=on_ray)
    if videos:
        pictures.check_video(next(iter(videos)))
    pipeline = ray_engine.local(model) if on_ray else model.create(workers=workers)
    request = pipeline.request(
        inference.target_size, batch_size=inference.batch_size, slide=inference.slide
    )  # before any folder is made
    look.shows(pipeline.class_names)
    if output.save_path is not None:
        outputs.make_folder(output.file.parent if output.file else output.save_path)
    kept = None if output.overwrite else Kept(output)
    work = None
    if job.manifest or shard or on_ray or kept:
        settings = decisive(pipeline, request, reading, output.kind(look))
        work = Job(images, settings, job, output.save_path)
    task = Task(inference=inference, reading=reading, output=output, look=look)
    coco = CocoFile(output.coco, per_region=output.per_region) if output.coco else None
    with coco or nullcontext():
        if work and on_ray:
            rows = ray_engine.rows(work, model, workers, task, job.ray_address)
        else:
            rows = _rows(pipeline, images, work, task, kept, coco)
        done, failed, ran = _collect(rows, work, output, len(images))
        if coco and done:
            coco.finish()
    if videos:
        left = {name: file for name, file in videos.items() if not (kept and kept.all([file]))}
        saved = _save_videos(pipeline, left, task)
        done, failed = done + saved, failed + len(left) - saved
    plan = pipeline.session.plan
    ran = ran or ("Ray" if on_ray else f"{plan.provider} {plan.precision}")
    counts = f"{done} segmented, {failed} failed ({pipeline.model_name} on {ran})"
    say(", ".join([counts, *_notes(output, work, kept, done)]))
    return 1 if failed else 0


def _checked(
    names: list[str], output: OutputOptions, job: JobOptions, *, on_ray: bool
) -> tuple[list[str], dict[str, Path]]:
    """The images to segment, and the videos with the files that they become.

    Raises:
        SegrtError: an input can't be found, or a result can't be saved where it is to be.
    """
    save_path, file = output.save_path, output.file
    names = inputs.listed(names, save_path)
    if file:
        outputs.check_single(names, file)
    names = inputs.expand(names, save_path)
    films = [name for name in names if inputs.is_film(name)]
    piped = any(isinstance(name, Piped) for name in names)
    job.check(films, file, piped=piped, on_ray=on_ray)
    if output.coco:
        outputs.check_coco(output.coco, names, films, save_path)
    if save_path is None or save_path is STDOUT:
        return names, {}
    images = [name for name in names if name not in films] if films else names
    videos = outputs.video_targets(films, save_path)
    outputs.check(images, videos, save_path)
    return images, videos


def _notes(output: OutputOptions, work: Job | None, kept: Kept | None, done: int) -> Iterator[str]:
    """What the summary says besides the counts."""
    if work and work.before:
        yield f"{work.before} of {work.total} inputs before"
    if kept and kept.count:
        yield f"{kept.count} left as they were"
    if done and (path := output.save_path):
        to = "written to" if path is STDOUT else "saved as" if output.file else "results in"
        yield f"{to} {path}"
    if done and output.coco:
        yield f"COCO data set in {output.coco}"


def _collect(
    rows: Generator[Row, None, None], work: Job | None, output: OutputOptions, inputs: int
) -> tuple[int, int, str]:
    """Print and record rows; returns the number segmented and failed, and what ran them.

    Raises:
        KeyboardInterrupt: a signal was received; the message says how far it came.
    """
    done, failed, ran = 0, 0, ""
    out = sys.stdout  # on Ray, it is another one meanwhile
    show = say if output.save_path is STDOUT else partial(print, file=out)
    try:
        with work or nullcontext(), closing(rows):
            for row in rows:
                if work:
                    work.record(row)
                if output.form == "json":
                    print(row.to_json().decode(), file=out, flush=True)
                if row.error is not None:
                    failed += 1
                    complain(row.error)
                else:
                    done += 1
                    ran = f"{row.provider} {row.precision}"
                    if output.form == "shares" and not is_quiet():
                        index = "" if row.index is None else f", {row.index}"
                        show(f"{row.input}{index}: {shares.line(row.shares)}")
                interrupts.check()
            if work:
                work.finish()
    except KeyboardInterrupt:
        what = _so_far(work, done, failed, inputs)
        lost = f"{output.coco} is not written" if output.coco else ""
        raise KeyboardInterrupt("; ".join(filter(None, (what, lost)))) from None
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
    pipeline: Pipeline,
    images: list[str],
    work: Job | None,
    task: Task,
    kept: Kept | None,
    coco: CocoFile | None,
) -> Generator[Row, None, None]:
    """Segment and save images, or what is left of a job, with a progress bar."""
    # The number of images is unknown if frames of videos are among them.
    total = None if any(map(inputs.is_film, images)) else len(images)
    found: Source = work.todo.frames(task.reading, kept) if work else [*map(opened, images)]
    with progress_bar() as progress:
        bar = progress.add_task("segmenting", total=total)
        if work:
            progress.update(bar, total=work.total, completed=work.before)
        crops = progress.add_task("crops of the image", total=None, visible=False)

        def show(done: int, total: int) -> None:
            interrupts.check()
            progress.update(crops, completed=done, total=total, visible=True)

        with closing(segmented(pipeline, found, task, show)) as results:
            for result, files in results:
                if isinstance(result, SegResult):
                    if task.output.form == "paddlex":
                        result.print(format_json=False)
                    if coco:
                        coco.add(result)
                yield Row.of(result, [file.name for file in files])
                # Inputs are counted by their first page or frame, unless their number is unknown.
                progress.advance(bar, total is None or not result.page_index)
                if work and kept:
                    progress.update(bar, total=work.total - kept.count)


def _save_videos(pipeline: Pipeline, videos: dict[str, Path], task: Task) -> int:
    """Save an overlay video of each; returns how many succeeded."""
    saved = 0
    for name, target in videos.items():
        try:
            frames, speed = _save_video(pipeline, name, target, task)
        except (OSError, SegrtError, MemoryError) as error:
            complain(str(error) or f"{name}: out of memory")
            continue
        saved += 1
        say(f"{target}: {frames} frames, {speed:.1f} a second")
    return saved


def _save_video(pipeline: Pipeline, name: str, target: Path, task: Task) -> tuple[int, float]:
    """Save one overlay video, with a progress bar; returns its frames, and frames per second."""
    inference, look = task.inference, task.look
    start, frames, speed = perf_counter(), 0, 0.0
    with progress_bar() as progress:
        bar = progress.add_task(name, total=None)

        def show(done: int, total: int | None) -> None:
            nonlocal frames, speed
            interrupts.check()
            frames, speed = done, done / (perf_counter() - start)
            text = f"{speed:.1f} frames/s"
            progress.update(bar, completed=done, total=total, description=text)

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
            overwrite=task.output.overwrite,
        )
    return frames, speed
