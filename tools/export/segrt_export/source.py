"""Resolves an argument of segrt-export to a model and the path of its export."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import segrt_export
from segrt import archive, package_data, seals, store, zoo
from segrt.errors import ConfigError, ExportError, ModelError
from segrt.files import sha256
from segrt.metadata import KEY, ModelMeta
from segrt.zoo import ModelSpec
from segrt_export.program import PaddleModel
from segrt_export.requirements import EDGE, require
from segrt_export.untrained import build_untrained

if TYPE_CHECKING:
    from segrt_export.onnx_model import OnnxModel

    Source: TypeAlias = PaddleModel | OnnxModel


def open_source(
    text: str,
    work: Path,
    out: Path | None,
    *,
    untrained: bool = False,
    config: Path | None = None,
    bands: tuple[str, ...] | None = None,
) -> tuple[Source, Path]:
    """Open a model by folder, archive, ONNX file, or name in the model zoo.

    Example:
        >>> model, file = open_source("PP-LiteSeg-T", Path("work"), Path("out"))
        >>> file
        PosixPath('out/PP-LiteSeg-T.onnx')

    Args:
        text: a folder with an inference model, a `.tar` as published by PaddleX, an `.onnx` file,
            or the name of a model, which is downloaded.
        work: folder for unpacked or generated files; the caller deletes it.
        out: folder of the export; None for a model of the zoo to export it to the cache, where
            segrt finds it by name.
        untrained: generate the named model with random weights instead of downloading it.
        config: the configuration of an `.onnx` file, instead of those next to it.
        bands: the names of the channels of its input, for a network that takes bands; None for
            those of its configuration.

    Returns:
        tuple: the model, and the path of its `.onnx` file.

    Raises:
        ExportError: `text` is none of these, or `out` is None for a model outside of the zoo.
        ModelError: the archive is damaged or unsafe, or the name is unknown.
        DownloadError: the model can't be downloaded.
    """
    path = Path(text)
    if path.suffix == ".onnx" and path.is_file():
        return _with_target(segrt_export.OnnxModel.open(path, config, bands), out, None)
    if config is not None:
        raise ConfigError(f"--config is for .onnx files, and {text} has its own configuration")
    if path.is_dir():
        return _with_target(PaddleModel.open(path, bands=bands), out, None)
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise ExportError(
                f"{path} is neither a folder with a Paddle inference model, nor a tar archive of"
                " one, nor an .onnx file"
            )
        name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix("_infer")
        return _with_target(_unpack(path, work, name, bands), out, _find_spec(name))
    if path.suffix in (".tar", ".gz", ".json", ".onnx", ".pdmodel") or "/" in text:
        raise ExportError(f"{path} does not exist")
    spec = zoo.get(text)
    if bands:
        raise ConfigError(f"--bands is for your own models, and {spec.name} takes pictures")
    if spec.bundled:
        raise ExportError(f"{spec.name} comes with segrt as an .onnx file and needs no export")
    if untrained:
        folder = build_untrained(spec.name, work / "untrained")
        return _with_target(PaddleModel.open(folder, name=spec.name), out, spec)
    return _with_target(_unpack(store.fetch(spec), work, spec.name), out, spec)


def _unpack(tar: Path, work: Path, name: str, bands: tuple[str, ...] | None = None) -> PaddleModel:
    archive.unpack(tar, work / "unpacked")
    return PaddleModel.open(archive.find_model_dir(work / "unpacked"), name=name, bands=bands)


def _find_spec(name: str) -> ModelSpec | None:
    try:
        return zoo.get(name)
    except ModelError:
        return None


def exported_file(text: str, out: Path | None, taken: dict[str, str]) -> tuple[Path, Path] | None:
    """Find a model that needs no export: an `.onnx` file of segrt-export, or a bundled model.

    Args:
        text: the argument of segrt-export.
        out: the output folder.
        taken: as in `distinct_target`.

    Returns:
        tuple: the file, and the path in `out` that its name suggests. None for other models.

    Raises:
        ExportError: another export of the call has that path.
    """
    file = Path(text)
    if file.suffix == ".onnx" and file.is_file():
        name = _stated_name(file)
    else:
        spec = None if file.exists() else _find_spec(text)
        name = spec.name if spec and spec.bundled else None
        file = package_data.path(spec.bundled) if spec and spec.bundled else file
    if name is None:
        return None
    target = (out or file.parent) / f"{store.folder_name(name)}.onnx"
    if _lower(target) in taken:
        raise ExportError(
            f"it would overwrite what is made of {taken[_lower(target)]}: export it to another"
            " output folder"
        )
    taken[_lower(target)] = text
    return file, target


def _stated_name(file: Path) -> str | None:
    """The model's name in an `.onnx` file of segrt-export; None for other files."""
    require("onnx", extra=EDGE)
    import onnx

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception:  # damaged: the error comes when it is opened as another's file
        return None
    text = {item.key: item.value for item in model.metadata_props}.get(KEY)
    return ModelMeta.loads(text, file=str(file)).name if text else None


def distinct_target(
    text: str, model: Source, file: Path, taken: dict[str, str]
) -> tuple[Source, Path]:
    """Choose a path that no other export of the call has, and add it to `taken`.

    PaddleX calls the folder of every trained model `inference`: the second one takes the name of
    its training run's folder.

    Args:
        text: the argument of segrt-export.
        model: the model.
        file: the path that its name suggests.
        taken: arguments of earlier exports, by the path of each in lower case.

    Returns:
        tuple: the model, with the name that its path has, and the path.

    Raises:
        ExportError: the model has no other name, or that is taken too.
    """
    has_folder = Path(text).is_dir() or Path(text).suffix == ".onnx"
    run_name = model.run_name if has_folder else ""
    named = file.with_name(f"{store.folder_name(run_name)}.onnx")
    owner = taken.get(_lower(file))
    if owner is not None:
        if not run_name or _lower(named) in taken:
            raise ExportError(
                f"it would overwrite {file}, the export of {owner}: rename its folder, or export it"
                " to another output folder"
            )
        model, file = replace(model, name=run_name), named
    taken[_lower(file)] = text
    return model, file


@contextmanager
def sealed(text: str, file: Path) -> Iterator[None]:
    """Renew the seal of a file in the cache folder that is written within the context.

    Example:
        >>> with sealed("PP-LiteSeg-T", file):
        ...     segrt_export.export(model, file)

    Args:
        text: the argument of segrt-export.
        file: the path of the export.
    """
    cached = file.is_relative_to(store.home() / "onnx")
    if cached:
        seals.path(file).unlink(missing_ok=True)
    yield
    if cached:
        spec = _find_spec(text)
        tar = store.archive_path(spec) if spec else None
        digest = sha256(tar) if tar else None
        seals.write(file, f"converted from {tar or text}", archive=digest)


def _lower(file: Path) -> str:
    # Many file systems ignore case.
    return str(file).casefold()


def _with_target(model: Source, out: Path | None, spec: ModelSpec | None) -> tuple[Source, Path]:
    if out is not None:
        return model, out / f"{store.folder_name(model.name)}.onnx"
    if spec is None:
        raise ExportError(
            f"{model.name} is not a model of the zoo: specify a folder for its .onnx file with -o"
        )
    return model, store.onnx_path(spec)
