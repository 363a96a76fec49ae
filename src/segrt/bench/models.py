"""From a command-line argument to an `.onnx` file and the Paddle model it was exported from."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from PIL import Image

import segrt
import segrt_export
from segrt import archive, model_file, package_data, store, zoo
from segrt.bench.worker import Worker
from segrt.errors import ModelError
from segrt.names import is_url, short_stem
from segrt.zoo import ModelSpec


@dataclass(frozen=True)
class BenchModel:
    """One model to measure.

    Attributes:
        name: name in the model zoo, or the name of the file or folder.
        onnx: the model file; None if there is none.
        paddle: folder of the Paddle model it was exported from; None if that is not available.
        spec: its entry in the model zoo, with the published figures; None for other models.
        untrained: whether the weights are random: speed is meaningful, accuracy is not.
        build_s: seconds it took to build the untrained model; None for other models.
        export_s: seconds it took to convert it to ONNX and compare it with Paddle.
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
        """ "trained" or "untrained"."""
        return "untrained" if self.untrained else "trained"


def find(text: str, *, untrained: bool = False, paddle: bool = False) -> BenchModel:
    """Find a model, or build an untrained one.

    Example:
        >>> find("PP-LiteSeg-T_camvid").weights
        'trained'

    Args:
        text: a name in the model zoo, an `.onnx` file or its URL, or a folder with an `.onnx` file
            or a Paddle inference model. Named models and URLs are downloaded on first use.
        untrained: if the weights of a model in the zoo are not downloaded, build its architecture
            with random weights. The result is kept in the cache folder.
        paddle: whether the Paddle model is required too.

    Raises:
        ModelError: the model is unknown or not available; the message says how to get it.
        MissingExtraError: a package that building or converting it requires is not installed.
        ExportError: it can't be converted.
        DownloadError: it can't be downloaded.
    """
    if is_url(text):
        return BenchModel(short_stem(text), model_file.resolve(path=text))
    path = Path(text)
    if path.suffix == ".onnx" or path.is_dir():
        return _local(path)
    spec = zoo.get(text)
    if untrained and store.locate(spec) is None:
        return _untrained(spec)
    file = model_file.resolve(spec.name)
    folder = _unpacked(spec) if paddle and store.archive_path(spec) else None
    return BenchModel(spec.name, file, folder, spec)


def _local(path: Path) -> BenchModel:
    if not path.exists():
        raise ModelError(f"model file {path} does not exist")
    is_paddle = path.is_dir() and any(path.glob("*.pdiparams"))
    with Worker(_Builder) as builder:  # keeps Paddle out of this process
        onnx = builder.call("resolve", path)
    return BenchModel(
        path.resolve().stem if path.is_file() else path.resolve().name,
        onnx,
        path if is_paddle else None,
    )


def _untrained(spec: ModelSpec) -> BenchModel:
    def make(folder: Path) -> None:
        with Worker(_Builder) as builder:
            builder.call("build", spec.name, spec.class_names, folder)

    folder = _cached(store.folder_name(spec.name), make)
    built = json.loads((folder / "built.json").read_text("utf-8"))
    return BenchModel(
        spec.name, folder / "model.onnx", folder / "paddle", spec, untrained=True, **built
    )


def _unpacked(spec: ModelSpec) -> Path:
    tar = store.archive_path(spec)
    assert tar is not None
    return archive.find_model_dir(
        _cached(
            f"{store.folder_name(spec.name)}-official", lambda folder: archive.unpack(tar, folder)
        )
    )


def _cached(name: str, make: Callable[[Path], object]) -> Path:
    """A folder in `<cache>/bench/<version>`; `make` creates it on first use, all or nothing."""
    folder = store.home() / "bench" / segrt.__version__ / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as work:
            make(Path(work) / "made")
            try:
                os.rename(Path(work) / "made", folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was faster
                    raise
    return folder


class _Builder:
    """Converts and builds models in a `Worker`; discards what Paddle and its converter print."""

    def __init__(self) -> None:
        devnull = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(devnull, descriptor)

    def resolve(self, path: Path) -> Path:
        """Find the `.onnx` file of a path, converting a Paddle model if necessary."""
        return model_file.resolve(path=path)

    def build(self, name: str, class_names: tuple[str, ...], folder: Path) -> None:
        """Build an untrained model as `folder/paddle`, and convert it to `folder/model.onnx`."""
        folder.mkdir()
        start = perf_counter()
        segrt_export.build_untrained(name, folder / "paddle", class_names=class_names)
        built = perf_counter()
        self._export(name, folder)
        times = {"build_s": round(built - start, 2), "export_s": round(perf_counter() - built, 2)}
        (folder / "built.json").write_text(json.dumps(times), "utf-8")

    def _export(self, name: str, folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            image_file = Path(work) / "sample.png"
            with Image.open(package_data.path(package_data.SAMPLE)) as image:
                # The size of the other case in the parity check: a change of size can make
                # Paddle's oneDNN return wrong labels.
                image.resize((480, 352)).save(image_file)
            segrt_export.export(
                segrt_export.PaddleModel.open(folder / "paddle", name=name),
                folder / "model.onnx",
                images=[image_file],
                sizes=(),
            )
