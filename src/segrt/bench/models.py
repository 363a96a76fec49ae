"""From a command-line argument to an `.onnx` file and the Paddle model it was exported from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from PIL import Image

import segrt
import segrt_export
from segrt import archive, model_file, package_data, store, zoo
from segrt.bench.worker import Worker
from segrt.datasets import Pair, Truth
from segrt.errors import ModelError
from segrt.names import is_url, short_stem
from segrt.sources import read_image
from segrt.zoo import ModelSpec


@dataclass(frozen=True)
class BenchModel:
    """One model to measure.

    Attributes:
        name: name in the model zoo, or the name of the file or folder.
        onnx: the model file; None if there is none.
        paddle: folder of the Paddle model it was exported from; None if that is not available.
        stock: what paddle2onnx makes of the Paddle model, without segrt's passes; None if that is
            not available, or not wanted.
        int8: the quantized model; None if there is none.
        spec: its entry in the model zoo, with the published figures; None for other models.
        untrained: whether the weights are random: speed is meaningful, accuracy is not.
        fitted: whether the weights are random except for the last layer, which is fitted to photos.
        build_s: seconds it took to build the untrained model; None for other models.
        export_s: seconds it took to convert it to ONNX and compare it with Paddle.
    """

    name: str
    onnx: Path | None = None
    paddle: Path | None = None
    stock: Path | None = None
    int8: Path | None = None
    spec: ModelSpec | None = None
    untrained: bool = False
    fitted: bool = False
    build_s: float | None = None
    export_s: float | None = None

    @property
    def weights(self) -> str:
        """ "trained", "fitted twin" or "untrained"."""
        return "untrained" if self.untrained else "fitted twin" if self.fitted else "trained"


@dataclass(frozen=True)
class Wanted:
    """What a measurement needs of each model besides the `.onnx` file.

    Attributes:
        untrained: if the weights of a model in the zoo are not downloaded, build its architecture
            with random weights. The result is kept in the cache folder.
        photos: labelled photos to fit the last layer of such a model to; it is then a fitted twin.
        truth: how to read their labels.
        paddle: whether the Paddle model is required too.
        stock: whether paddle2onnx's own conversion is required too.
        int8: folder with a quantized model `<name>.onnx` for some of the models.
    """

    untrained: bool = False
    photos: Sequence[Pair] = field(default=(), repr=False)
    truth: Truth = field(default_factory=Truth)
    paddle: bool = False
    stock: bool = False
    int8: Path | None = None


def find(text: str, wanted: Wanted = Wanted()) -> BenchModel:
    """Find a model, or build an untrained one.

    Example:
        >>> find("PP-LiteSeg-T_camvid").weights
        'trained'

    Args:
        text: a name in the model zoo, an `.onnx` file or its URL, or a folder with an `.onnx` file
            or a Paddle inference model. Named models and URLs are downloaded on first use.
        wanted: what else to find or build.

    Raises:
        ModelError: the model is unknown or not available; the message says how to get it.
        MissingExtraError: a package that building or converting it requires is not installed.
        ExportError: it can't be converted.
        DownloadError: it can't be downloaded.
    """
    model = _find(text, wanted)
    stock = _stock(model.paddle) if wanted.stock and model.paddle else None
    int8 = wanted.int8 / f"{store.folder_name(model.name)}.onnx" if wanted.int8 else None
    return replace(model, stock=stock, int8=int8 if int8 and int8.is_file() else None)


def _find(text: str, wanted: Wanted) -> BenchModel:
    if is_url(text):
        return BenchModel(short_stem(text), model_file.resolve(path=text))
    path = Path(text)
    if path.suffix == ".onnx" or path.is_dir():
        return _local(path)
    spec = zoo.get(text)
    if wanted.untrained and store.locate(spec) is None:
        return _untrained(spec, wanted)
    file = model_file.resolve(spec.name)
    paddle = wanted.paddle or wanted.stock
    folder = _unpacked(spec) if paddle and store.archive_path(spec) else None
    return BenchModel(spec.name, file, folder, spec=spec)


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


def _untrained(spec: ModelSpec, wanted: Wanted) -> BenchModel:
    def make(folder: Path) -> None:
        with Worker(_Builder) as builder:
            builder.call("build", spec, folder, wanted)

    name = store.folder_name(spec.name)
    folder = _cached(f"{name}-fitted-{_digest(wanted)}" if wanted.photos else name, make)
    built = json.loads((folder / "built.json").read_text("utf-8"))
    fitted = bool(wanted.photos)
    return BenchModel(
        spec.name,
        folder / "model.onnx",
        folder / "paddle",
        spec=spec,
        untrained=not fitted,
        fitted=fitted,
        **built,
    )


def _digest(wanted: Wanted) -> str:
    """A name for the photos that a network is fitted to, from their content."""
    digest = hashlib.sha256(repr(wanted.truth).encode())
    for pair in wanted.photos:
        digest.update(pair.image.read_bytes())
        digest.update(pair.label.read_bytes())
    return digest.hexdigest()[:12]


def _stock(paddle: Path) -> Path:
    """The file that paddle2onnx makes of a Paddle model."""
    source = segrt_export.PaddleModel.open(paddle)
    digest = hashlib.sha256(json.dumps(source.sha256(), sort_keys=True).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        with Worker(_Builder) as builder:
            builder.call("convert", paddle, folder)

    return _cached(f"stock-{digest}", make) / "model.onnx"


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

    def convert(self, paddle: Path, folder: Path) -> None:
        """Write `folder/model.onnx`, the Paddle model as paddle2onnx converts it."""
        folder.mkdir()
        segrt_export.export_stock(segrt_export.PaddleModel.open(paddle), folder / "model.onnx")

    def build(self, spec: ModelSpec, folder: Path, wanted: Wanted) -> None:
        """Build an untrained model as `folder/paddle`, and convert it to `folder/model.onnx`."""
        photos = [(read_image(pair.image), wanted.truth.read(pair.label)) for pair in wanted.photos]
        folder.mkdir()
        start = perf_counter()
        segrt_export.build_untrained(
            spec.name, folder / "paddle", class_names=spec.class_names, photos=photos
        )
        built = perf_counter()
        self._export(spec.name, folder)
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
