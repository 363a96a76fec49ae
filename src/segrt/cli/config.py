"""`segrt config`: a pipeline YAML to start from."""

from __future__ import annotations

from segrt.cli.console import say
from segrt.cli.options import SavePath
from segrt.cli.standard import STDOUT
from segrt.config import PIPELINE, write_template


def config(name: str = PIPELINE, *, save_path: SavePath = None) -> None:
    """Write a pipeline YAML to start from, or print it.

    Args:
        name: The pipeline; there is one.
        save_path: A folder, or a .yaml file; printed if not given, or -.
    """
    if file := write_template(name, None if save_path is STDOUT else save_path):
        say(f"{file} is written")
