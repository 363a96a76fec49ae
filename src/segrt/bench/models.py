"""What is named on the command line becomes files: an `.onnx` file, and the Paddle model that it was made from."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from segrt import __version__, archive, store, zoo
from segrt.bench.worker import Worker
from segrt.errors import MissingExtraError, ModelError
from segrt.zoo import ModelSpec


@dataclass(frozen=True)
class BenchModel:
    """One model to measure.

    Attributes:
        name: as in the zoo, or that of the file.
        onnx: the file that runs; None where there is none, and the row says why.
        paddle: folder of the Paddle model that it was made from; None where that is not here.
        spec: its entry in the zoo, with the published figures; None for a file of the user's.
        untrained: whether it is a twin with random weights: good for times, not for accuracy.
        build_s: seconds that building the twin took, when it was built.
        export_s: seconds that its conversion to ONNX and the comparison with Paddle took.
    """

    name: str
    onnx: Path | None = None
    paddle: Path | None = None
    spec: ModelSpec | None = None
    untrained: bool = False
    build_s: float | None = None
    export_s: float | None = None

    @property
    def weights(self) -> str:
        """The word for the rows of a table."""
        return "untrained" if self.untrained else "trained"


def find(text: str, *, untrained: bool = False, paddle: bool = False) -> BenchModel:
    """Find a model, or make its untrained twin.

    Args:
        text: a name of the zoo, an `.onnx` file, or a folder with one or with a Paddle model.
        untrained: take a twin where the weights of a named model are not here. Twins are kept in the cache folder.
        paddle: whether the Paddle model is wanted too.

    Raises:
        ModelError: the model is unknown or not here; the message says how to get it.
        MissingExtraError: building or converting it needs the export extra.
        ExportError: it can't be converted.
    """
    path = Path(text)
    if path.suffix == ".onnx" or path.is_dir():
        return _own(path)
    spec = zoo.get(text)
    if untrained and store.locate(spec) is None:
        return _twin(spec)
    folder = _unpacked(spec) if paddle and store.archive_path(spec) else None
    return BenchModel(spec.name, store.require(spec), folder, spec)


def _own(path: Path) -> BenchModel:
    if not path.exists():
        raise ModelError(f"model file {path} does not exist")
    is_paddle = path.is_dir() and any(path.glob("*.pdiparams"))
    with Worker(_Maker) as maker:  # Paddle stays out of this process
        onnx = maker.call("locate", path)
    return BenchModel(
        path.resolve().stem if path.is_file() else path.resolve().name,
        onnx,
        path if is_paddle else None,
    )


def _twin(spec: ModelSpec) -> BenchModel:
    def make(folder: Path) -> None:
        with Worker(_Maker) as maker:
            maker.call("twin", spec.name, spec.class_names, folder)

    folder = _kept(store.folder_name(spec.name), make)
    built = json.loads((folder / "built.json").read_text("utf-8"))
    return BenchModel(
        spec.name, folder / "model.onnx", folder / "paddle", spec, untrained=True, **built
    )


def _unpacked(spec: ModelSpec) -> Path:
    tar = store.archive_path(spec)
    assert tar is not None
    return archive.find_model_dir(
        _kept(
            f"{store.folder_name(spec.name)}-official", lambda folder: archive.unpack(tar, folder)
        )
    )


def _kept(name: str, make: Callable[[Path], object]) -> Path:
    """A folder below `<cache>/bench/<version>`, made when it is missing; it appears only when it is whole."""
    folder = store.home() / "bench" / __version__ / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as work:
            make(Path(work) / "made")
            try:
                os.rename(Path(work) / "made", folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
    return folder


class _Maker:
    """Lives in a `Worker`, and silences it: Paddle and its converter print pages. Errors come back as exceptions."""

    def __init__(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)

    def locate(self, path: Path) -> Path:
        from segrt.pipeline import _model_file

        return _model_file(None, path)

    def twin(self, name: str, class_names: tuple[str, ...], folder: Path) -> None:
        from PIL import Image

        try:
            from segrt_export.export import export
            from segrt_export.parity import SAMPLE
            from segrt_export.program import PaddleModel
            from segrt_export.untrained import build

            folder.mkdir()
            start = perf_counter()
            build(name, folder / "paddle", class_names=class_names)
        except ImportError as error:
            raise MissingExtraError(
                f"building an untrained model needs the export extra: {error}"
            ) from None
        built = perf_counter()
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            small = Path(work) / "sample.png"
            with Image.open(SAMPLE) as image:
                # The size of the other case that export compares: Paddle's oneDNN can go wrong when the size changes.
                image.resize((480, 352)).save(small)
            export(
                PaddleModel.open(folder / "paddle", name=name),
                folder / "model.onnx",
                images=[small],
                sizes=(),
            )
        times = {"build_s": round(built - start, 2), "export_s": round(perf_counter() - built, 2)}
        (folder / "built.json").write_text(json.dumps(times), "utf-8")
