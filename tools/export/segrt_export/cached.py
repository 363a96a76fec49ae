"""Converts a folder with a Paddle model on first use, and keeps the result in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import segrt
import segrt_export
from segrt import converter, store
from segrt.errors import MissingExtraError, ModelError
from segrt.files import commit
from segrt.waiting import spinner
from segrt_export.program import PaddleModel
from segrt_export.requirements import require

log = logging.getLogger("segrt")


def export_folder(folder: Path, cache: Path) -> Path:
    """Export the Paddle model in a folder, unless the cache already contains it.

    Example:
        >>> export_folder(Path("my_model"), Path("cache"))
        PosixPath('cache/my_model-0123456789abcdef/model.onnx')

    Args:
        folder: a Paddle inference model.
        cache: folder for exported models; created if missing. A model whose program, weights or
            configuration have changed is exported again, and so is every model with another
            version of segrt or paddle2onnx.

    Returns:
        Path: the `.onnx` file.

    Raises:
        ExportError: the folder contains no Paddle model, or the export failed.
        ModelError: the model is not in the cache, the export extra is not installed, and the user
            does not agree to a private environment.
    """
    source = PaddleModel.open(folder)
    file = cache / f"{store.folder_name(source.name)}-{_digest(source)}" / "model.onnx"
    if file.is_file():
        return file
    try:
        require("paddle2onnx")
        log.warning("%s is a Paddle model: converting it to %s, this once", folder, file)
        segrt_export.export(source, file)
    except MissingExtraError as error:
        if python := converter.find() or converter.offer(str(folder)):
            log.warning("%s is a Paddle model: converting it to %s, this once", folder, file)
            _export_elsewhere(python, source, folder, file)
            return file
        raise ModelError(
            f"{folder} contains a Paddle model, which must be converted to ONNX first, and {error};"
            f" or convert it elsewhere with  segrt-export {folder} -o OUT  and pass the .onnx file"
            " as model_dir"
        ) from None
    return file


def _export_elsewhere(python: Path, source: PaddleModel, folder: Path, file: Path) -> None:
    """Export a model with another interpreter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=file.parent) as made:
        with spinner(f"converting {folder}, this once"):
            converter.convert(python, folder, source.name, Path(made))
        for name in ("model.parity.json", "model.onnx"):
            commit(Path(made) / name, file.with_name(name))


def _digest(source: PaddleModel) -> str:
    """Identifies everything that an export depends on."""
    try:
        converter = version("paddle2onnx")
    except PackageNotFoundError:
        converter = ""
    parts = {**source.sha256(), "segrt": segrt.__version__, "paddle2onnx": converter}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
