"""What the user names on the command line of segrt-export becomes a Paddle model and a place for its export."""

from __future__ import annotations

import tarfile
from pathlib import Path

from segrt import archive, store, zoo
from segrt.errors import ExportError, ModelError
from segrt.zoo import ModelSpec
from segrt_export.program import PaddleModel


def open_source(
    text: str, work: Path, out: Path | None, *, untrained: bool = False
) -> tuple[PaddleModel, Path]:
    """Find a Paddle model by folder, by archive, or by its name in the model zoo.

    Args:
        text: a folder with an inference model; a `.tar` as PaddleX publishes them; or a name, which is downloaded.
        work: a folder for what is unpacked or built; the caller removes it.
        out: folder of the export; None puts a model of the zoo where the runtime looks for it.
        untrained: build the named model with random weights instead of downloading it.

    Returns:
        tuple: the model, and the path that its `.onnx` file shall have.

    Raises:
        ExportError: it is none of these, or `out` is missing for a model that is not of the zoo.
        ModelError: the archive is damaged or hostile; the name is not known.
        DownloadError: it can't be downloaded.
    """
    path = Path(text)
    if path.is_dir():
        return _placed(PaddleModel.open(path), out, None)
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise ExportError(
                f"{path} is neither a folder with a Paddle inference model nor a tar of one"
            )
        name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix("_infer")
        return _placed(_unpacked(path, work, name), out, _known(name))
    if path.suffix in (".tar", ".gz", ".json", ".pdmodel") or "/" in text:
        raise ExportError(f"{path} does not exist")
    spec = zoo.get(text)
    if spec.bundled:
        raise ExportError(
            f"{spec.name} comes with segrt as an .onnx file: there is nothing to export"
        )
    if untrained:
        from segrt_export.untrained import build

        return _placed(
            PaddleModel.open(build(spec.name, work / "untrained"), name=spec.name), out, spec
        )
    return _placed(_unpacked(store.fetch(spec), work, spec.name), out, spec)


def _unpacked(tar: Path, work: Path, name: str) -> PaddleModel:
    archive.unpack(tar, work / "unpacked")
    return PaddleModel.open(archive.find_model_dir(work / "unpacked"), name=name)


def _known(name: str) -> ModelSpec | None:
    try:
        return zoo.get(name)
    except ModelError:
        return None


def _placed(
    model: PaddleModel, out: Path | None, spec: ModelSpec | None
) -> tuple[PaddleModel, Path]:
    if out is not None:
        return model, out / f"{store.folder_name(model.name)}.onnx"
    if spec is None:
        raise ExportError(
            f"{model.name} is not a model of the zoo: say with -o where its .onnx file shall go"
        )
    return model, store.onnx_path(spec)
