"""From what the user specifies (a model name, a file or a folder) to the `.onnx` file to run."""

from __future__ import annotations

from pathlib import Path

import segrt_export
from segrt import store, zoo
from segrt.errors import ModelError


def resolve(name: str | None = None, path: Path | None = None) -> Path:
    """Find the `.onnx` file of a model.

    Example:
        >>> resolve("PP-LiteSeg-T_camvid").name
        'model.onnx'

    Args:
        name: a name in the model zoo; None for the bundled model.
        path: an `.onnx` file, a folder that contains one, itself or in its subfolder `onnx`, or a
            folder with a Paddle inference model, which is converted on first use and cached; wins
            over `name`.

    Returns:
        Path: the file. If `path` is a file, its existence is not checked.

    Raises:
        ModelError: the model is unknown, not downloaded or not converted, or the folder contains
            several models.
    """
    if path is None:
        return store.require(zoo.get(name or zoo.DEFAULT_MODEL))
    if not path.is_dir():
        return path
    # Repositories of models for several runtimes keep their ONNX files in a folder of that name.
    files = sorted(path.glob("*.onnx")) or sorted(path.glob("onnx/*.onnx"))
    if len(files) > 1:
        raise ModelError(f"model_dir {path} holds {len(files)} .onnx files: name the one to use")
    return files[0] if files else segrt_export.export_folder(path, store.home() / "onnx")
