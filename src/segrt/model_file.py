"""From what the user specifies (a model name, a file or a folder) to the `.onnx` file to run."""

from __future__ import annotations

import re
from pathlib import Path

import segrt_export
from segrt import store, zoo
from segrt.errors import ModelError
from segrt.names import is_url
from segrt.provide import provide, provide_url


def resolve(name: str | None = None, path: str | Path | None = None) -> Path:
    """Find the `.onnx` file of a model; it is downloaded and converted on first use.

    Example:
        >>> resolve("PP-LiteSeg-T_camvid").name
        'model.onnx'

    Args:
        name: a name in the model zoo; None for the bundled model.
        path: an `.onnx` file, a folder that contains one, itself or in its subfolder `onnx`, a
            folder with a Paddle inference model, which is converted on first use and cached, or the
            http(s) URL of an `.onnx` file, which is downloaded on first use; wins over `name`.

    Returns:
        Path: the file. If `path` is a file, its existence is not checked.

    Raises:
        ModelError: the model is unknown, can't be converted here or was changed, or the folder
            contains several models.
        DownloadError: it can't be downloaded, or is not the expected file.
        ExportError: it can't be converted.
    """
    if path is None:
        return provide(zoo.get(name or zoo.DEFAULT_MODEL))
    # A path that was a URL has lost a slash: that of a pipeline YAML, for example.
    url = re.sub(r"^(https?):/+", r"\1://", str(path), count=1, flags=re.IGNORECASE)
    if is_url(url):
        return provide_url(url)
    path = Path(path)
    if not path.is_dir():
        return path
    # Repositories of models for several runtimes keep their ONNX files in a folder of that name.
    files = sorted(path.glob("*.onnx")) or sorted(path.glob("onnx/*.onnx"))
    if len(files) > 1:
        raise ModelError(f"model_dir {path} holds {len(files)} .onnx files: name the one to use")
    return files[0] if files else segrt_export.export_folder(path, store.home() / "onnx")


def find(model: str) -> Path:
    """Like `resolve`, for one text that is a name, or else a file, folder or URL.

    Example:
        >>> find("PP-LiteSeg-T_camvid").name
        'model.onnx'

    Raises:
        ModelError: see `resolve`; or there is no such file.
        DownloadError: see `resolve`.
        ExportError: see `resolve`.
    """
    is_path = Path(model).exists() or "/" in model or model.endswith(".onnx")
    file = resolve(path=model) if is_path else resolve(model)
    if not file.is_file():
        raise ModelError(f"model file {file} does not exist")
    return file
