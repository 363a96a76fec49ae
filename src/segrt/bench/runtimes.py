"""Other runtimes as contenders: Paddle Inference, ONNX Runtime and OpenVINO, as users call them.

Images are prepared by segrt's own preprocessing, so a ratio compares the runtimes rather than two
implementations of normalization. "Stock graph" is what paddle2onnx makes of the Paddle model, with
the network's own upsampling and argmax.
"""

from __future__ import annotations

import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import segrt_export
from segrt.bench.contender import Contender, Facts, Image, Labels, Steps
from segrt.errors import MissingExtraError, ModelError
from segrt.metadata import KEY, ModelMeta
from segrt.postprocess import finish, resize_labels
from segrt.preprocess import Layout, Transforms
from segrt.types import TargetSize

Batch = npt.NDArray[np.float32]


class Runtime(Contender):
    """Base class of contenders that run a network without segrt.

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
        meta: what the model needs and gives.
    """

    def __init__(self, images: Sequence[Path], size: TargetSize, meta: ModelMeta) -> None:
        super().__init__(images, size)
        self.class_names = meta.class_names
        self._meta = meta
        self._transforms = Transforms.parse(meta.transforms, resize_in=meta.resize_in)

    @abstractmethod
    def infer(self, batch: Batch) -> npt.NDArray[Any]:
        """Run one image, float32 (1, 3, h, w); returns labels (1, h, w), or what `meta` states."""

    def first_shape(self) -> tuple[int, ...]:
        """The shape of the batch with the first image."""
        height, width = self._images[0].shape[:2]
        return (1, 3, *self._transforms.size((height, width), self._size))

    def segment(self, image: Image, size: TargetSize) -> tuple[Labels, Steps]:
        """Segment one image."""
        start = perf_counter()
        layout = self._transforms.layout((image.shape[0], image.shape[1]), size)
        batch = self._transforms.batch([self._transforms.fit(image, layout)])
        prepared = perf_counter()
        output = self.infer(batch)
        ran = perf_counter()
        labels = self._finish(output, layout)
        end = perf_counter()
        times = (prepared - start, ran - prepared, end - ran, end - start)
        return labels, Steps(*(1000 * seconds for seconds in times))

    def _finish(self, output: npt.NDArray[Any], layout: Layout) -> Labels:
        if self._meta.output == "labels":  # by nearest neighbour, as in PaddleX
            labels: Labels = resize_labels(output, layout.source)[0]
            return labels
        return finish(output[0], self._meta, layout)[0]


class PaddleContender(Runtime):
    """A Paddle model on the CPU with oneDNN, from pixels to labels.

    Example:
        >>> contender = PaddleContender([Path("road.png")], None, Path("PP-LiteSeg-T"), threads=2)
        >>> contender.run(0).total
        97.5

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
        folder: a Paddle inference model; None if it is not available.
        threads: number of threads of Paddle's math library.

    Raises:
        MissingExtraError: paddlepaddle is not installed.
        ModelError: `folder` is None.
        ExportError: the folder contains no Paddle model.
    """

    def __init__(
        self, images: Sequence[Path], size: TargetSize, folder: Path | None, threads: int
    ) -> None:
        if folder is None:
            raise ModelError(
                "the Paddle model is not available: pass its folder, or run  "
                "segrt models fetch --download-only NAME"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it recommends installing ccache
                import paddle
        except ImportError as error:
            raise MissingExtraError(
                f"Paddle is not usable ({error}): run  pip install 'segrt[export]'"
            ) from None
        source = segrt_export.PaddleModel.open(folder)
        super().__init__(images, size, _with_labels(source.meta))
        start = perf_counter()
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            self._reference = segrt_export.PaddleReference(
                source, Path(work), threads=threads, logits=False
            )
        self._facts = Facts(
            f"Paddle Inference {paddle.__version__}",
            "fp32",
            perf_counter() - start,
            {"threads": threads},
            sum(file.stat().st_size for file in (source.program, source.params)),
        )

    def facts(self) -> Facts:
        """How the network runs."""
        return self._facts

    def infer(self, batch: Batch) -> npt.NDArray[Any]:
        """The network's labels."""
        return self._reference.run(batch)[0]


class OnnxRuntimeContender(Runtime):
    """The stock graph on ONNX Runtime's CPU provider, in float32.

    Example:
        >>> files = Path("stock.onnx"), Path("PP-LiteSeg-T")
        >>> contender = OnnxRuntimeContender([Path("road.png")], None, *files, threads=2)

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
        file: the graph as paddle2onnx writes it; None if it is not available.
        folder: the Paddle model it was converted from.
        threads: number of threads.

    Raises:
        ModelError: `file` is None.
    """

    def __init__(
        self,
        images: Sequence[Path],
        size: TargetSize,
        file: Path | None,
        folder: Path | None,
        threads: int,
    ) -> None:
        import onnxruntime as ort

        stock, meta = _stock(file, folder)
        super().__init__(images, size, meta)

        @lru_cache(maxsize=2)
        def session(shape: tuple[int, ...]) -> Any:
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            for name, length in zip(("N", "H", "W"), (shape[0], *shape[2:]), strict=True):
                options.add_free_dimension_override_by_name(name, length)
            return ort.InferenceSession(str(stock), options, providers=["CPUExecutionProvider"])

        self._session = session
        start = perf_counter()
        (provider,) = session(self.first_shape()).get_providers()
        self._facts = Facts(
            f"ONNX Runtime {ort.__version__} {provider}",
            "fp32",
            perf_counter() - start,
            {"threads": threads},
            stock.stat().st_size,
        )

    def facts(self) -> Facts:
        """How the network runs."""
        return self._facts

    def infer(self, batch: Batch) -> npt.NDArray[Any]:
        """The network's labels."""
        session = self._session(batch.shape)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


class OpenVinoContender(Runtime):
    """A graph on the package `openvino`, compiled for the size of each image.

    Threads and latency are what is set; the precision is the one OpenVINO chooses: bfloat16 where
    the CPU computes with it.

    Example:
        >>> files = Path("model.onnx"), None
        >>> contender = OpenVinoContender([Path("road.png")], None, *files, threads=2)

    Args:
        images: image files, used in rotation.
        size: inference size, as for `Pipeline.predict`.
        file: the stock graph, or one of segrt-export; None if it is not available.
        folder: the Paddle model that a stock graph was converted from; None for a graph of
            segrt-export, whose logits become labels in segrt's postprocessing.
        threads: number of threads.

    Raises:
        MissingExtraError: openvino is not installed.
        ModelError: `file` is None, or has no metadata of segrt-export.
    """

    def __init__(
        self,
        images: Sequence[Path],
        size: TargetSize,
        file: Path | None,
        folder: Path | None,
        threads: int,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError(
                f"OpenVINO is not usable ({error}): run  pip install openvino"
            ) from None
        graph, meta = _stock(file, folder) if folder or not file else (file, _read_meta(file))
        super().__init__(images, size, meta)
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}

        @lru_cache(maxsize=2)
        def compiled(shape: tuple[int, ...]) -> Any:
            model = core.read_model(str(graph))
            model.reshape(list(shape))
            return core.compile_model(model, "CPU", settings)

        self._compiled = compiled
        start = perf_counter()
        first = compiled(self.first_shape())
        load_s = perf_counter() - start
        precision = first.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._facts = Facts(
            f"OpenVINO {openvino.__version__.split('-')[0]}",
            {"f32": "fp32", "f16": "fp16"}.get(precision, precision),
            load_s,
            {"threads": first.get_property("INFERENCE_NUM_THREADS")},
            graph.stat().st_size,
        )

    def facts(self) -> Facts:
        """How the network runs, as reported by OpenVINO."""
        return self._facts

    def infer(self, batch: Batch) -> npt.NDArray[Any]:
        """The network's labels or logits."""
        results = self._compiled(batch.shape)(batch, share_inputs=True, share_outputs=True)
        return np.asarray(results[0])


def _with_labels(meta: ModelMeta) -> ModelMeta:
    """The metadata of a Paddle model or stock graph, which contain the argmax."""
    return meta.model_copy(update={"output": "labels"})


def _stock(file: Path | None, folder: Path | None) -> tuple[Path, ModelMeta]:
    if file is None or folder is None:
        raise ModelError(
            "the stock graph is not available, because it is converted from the Paddle model: pass "
            "the folder of that model"
        )
    return file, _with_labels(segrt_export.PaddleModel.open(folder).meta)


def _read_meta(file: Path) -> ModelMeta:
    # Reading metadata by ONNX Runtime would load a second OpenVINO into this process.
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    text = next((item.value for item in model.metadata_props if item.key == KEY), None)
    if text is None:
        raise ModelError(f"{file} has no metadata of segrt: convert it with segrt-export")
    return ModelMeta.loads(text, file=str(file))
