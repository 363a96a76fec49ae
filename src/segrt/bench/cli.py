"""The command `segrt-bench`: the published table, made anew on the machine at hand."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import segrt
from segrt import zoo
from segrt.bench import datasets, environment, plot
from segrt.bench.contender import read_image
from segrt.bench.datasets import Layout, Truth
from segrt.bench.job import Job
from segrt.bench.measure import MIN_ROUNDS, overhead_ms
from segrt.bench.report import Format, Report
from segrt.cli import Slide
from segrt.errors import ConfigError, InputError, MissingExtraError, SegrtError
from segrt.files import write_atomic
from segrt.result import IMAGE_SUFFIXES
from segrt.slide import parse_window
from segrt.types import Device, Mode, parse_target_size

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Console(stderr=True)

MAX_IMAGES = 32
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
_FORMATS = {".md": Format.MARKDOWN, ".json": Format.JSON, ".csv": Format.CSV, ".txt": Format.TABLE}


class Peer(str, Enum):
    """What segrt can be compared with."""

    PADDLE = "paddle"


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Names of `segrt models`, .onnx files, folders with a Paddle model; else the bundled one.",
            show_default=False,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All 18 published models.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, gpu:0, ...; the best here if not given.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Modes, joined by commas.")] = "normal,high-performance",
    plan: Annotated[
        list[str] | None,
        typer.Option(
            help="One more contender: an hpi_config as JSON. May be repeated. With --dataset: all.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Size of inference; the image's own if not given."),
    ] = None,
    slide: Slide = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder of images to run in turn, the first {MAX_IMAGES}; else a sample."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads of each contender; as many as cores, up to 8, if not given."
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Most timed rounds of a model.")] = 30,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help=f"Time for the rounds of a model; it takes {MIN_ROUNDS} at least."
        ),
    ] = 30,
    compare: Annotated[
        Peer | None, typer.Option(help="Take turns with Paddle Inference, on the CPU.")
    ] = None,
    untrained: Annotated[
        bool,
        typer.Option(
            "--untrained",
            help="Where weights are not here, take the architecture with random ones.",
        ),
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option(help="Labelled images to score every contender on.")
    ] = None,
    layout: Annotated[
        Layout, typer.Option("--format-dataset", help="How they lie on disk.")
    ] = Layout.FOLDER,
    ignore_index: Annotated[
        int | None,
        typer.Option(
            min=0, max=255, help="Label of the pixels that don't count.", show_default=False
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Of what is printed.")] = Format.TABLE,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="A file too: .md, .json, .csv, .txt. May be repeated.",
            show_default=False,
        ),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--plot", help="A chart: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Measure models here: speed in each mode, beside Paddle if asked for, memory, and accuracy on a data set."""
    if all_ and names:
        raise ConfigError("name models or give --all, not both")
    if not names:
        names = (
            [spec.name for spec in zoo.load().models if not spec.bundled]
            if all_
            else [zoo.DEFAULT_MODEL]
        )
    if compare:
        device = device or "cpu"
        _check_paddle(device, slide)
    if chart:
        plot.check(chart)
    parse_window(slide)
    cores = environment.usable_cores()
    if threads and threads > cores:
        raise ConfigError(f"--threads {threads} is not valid: this process may use {cores} cores")
    pairs = datasets.find(dataset, layout) if dataset else []
    with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
        pixels = _size(size)
        labelled = [pair.image for pair in pairs[:MAX_IMAGES]]
        job = Job(
            names=names,
            contenders=_contenders(mode, plan or (_every(device) if dataset else []), device),
            photos=_photos(images, pixels, Path(work)) if images or not labelled else labelled,
            size=pixels,
            slide=slide,
            threads=threads or min(environment.MAX_THREADS, cores),
            repeat=repeat,
            seconds=seconds,
            paddle=compare is not None,
            untrained=untrained,
            pairs=pairs,
            truth=Truth(layout, ignore_index) if dataset else None,
        )
        report, interrupted = _measure(job, output or [], form)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    print(report.render(form, width=width, colour=sys.stdout.isatty()), end="")
    if chart and not plot.plot(report.rows, chart, subtitle=_subtitle(report)):
        _say(f"no time to show, so {chart} was not written", "yellow")
    if interrupted:
        _say("interrupted: this is what was done so far", "yellow")
        raise typer.Exit(130)
    if any(row.error for row in report.rows):
        raise typer.Exit(1)


def _measure(job: Job, files: Sequence[Path], form: Format) -> tuple[Report, bool]:
    """Measure, and write the files anew after each model; returns the result, and whether Ctrl-C ended it early."""
    report = Report(
        command=shlex.join(sys.argv[1:]),
        environment=environment.observe(environment.pin(job.threads)),
        threads=job.threads,
        size="x".join(map(str, job.size)) if job.size else "each image's own size",
        clock_ms=overhead_ms(),
        rows=[],
    )
    if report.environment.busy:
        _say("the machine is busy, so times will be too long", "yellow")
    interrupted = False
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Drawing takes CPU time from what is measured: once a second will do.
    with Progress(
        *columns,
        console=err,
        transient=True,
        disable=not err.is_terminal,
        refresh_per_second=1,
        speed_estimate_period=3600,
    ) as progress:
        task = progress.add_task("", total=len(job.names))
        try:
            for rows in job.run(
                lambda what, done: progress.update(task, description=what, completed=done)
            ):
                report.rows.extend(rows)
                _save(report, files, form)
        except KeyboardInterrupt:
            interrupted = True
    report = replace(report, environment=report.environment.finished())
    _save(report, files, form)
    return report, interrupted


def _check_paddle(device: str, slide: str | None) -> None:
    if slide:
        raise ConfigError(
            "--compare paddle runs Paddle on whole images: it can't be compared with --slide"
        )
    if Device.parse(device).kind != "cpu":
        raise ConfigError(
            f"--compare paddle runs Paddle on the CPU: it can't be compared with --device {device}"
        )
    if find_spec("paddle") is None:
        raise MissingExtraError(
            "--compare paddle needs paddlepaddle: run  pip install 'segrt[export]'"
        )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise ConfigError(f"--size {text!r} is not valid: give height and width, as in 512x1024")
    size = parse_target_size((int(match[1]), int(match[2])))
    assert isinstance(size, tuple)
    return size


def _contenders(
    mode: str, plans: Sequence[str], device: str | None
) -> list[tuple[str, dict[str, Any]]]:
    """Label and arguments of `create_pipeline` for each contender."""
    base: dict[str, Any] = {"device": device} if device else {}
    found: list[tuple[str, dict[str, Any]]] = []
    for text in mode.split(","):
        chosen = Mode.parse(text.strip())
        found.append(
            (chosen.value, base if chosen is Mode.NORMAL else {**base, "mode": chosen.value})
        )
    for text in plans:
        try:
            config = json.loads(text)
        except ValueError:
            config = None
        if not isinstance(config, dict):
            example = '{"backend": "openvino"}'
            raise ConfigError(
                f"--plan {text!r} is not valid: give an hpi_config as JSON, as in {example}"
            )
        label = (
            " ".join(str(value) for value in config.values() if not isinstance(value, (dict, list)))
            or text
        )
        found.append((label, {**base, "mode": Mode.HIGH_PERFORMANCE.value, "hpi_config": config}))
    labels = [label for label, _ in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"two contenders are alike: {', '.join(labels)}")
    return found


def _every(device: str | None) -> list[str]:
    """All plans that the machine offers, beside that of normal mode, each as `--plan` takes it."""
    from segrt.backends import catalog
    from segrt.backends.plan import every

    offered = every(Device.parse(device) if device else None, catalog.read())[1:]
    return [
        json.dumps(dict(zip(("backend", "precision"), plan.name.split(), strict=True)))
        for plan in offered
    ]


def _photos(folder: Path | None, size: tuple[int, int] | None, work: Path) -> list[Path]:
    """The images to run in turn: those of the user, else the sample, scaled to the size of inference."""
    if folder is None:
        with Image.open(SAMPLE) as image:
            image.resize((size[1], size[0]) if size else image.size).save(work / "sample.png")
        return [work / "sample.png"]
    files = (
        [folder]
        if folder.is_file()
        else sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    )
    files = files[:MAX_IMAGES]
    if not files:
        raise InputError(f"--images {folder} holds no image")
    shapes = {read_image(file).shape for file in files}
    if size is None and len(shapes) > 1:
        raise ConfigError(
            f"the images of {folder} differ in size: give the size of inference with --size HxW"
        )
    return files


def _save(report: Report, files: Sequence[Path], form: Format) -> None:
    for file in files:
        write_atomic(file, report.render(_FORMATS.get(file.suffix.lower(), form)).encode())


def _say(text: str, style: str) -> None:
    err.print(f"segrt-bench: {text}", style=style, markup=False, highlight=False, soft_wrap=True)


def _subtitle(report: Report) -> str:
    env = report.environment
    device = "; ".join(env.gpus) + "; " if env.gpus else ""
    busy = "; THE MACHINE WAS BUSY" if env.busy else ""
    return f"{device}{env.cpu}, {report.threads} threads; inference at {report.size}{busy}"


def main() -> None:
    """Entry point of the console script: errors become one line and exit status 1, wrong usage 2."""
    logging.basicConfig(
        format="%(message)s", handlers=[RichHandler(console=err, show_time=False, show_path=False)]
    )
    try:
        app()
    except (SegrtError, OSError) as error:
        _say(str(error), "red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
