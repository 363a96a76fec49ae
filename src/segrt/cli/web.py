"""`segrt web`: a static page that runs a model in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segrt import consent, model_file, zoo
from segrt.cli.console import say
from segrt.cli.options import Yes
from segrt.create import create_pipeline
from segrt.web import site


def web(
    model: str = zoo.DEFAULT_MODEL,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], metavar="DIR")],
    palette: str | None = None,
    runtime: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    webgpu: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    yes: Yes = False,
) -> None:
    """Write a static page that runs a model in the browser, for any web server.

    Args:
        model: A model listed by `segrt models`, an .onnx file or its URL, or a folder with a model.
        out: The folder to create.
        palette: voc, cityscapes, ade20k or camvid; default: the model's.
        runtime: The unpacked npm package onnxruntime-web; default: it is downloaded once.
        webgpu: Use WebGPU in browsers that have it; 27 MB more.
        yes: Install Paddle (1.9 GB) without asking if the model needs it.
    """
    if yes:
        consent.agree()
    file = model_file.find(model)
    with create_pipeline(model_dir=file, palette=palette, device="cpu") as pipeline:
        size = site.build(
            file,
            pipeline.session.description,
            pipeline.palette,
            out,
            runtime_folder=runtime,
            webgpu=webgpu,
        )
    say(f"{out}: {pipeline.model_name}, {size / 1e6:.1f} MB; to try it:")
    say(f"  python3 -m http.server --bind 127.0.0.1 --directory {out} 8000")
