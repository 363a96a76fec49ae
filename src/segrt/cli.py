"""The command `segrt`: subcommands, and the PaddleX forms `segrt --pipeline ... --input ...`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from segrt.errors import ConfigError, InputError, MissingExtraError, ModelError, SegrtError
from segrt.types import parse_label_format

if TYPE_CHECKING:
    from segrt.pipeline import Pipeline
    from segrt.store import Stored

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(invoke_without_command=True, no_args_is_help=False)
app.add_typer(models, name="models")
err = Console(stderr=True)
SAVERS = 2
"""Threads that save results: they wait for the disk more than they compute."""

SavePath = Annotated[
    Path | None,
    typer.Option(
        "--save_path", "--save-path", help="Where results go: a folder.", show_default=False
    ),
]
TargetSizeText = Annotated[
    str | None,
    typer.Option(
        "--target_size",
        "--target-size",
        help="Size of inference: -1 (the image's own), N (fit inside N x N) or height,width.",
        show_default=False,
    ),
]
DeviceText = Annotated[
    str | None, typer.Option(help="cpu, gpu, gpu:0, gpu:0,1, ...; the best here if not given.")
]
ModeText = Annotated[
    str | None, typer.Option("--mode", help="normal or high-performance.", show_default=False)
]
UseHpip = Annotated[bool, typer.Option("--use_hpip", help="The same as --mode high-performance.")]
HpiConfigText = Annotated[
    str | None,
    typer.Option(
        "--hpi_config",
        "--hpi-config",
        help='JSON of backend, precision, threads, provider_options, as in \'{"backend": "openvino"}\'.',
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None, typer.Option("--model_name", "--model", help="A model of `segrt models`.")
]
ModelDir = Annotated[
    Path | None,
    typer.Option("--model_dir", "--model-dir", help="A .onnx file, or a folder with one."),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch_size", "--batch-size", min=1, help="Images run together.")
]
Workers = Annotated[
    int, typer.Option(min=1, max=64, help="Times that the model is loaded; they share the cores.")
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max_pixels",
        "--max-pixels",
        min=1,
        help="Most pixels of one image; 178,956,970 if not given.",
    ),
]
Exif = Annotated[
    bool, typer.Option("--exif/--no-exif", help="Turn photos the way their EXIF orientation says.")
]
PdfScale = Annotated[
    float,
    typer.Option(
        "--pdf_scale", "--pdf-scale", help="Pixels to one point of a PDF page; 2 is 144 dpi."
    ),
]
Slide = Annotated[
    str | None,
    typer.Option(
        help="Sliding window: CROP,STRIDE or HEIGHT,WIDTH,DOWN,RIGHT in pixels; model: that of the model."
    ),
]
Palette = Annotated[
    str | None,
    typer.Option(help="Colours: voc, cityscapes, ade20k or camvid; the model's own if not given."),
]
LabelFormatText = Annotated[
    str,
    typer.Option(
        "--label_format",
        "--label-format",
        help="The labels in the JSON: list (nested, as in PaddleX), rle (COCO's run lengths) or png (indexed).",
    ),
]
Host = Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 for all of this machine's.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to serve at; 0 for any that is free.")
]
Overlay = Annotated[
    bool,
    typer.Option("--overlay", help="Also save the photo with the classes and a legend over it."),
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help="semantic_segmentation, or the path of a pipeline YAML.", show_default=False
        ),
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="An image or a folder of images.", show_default=False)
    ] = None,
    target_size: TargetSizeText = None,
    save_path: SavePath = None,
    device: DeviceText = None,
    use_hpip: UseHpip = False,
    hpi_config: HpiConfigText = None,
    mode: ModeText = None,
    get_pipeline_config: Annotated[
        str | None,
        typer.Option(
            "--get_pipeline_config",
            help="Write the YAML of this pipeline to --save_path.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the pipeline over HTTP, as `segrt serve` does.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Semantic segmentation with the PaddleSeg models on ONNX Runtime."""
    if version:
        from segrt import __version__

        print(__version__)
        return
    if context.invoked_subcommand is not None:
        return
    if get_pipeline_config is not None:
        config(get_pipeline_config, save_path)
        return
    if pipeline is None:
        print(context.get_help())
        raise typer.Exit(2)
    if input is None and not serve:
        raise ConfigError("--pipeline needs --input: an image or a folder of images")
    options: dict[str, Any] = {"pipeline": pipeline, "device": device}
    options |= {"use_hpip": use_hpip, "hpi_config": hpi_config, "mode": mode}
    if serve:
        _serve(options, host, port)
        return
    assert input is not None
    _predict([input], options, target_size, save_path)


@app.command()
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, URLs, videos, cameras (camera:0).", show_default=False
        ),
    ],
    save_path: SavePath = None,
    target_size: TargetSizeText = None,
    pipeline: Annotated[
        str, typer.Option(help="Path of a pipeline YAML.")
    ] = "semantic_segmentation",
    model_name: ModelName = None,
    model_dir: ModelDir = None,
    device: DeviceText = None,
    use_hpip: UseHpip = False,
    hpi_config: HpiConfigText = None,
    mode: ModeText = None,
    batch_size: BatchSize = None,
    workers: Workers = 1,
    max_pixels: MaxPixels = None,
    exif: Exif = True,
    pdf_scale: PdfScale = 2,
    slide: Slide = None,
    palette: Palette = None,
    label_format: LabelFormatText = "list",
    overlay: Overlay = False,
) -> None:
    """Segment images, and save label pictures and JSON; of a video or a camera, an overlay video."""
    options: dict[str, Any] = {
        "pipeline": pipeline,
        "model_name": model_name,
        "model_dir": model_dir,
        "device": device,
    }
    options |= {
        "use_hpip": use_hpip,
        "hpi_config": hpi_config,
        "mode": mode,
        "palette": palette,
        "workers": workers,
    }
    _predict(
        inputs,
        options,
        target_size,
        save_path,
        batch_size=batch_size,
        reading={"max_pixels": max_pixels, "exif": exif, "pdf_scale": pdf_scale},
        slide=slide,
        label_format=label_format,
        overlay=overlay,
    )


@app.command()
def config(
    name: Annotated[str, typer.Argument(help="The pipeline.")] = "semantic_segmentation",
    save_path: SavePath = None,
) -> None:
    """Write a pipeline YAML to start from to --save_path, or print it."""
    from segrt.config import write_template

    if file := write_template(name, save_path):
        err.print(f"{file} is written", markup=False, highlight=False, soft_wrap=True)


@app.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    pipeline: Annotated[
        str, typer.Option(help="Path of a pipeline YAML.")
    ] = "semantic_segmentation",
    model_name: ModelName = None,
    model_dir: ModelDir = None,
    device: DeviceText = None,
    use_hpip: UseHpip = False,
    hpi_config: HpiConfigText = None,
    mode: ModeText = None,
    palette: Palette = None,
    max_batch: Annotated[
        int, typer.Option(help="Most requests that go through the network together.")
    ] = 8,
    max_delay_ms: Annotated[
        float, typer.Option(help="How long the first of a batch waits for others.")
    ] = 2,
    max_queue: Annotated[
        int, typer.Option(help="Most requests that wait or run; more are answered 503.")
    ] = 64,
    workers: Annotated[int, typer.Option(help="Batches that run at once, on one model.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is answered 504.")] = 60,
    max_body: Annotated[int, typer.Option(help="Most bytes of a request.")] = 16 << 20,
    max_pixels: Annotated[
        int, typer.Option(help="Most pixels of an image, and of the size of inference.")
    ] = 16_000_000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SEGRT_TOKEN", help="Ask for this bearer token; better given as SEGRT_TOKEN."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page's origin that may use this server; may be repeated."),
    ] = None,
    allow_urls: Annotated[
        bool,
        typer.Option(
            "--allow-urls", help="Fetch images from public http(s) addresses that clients name."
        ),
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON, a line each.")] = False,
) -> None:
    """Serve the pipeline over HTTP, with the API of PaddleX."""
    options: dict[str, Any] = {
        "pipeline": pipeline,
        "model_name": model_name,
        "model_dir": model_dir,
        "device": device,
    }
    options |= {"use_hpip": use_hpip, "hpi_config": hpi_config, "mode": mode, "palette": palette}
    _serve(
        options,
        host,
        port,
        log_json=log_json,
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        workers=workers,
        timeout=timeout,
        max_body=max_body,
        max_pixels=max_pixels,
        token=token,
        cors_origins=tuple(cors_origin or ()),
        allow_urls=allow_urls,
    )


@app.command()
def doctor() -> None:
    """Show what this machine offers, what is wrong with it, and the command that mends each."""
    from segrt.doctor import doctor

    if not doctor():
        raise typer.Exit(1)


@app.command()
def tune(
    model: Annotated[
        str, typer.Argument(help="A model of `segrt models`, or a .onnx file.", show_default=False)
    ],
    size: Annotated[str, typer.Option(help="Size of inference, height x width.")] = "512x1024",
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of photos like yours; the bundled sample if not given."),
    ] = None,
    device: DeviceText = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each plan is measured.")] = 7,
    agreement: Annotated[
        float, typer.Option(min=0, max=100, help="Least % of labels equal to those of FP32.")
    ] = 99,
) -> None:
    """Measure what runs a model fastest here; high-performance mode uses it from then on."""
    from segrt import tuning

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("measuring", total=None)

        def step(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        measured, path = tuning.tune_model(
            model, size, images, device, rounds, agreement / 100, step
        )
    best = tuning.winner(measured)
    table = Table("plan", "ms an image", "labels as FP32", "", box=None)
    for one in measured:
        time = "" if one.milliseconds is None else f"{one.milliseconds:.1f}"
        same = "" if one.agreement is None else f"{100 * one.agreement:.2f}%"
        table.add_row(str(one.plan), time, same, "fastest" if one is best else escape(one.rejected))
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(table)
    err.print(
        f"high-performance mode runs {best.plan}; remembered in {path}",
        markup=False,
        soft_wrap=True,
    )


@models.callback()
def list_models(
    context: typer.Context,
    downloaded: Annotated[
        bool, typer.Option("--downloaded", help="Only those that are here.")
    ] = False,
) -> None:
    """List the models: what each was trained on, its published accuracy, and the licence of bundled weights."""
    if context.invoked_subcommand is not None:
        return
    from segrt import store, zoo

    here = {stored.spec.name: stored for stored in store.downloaded()}
    table = Table("model", "classes of", "mIoU %", "MB", "here", box=None)
    shown = [spec for spec in zoo.load().models if not downloaded or spec.name in here]
    for spec in shown:
        state = "bundled" if spec.bundled else _state(here.get(spec.name))
        size = f"{spec.size_mb:.1f}" if spec.size_mb else ""
        table.add_row(escape(spec.name), spec.dataset.name, f"{spec.miou:.2f}", size, state)
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)
    for spec in shown:
        if spec.licence:
            out.print(f"{spec.name}: {spec.licence}", markup=False, highlight=False, soft_wrap=True)


def _state(stored: Stored | None) -> str:
    return "" if stored is None else "ready" if stored.onnx else "downloaded, to be exported"


@models.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(help="Models of `segrt models`.", show_default=False)
    ],
) -> None:
    """Download the official Paddle models, and check them."""
    from segrt import store, zoo

    for spec in [zoo.get(name) for name in names]:
        path = store.fetch(spec)
        note = "" if store.locate(spec) else f'; to convert it, run  segrt-export "{spec.name}"'
        err.print(f"{spec.name} is in {path}{note}", markup=False, highlight=False, soft_wrap=True)


@models.command()
def remove(
    names: Annotated[
        list[str], typer.Argument(help="Models of `segrt models`.", show_default=False)
    ],
) -> None:
    """Delete downloaded models and their exports."""
    from segrt import store

    for name in names:
        freed = store.remove(name)
        err.print(
            f"{name} is removed, {freed / 1e6:.1f} MB are free again", markup=False, highlight=False
        )


def _serve(
    options: dict[str, Any], host: str, port: int, *, log_json: bool = False, **settings: Any
) -> None:
    """Serve until SIGTERM."""
    from segrt.create import create_pipeline

    try:
        from segrt.serve import logs, server
        from segrt.serve.settings import Settings
    except ImportError as error:
        raise MissingExtraError(
            f"serving needs {error.name}: run  pip install 'segrt[serve]'"
        ) from None
    chosen = Settings(**settings)
    logs.set_up(as_json=log_json)
    sock = server.bind(host, port)
    server.run(create_pipeline(**options), chosen, sock)


def _predict(
    inputs: list[str],
    options: dict[str, Any],
    target_size: str | None,
    save_path: Path | None,
    *,
    batch_size: int | None = None,
    reading: Mapping[str, Any] | None = None,
    slide: str | None = None,
    label_format: str = "list",
    overlay: bool = False,
) -> None:
    """Run one prediction job; exits 1 if an input failed."""
    from segrt import video
    from segrt.create import create_pipeline
    from segrt.frame import SegFailure; from segrt.result import SegResult
    from segrt.schedule import in_threads

    form = parse_label_format(label_format)
    pipeline = create_pipeline(**options)
    videos = [name for name in inputs if save_path and video.is_video_name(name)]
    inputs = [name for name in inputs if name not in videos]
    done = failed = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("segmenting", total=None)
        crops = progress.add_task("crops of the image", total=None, visible=slide is not None)

        def show(crops_done: int, of: int) -> None:
            progress.update(crops, completed=crops_done, total=of, visible=True)

        results = pipeline.predict(
            inputs,
            target_size,
            batch_size=batch_size,
            slide=slide,
            progress=show,
            on_error="yield",
            **(reading or {}),
        )

        def save(result: SegResult | SegFailure) -> SegResult | SegFailure:
            if save_path is not None and not isinstance(result, SegFailure):
                result.save_to_img(save_path)
                result.save_to_json(save_path, label_format=form)
                if overlay:
                    result.save_overlay(save_path)
            return result

        for result in in_threads(save, results, SAVERS):
            if isinstance(result, SegFailure):
                failed += 1
                _complain(result.error)
            else:
                done += 1
                result.print(format_json=False)
            progress.advance(task)
    if save_path is not None and videos:
        saved = _predict_videos(
            pipeline, videos, save_path, target_size, batch_size=batch_size, slide=slide
        )
        done, failed = done + saved, failed + len(videos) - saved
    where = f", results in {save_path}" if save_path and done else ""
    ran = f"{pipeline.model_name} on {pipeline.session.provider} {pipeline.session.precision}"
    err.print(
        f"{done} segmented, {failed} failed ({ran}){where}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(1)


def _predict_videos(
    pipeline: Pipeline, videos: list[str], save_path: Path, target_size: str | None, **options: Any
) -> int:
    """Write an overlay video of each; gives how many worked."""
    from segrt.names import Stems
    from segrt.overlay_video import WRITTEN, save_overlay_video

    stems, saved = Stems(), 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    for name in videos:
        target = (
            save_path
            if save_path.suffix.lower() in WRITTEN
            else save_path / f"{stems.assign(name)}_overlay.mp4"
        )
        start, frames, speed = perf_counter(), 0, 0.0
        with Progress(
            *columns, console=err, transient=True, disable=not err.is_terminal
        ) as progress:
            task = progress.add_task(name, total=None)

            def show(done: int, total: int | None) -> None:
                nonlocal frames, speed
                frames, speed = done, done / (perf_counter() - start)  # noqa: B023
                progress.update(
                    task, completed=done, total=total, description=f"{speed:.1f} frames/s"
                )

            try:
                save_overlay_video(pipeline, name, target, target_size, progress=show, **options)
            except (InputError, ModelError) as error:
                _complain(error)
                continue
        saved += 1
        err.print(
            f"{target}: {frames} frames, {speed:.1f} a second",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return saved


def _complain(error: Exception) -> None:
    err.print(f"segrt: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the console script: errors become one line and exit status 1, wrong usage 2."""
    logging.basicConfig(
        format="%(message)s", handlers=[RichHandler(console=err, show_time=False, show_path=False)]
    )
    try:
        app()
    except ConfigError as error:
        _complain(error)
        sys.exit(2)
    except (SegrtError, OSError) as error:
        _complain(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
