"""The command `segrt-bench`: measure models, and reproduce the published table."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.validators import Number
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import segrt
from segrt import consent, datasets, package_data, verbosity, zoo
from segrt.backends import catalog
from segrt.backends.plan import MAX_THREADS, HpiConfig, every
from segrt.bench import environment, gallery, plot
from segrt.bench.job import Job, Peer
from segrt.bench.measure import Settings, overhead_ms
from segrt.bench.models import Wanted
from segrt.bench.report import Format, Report
from segrt.datasets import Layout, Pair, Truth
from segrt.errors import ConfigError, InputError, MissingExtraError, SegrtError
from segrt.files import write_atomic
from segrt.folders import find_images
from segrt.slide import parse_window
from segrt.sources import read_image
from segrt.types import Device, Mode, TargetSize, parse_size
from segrt.waiting import Messages, is_quiet

MAX_IMAGES = 32
_FORMATS = {".md": Format.MARKDOWN, ".json": Format.JSON, ".csv": Format.CSV, ".txt": Format.TABLE}

_MODELS = Group("Models", sort_key=1)
_FLAG = Parameter(negative="", show_default=False)
_POSITIVE = Parameter(validator=Number(gte=1))

err = Console(stderr=True)
app = App(
    name="segrt-bench",
    version=segrt.__version__,
    usage="Usage: segrt-bench [MODEL...] [OPTIONS]",
    help="Measure speed, memory and accuracy of models on this machine.",
    help_flags=["-h", "--help"],
    group_commands=Group("Other", sort_key=9),
)
app.register_install_completion_command(help="Install shell completion.")


_REQUIRED = {
    Peer.PADDLE: {"paddle": "'segrt[export]'"},
    Peer.ONNXRUNTIME: {"paddle2onnx": "'segrt[export]'"},
    Peer.OPENVINO: {"paddle2onnx": "'segrt[export]'", "openvino": "openvino"},
}
"""The module that each comparison needs, and what to install for it."""


@Parameter(name="*", group=_MODELS)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models to measure."""

    all_models: Annotated[bool, _FLAG, Parameter(name="--all")] = False
    """Measure all 18 published models, besides those named."""

    untrained: Annotated[bool, _FLAG] = False
    """Random weights for models that are not downloaded."""

    yes: Annotated[bool, _FLAG] = False
    """Install Paddle (1.9 GB) without asking if a model needs it."""

    fitted: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """Like --untrained, with the last layer fitted to every second labelled image of a folder;
    the others become --dataset."""

    int8: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """Folder with a quantized NAME.onnx for some of the models, as contender int8."""


@Parameter(name="*", group=Group("Contenders", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class ContenderOptions:
    """How each model runs."""

    device: str | None = None
    """cpu, gpu:0, ...; default: the best available."""

    mode: Annotated[str, Parameter(show_default=False)] = "normal,high-performance"
    """Comma-separated modes; default: normal,high-performance."""

    plan: Annotated[list[str] | None, Parameter(negative="", metavar="JSON")] = None
    """Add an hpi_config; repeatable. Default with --dataset: all."""

    compare: Annotated[list[Peer] | None, Parameter(name_transform=str.lower, negative="")] = None
    """Add another runtime, on the CPU; repeatable. The first is the baseline."""

    threads: Annotated[int | None, _POSITIVE] = None
    """Threads of each contender; default: one per core, up to 8."""


@Parameter(name="*", group=Group("Measurement", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What each contender does, and how long."""

    images: Path | None = None
    """Image or folder (first 32 images); default: a sample image."""

    size: Annotated[str | None, Parameter(metavar="HxW")] = None
    """Inference size; default: the size of each image."""

    slide: str | None = None
    """CROP,STRIDE, or HEIGHT,WIDTH,DOWN,RIGHT, or model (the model's own)."""

    repeat: Annotated[int, _POSITIVE] = 30
    """Maximum number of timed rounds per model."""

    seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 30
    """Time budget per model, for at least 5 rounds."""


@Parameter(name="*", group=Group("Data set", sort_key=4))
@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What to score each contender on."""

    dataset: Path | None = None
    """Folder of labelled images to score on."""

    layout: Annotated[Layout, Parameter(name="--format-dataset", name_transform=str.lower)] = (
        Layout.FOLDER
    )
    """Folder layout."""

    dataset_size: Annotated[str | None, Parameter(metavar="HxW")] = None
    """Inference size on the data set, without other runtimes; default: --size."""

    ignore_index: Annotated[int | None, Parameter(validator=Number(gte=0, lte=255))] = None
    """Label of the pixels to ignore."""


@Parameter(name="*", group=Group("Output", sort_key=5))
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the results go."""

    form: Annotated[Format, Parameter(name="--format", name_transform=str.lower)] = Format.TABLE
    """Format of the printed report."""

    output: Annotated[
        list[Path] | None, Parameter(name=["--output", "-o"], negative="", metavar="FILE")
    ] = None
    """Also write .md, .json, .csv or .txt; repeatable."""

    chart: Annotated[Path | None, Parameter(name="--plot", metavar="FILE")] = None
    """Also draw a chart: .png, .svg or .pdf."""

    gallery: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Also write an HTML page with the worst photos of the data set."""


@app.default
def bench(
    *models: Annotated[
        str,
        Parameter(
            group=_MODELS, help="Name, .onnx file, its URL, or folder; default: the bundled model."
        ),
    ],
    selection: ModelOptions = ModelOptions(),
    contenders: ContenderOptions = ContenderOptions(),
    measurement: MeasureOptions = MeasureOptions(),
    data: DatasetOptions = DatasetOptions(),
    out: OutputOptions = OutputOptions(),
) -> int:
    """Measure models on this machine; returns the exit status."""
    if selection.yes:
        consent.agree()
    if contenders.compare:
        contenders = replace(contenders, device=contenders.device or "cpu")
        _check_peers(contenders, measurement.slide)
    if out.chart:
        plot.check(out.chart)
    if out.gallery:
        gallery.check(out.gallery, scored=bool(data.dataset or selection.fitted))
    parse_window(measurement.slide)
    with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
        size = parse_size(measurement.size) if measurement.size else None
        photos, scored = _photos(selection, data)
        settings = replace(_settings(contenders, measurement, data, size), pairs=scored)
        settings = replace(settings, keep_worst=out.gallery is not None)
        job = Job(
            names=_names(models, selection),
            contenders=_contenders(contenders, all_plans=data.dataset is not None),
            images=_images(measurement.images, size, settings, Path(work)),
            settings=settings,
            size=size,
            slide=measurement.slide,
            peers=contenders.compare or (),
            wanted=Wanted(
                untrained=selection.untrained or bool(photos),
                photos=photos,
                truth=Truth(data.layout, data.ignore_index),
                paddle=Peer.PADDLE in (contenders.compare or ()),
                stock=bool({Peer.ONNXRUNTIME, Peer.OPENVINO} & {*(contenders.compare or ())}),
                int8=selection.int8,
            ),
        )
        report, interrupted = _measure(job, out)
    tty = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if tty else 200
    print(report.render(out.form, width=width, colour=tty), end="")
    if out.chart and not plot.plot(report.rows, out.chart, subtitle=_subtitle(report)):
        _say(f"there are no speed-ups to plot, so {out.chart} was not written", "yellow")
    for warning in _unscored(report, data):
        _say(warning, "yellow")
    if out.gallery and any(row.worst for row in report.rows):
        write_atomic(out.gallery, gallery.page(report.rows, job.settings.truth).encode())
    elif out.gallery:
        _say(f"no photo was scored, so {out.gallery} was not written", "yellow")
    if interrupted:
        _say("interrupted: these are the results so far", "yellow")
        return 130
    return 1 if any(row.error for row in report.rows) else 0


def _unscored(report: Report, data: DatasetOptions) -> Iterator[str]:
    """Warn of pixels that were ignored although nobody said so, unless all classes occur."""
    if data.ignore_index is not None or data.layout is not Layout.FOLDER:
        return
    matrices = {row.model.name: row.confusion for row in reversed(report.rows) if row.confusion}
    for name, matrix in reversed(matrices.items()):
        occurring = int((matrix.counts.sum(axis=1) > 0).sum())
        if matrix.ignored and occurring < len(matrix.counts):
            share = matrix.ignored / (matrix.ignored + int(matrix.counts.sum()))
            value = matrix.ignore_index
            yield (
                f"{share:.1%} of the pixels of the masks have the value {value}, for which {name} "
                f"has no class; they are not scored, and {occurring} of its {len(matrix.counts)} "
                f"classes occur: if {value} is a class, replace it by the class id (1 in masks of "
                f"0 and 255), or else add --ignore-index {value}"
            )


def _names(models: Sequence[str], options: ModelOptions) -> list[str]:
    published = [spec.name for spec in zoo.load().models if not spec.bundled]
    return [*models, *(published if options.all_models else ())] or [zoo.DEFAULT_MODEL]


def _photos(selection: ModelOptions, data: DatasetOptions) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """The labelled images to fit untrained models to, and those to score on."""
    if selection.fitted is None:
        return (), datasets.find(data.dataset, data.layout) if data.dataset else ()
    if data.dataset or selection.untrained:
        raise ConfigError("--fitted implies --untrained and --dataset: omit them")
    pairs = datasets.find(selection.fitted, data.layout)
    if len(pairs) < 2:
        raise InputError(f"{selection.fitted} contains one labelled image, and --fitted needs two")
    return pairs[0::2], pairs[1::2]


def _check_peers(options: ContenderOptions, slide: str | None) -> None:
    peers = options.compare or []
    if len(set(peers)) < len(peers):
        raise ConfigError(f"--compare {peers[0].value} is given twice")
    if slide:
        raise ConfigError(
            "--compare runs other runtimes on whole images: they can't be compared with --slide"
        )
    if Device.parse(options.device or "cpu").kind != "cpu":
        raise ConfigError(
            "--compare runs other runtimes on the CPU: they can't be compared with --device "
            f"{options.device}"
        )
    for peer in peers:
        for module, package in _REQUIRED[peer].items():
            if find_spec(module) is None:
                raise MissingExtraError(
                    f"--compare {peer.value} requires {module}: run  pip install {package}"
                )


def _settings(
    contenders: ContenderOptions,
    measurement: MeasureOptions,
    data: DatasetOptions,
    size: TargetSize,
) -> Settings:
    cores = catalog.usable_cores()
    if contenders.threads and contenders.threads > cores:
        raise ConfigError(
            f"--threads {contenders.threads} is not valid: this process may use {cores} cores"
        )
    return Settings(
        threads=contenders.threads or min(MAX_THREADS, cores),
        repeat=measurement.repeat,
        seconds=measurement.seconds,
        truth=Truth(data.layout, data.ignore_index),
        scored_size=parse_size(data.dataset_size) if data.dataset_size else size,
        score_peers=data.dataset_size is None,
    )


def _contenders(options: ContenderOptions, *, all_plans: bool) -> list[tuple[str, dict[str, Any]]]:
    """Label and arguments of `create_pipeline` for each contender of segrt."""
    base: dict[str, Any] = {"device": options.device} if options.device else {}
    found: list[tuple[str, dict[str, Any]]] = []
    for text in options.mode.split(","):
        mode = Mode.parse(text.strip())
        found.append((mode.value, base if mode is Mode.NORMAL else {**base, "mode": mode.value}))
    for text in options.plan or (_all_plans(options.device) if all_plans else ()):
        arguments = {**base, "mode": Mode.HIGH_PERFORMANCE.value, "hpi_config": text}
        found.append((_plan_label(text), arguments))
    labels = [label for label, _ in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"two contenders are alike: {', '.join(labels)}")
    return found


def _plan_label(text: str) -> str:
    try:
        config = HpiConfig.parse(text)
    except ConfigError as error:
        raise ConfigError(f"--plan {text!r} is not valid: {error}") from None
    return (
        " ".join(map(str, filter(None, (config.backend, config.precision, config.threads)))) or text
    )


def _all_plans(device: str | None) -> list[str]:
    """Every plan of this machine except that of normal mode, in the form of `--plan`."""
    plans = every(Device.parse(device) if device else None, catalog.read())[1:]
    return [
        json.dumps({"backend": plan.backend.name, "precision": plan.precision}) for plan in plans
    ]


def _images(
    folder: Path | None, size: tuple[int, int] | None, settings: Settings, work: Path
) -> list[Path]:
    """The images to run: the user's, else those of the data set, else the sample at `size`."""
    if folder is None and settings.pairs:
        return [pair.image for pair in settings.pairs[:MAX_IMAGES]]
    if folder is None:
        with Image.open(package_data.path(package_data.SAMPLE)) as image:
            image.resize((size[1], size[0]) if size else image.size).save(work / "sample.png")
        return [work / "sample.png"]
    if not folder.exists():
        raise InputError(f"--images {folder} does not exist")
    files = (
        [folder] if folder.is_file() else [Path(file) for file in find_images(str(folder)).files]
    )
    files = files[:MAX_IMAGES]
    if not files:
        raise InputError(f"--images {folder} contains no image")
    shapes = {read_image(file).shape for file in files}
    if size is None and len(shapes) > 1:
        raise ConfigError(
            f"the images of {folder} differ in size: set the inference size with --size HxW"
        )
    return files


def _measure(job: Job, out: OutputOptions) -> tuple[Report, bool]:
    """Run the job, updating the output files after each model.

    Returns:
        tuple: the report, and whether Ctrl-C ended it early.
    """
    report = Report(
        command=shlex.join(sys.argv[1:]),
        environment=environment.observe(environment.pin(job.settings.threads)),
        threads=job.settings.threads,
        size="x".join(map(str, job.size)) if job.size else "the size of each image",
        clock_ms=overhead_ms(),
        rows=[],
    )
    if report.environment.busy:
        _say("the machine is busy, so times will be too long", "yellow")
    interrupted = False
    with _progress_bar() as bar:
        task = bar.add_task("", total=len(job.names))
        try:
            for rows in job.run(
                lambda step, done: bar.update(task, description=step, completed=done)
            ):
                report.rows.extend(rows)
                _save(report, out)
        except KeyboardInterrupt:
            interrupted = True
    report = replace(report, environment=report.environment.finished())
    _save(report, out)
    return report, interrupted


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=is_quiet() or not err.is_terminal,
        refresh_per_second=1,  # drawing takes CPU time away from the contenders
        speed_estimate_period=3600,
    )


def _save(report: Report, out: OutputOptions) -> None:
    for file in out.output or ():
        form = _FORMATS.get(file.suffix.lower(), out.form)
        write_atomic(file, report.render(form).encode())


def _say(text: str, style: str) -> None:
    if is_quiet() and style != "red":
        return
    err.print(f"segrt-bench: {text}", style=style, markup=False, highlight=False, soft_wrap=True)


def _subtitle(report: Report) -> str:
    env = report.environment
    device = "; ".join(env.gpus) + "; " if env.gpus else ""
    busy = "; THE MACHINE WAS BUSY" if env.busy else ""
    return f"{device}{env.cpu}, {report.threads} threads; inference at {report.size}{busy}"


verbosity.add_to(app)


def main() -> None:
    """Run the command: errors become one line and exit status 1, or 2 for wrong usage."""
    logging.basicConfig(format="%(message)s", handlers=[Messages(err)])
    try:
        app.meta(exit_on_error=False, print_error=False)
    except (CycloptsError, SegrtError, OSError) as error:
        _say(" ".join(str(error).splitlines()), "red")
        sys.exit(2 if isinstance(error, (CycloptsError, ConfigError)) else 1)


if __name__ == "__main__":
    main()
