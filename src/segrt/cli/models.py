"""`segrt models`: list, describe, download and remove models."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from segrt import consent, provide, shelf, store, zoo
from segrt import converter as environment
from segrt import lock as lock_file
from segrt.cli.console import complain, say
from segrt.cli.options import AsJson
from segrt.create import create_pipeline
from segrt.errors import ConfigError, SegrtError
from segrt.names import is_url
from segrt.store import Stored

Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]

app = App(
    name="models",
    help="List the models, with their published accuracy; fetch, share and remove them.",
    help_epilogue="",
    result_action="return_value",
)


@app.default
def list_models(
    *, downloaded: Annotated[bool, Parameter(negative="")] = False, json: AsJson = False
) -> None:
    """List the models.

    Args:
        downloaded: Only those available on this machine.
        json: Print one line of JSON for each model.
    """
    available = {stored.spec.name: stored for stored in store.downloaded()}
    table = Table("model", "classes of", "mIoU %", "MB", "available", box=None)
    shown = [spec for spec in zoo.load().models if not downloaded or spec.name in available]
    for spec in shown:
        state = "bundled" if spec.bundled else _state(available.get(spec.name))
        if json:
            line = {
                "model": spec.name,
                "dataset": spec.dataset.name,
                "miou": spec.miou,
                "mb": spec.size_mb,
                "available": state or None,
                "licence": spec.licence,
            }
            print(dumps(line))
            continue
        size = f"{spec.size_mb:.1f}" if spec.size_mb else ""
        table.add_row(escape(spec.name), spec.dataset.name, f"{spec.miou:.2f}", size, state)
    if json:
        return
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)
    for spec in shown:
        if spec.licence:
            text = f"{spec.name}: {spec.licence}"
            out.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command
def describe(model: str, /) -> None:
    """Show everything that decides the labels of a model, and where it was found.

    Args:
        model: An .onnx file, a folder with a model, or a name listed by `segrt models`.
    """
    is_path = Path(model).exists() or "/" in model or model.endswith(".onnx")
    where = {"model_dir": Path(model)} if is_path else {"model_name": model}
    table = Table("", Column("value", overflow="fold"), Column("source", overflow="fold"), box=None)
    for name, (value, source) in create_pipeline(device="cpu", **where).describe().items():
        table.add_row(name, escape(value), escape(source))
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)


@app.command
def fetch(
    *names: str,
    every: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    download_only: Flag = False,
    yes: Flag = False,
) -> int:
    """Download models, and convert them to ONNX.

    Args:
        names: Models listed by `segrt models`.
        every: Fetch all models.
        download_only: Download the Paddle archives, and convert nothing.
        yes: Install Paddle (1.9 GB) without asking if it is needed.

    Returns:
        int: exit status; 1 if a model could not be fetched.
    """
    if bool(names) == every:
        raise ConfigError("specify one or more models, or --all")
    if yes:
        consent.agree()
    if every:
        names = tuple(spec.name for spec in zoo.load().models if not spec.bundled)
    status = 0
    for spec in [zoo.get(name) for name in names]:
        try:
            path = store.fetch(spec) if download_only else provide.provide(spec)
        except SegrtError as error:
            if len(names) == 1:
                raise
            complain(error)  # the others may succeed
            status = 1
        else:
            say(f"{spec.name} is in {path}")
    return status


@app.command
def share(folder: Path, /, *names: str) -> None:
    """Write converted models to a folder, from which other machines get them: SEGRT_MIRROR.

    Args:
        folder: The folder; models that it contains already stay there.
        names: Models listed by `segrt models`; default: all that are converted.
    """
    for spec in shelf.share(folder, names):
        say(f"{spec.name} is in {folder}")


@app.command
def lock(file: Path, /) -> None:
    """Write the SHA-256 of all downloaded models to a file, which SEGRT_LOCK enforces.

    Args:
        file: The lock file, JSON.
    """
    files = provide.hashes()
    lock_file.write(file, files)
    say(f"{file} lists {len(files)} files; set SEGRT_LOCK={file} to accept no others")


@app.command
def remove(*names: str, converter: Flag = False) -> None:
    """Delete downloaded models and their exports.

    Args:
        names: Models listed by `segrt models`, or URLs of ONNX files.
        converter: Delete the environment with Paddle that segrt installed.
    """
    if not names and not converter:
        raise ConfigError("specify one or more models, or --converter")
    for name in names:
        freed = provide.remove_url(name) if is_url(name) else store.remove(name)
        say(f"{name} is removed, {freed / 1e6:.1f} MB are free again")
    if converter:
        say(f"the converter is removed, {environment.remove() / 1e6:.1f} MB are free again")


def _state(stored: Stored | None) -> str:
    if stored is None:
        return ""
    return "ready" if stored.onnx else "downloaded, not converted"
