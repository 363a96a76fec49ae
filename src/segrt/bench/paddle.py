"""Paddle Inference as a contender."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

import segrt_export
from segrt.bench.contender import Contender, Facts, Image, Labels, Steps
from segrt.errors import MissingExtraError, ModelError
from segrt.postprocess import resize_labels
from segrt.preprocess import Transforms
from segrt.types import TargetSize


class PaddleContender(Contender):
    """A Paddle model on the CPU with oneDNN, from pixels to labels.

    The input is prepared by segrt's own preprocessing, so a ratio compares the runtimes rather than
    two implementations of normalization. The network outputs labels, which are resized to the
    source image by nearest neighbour, as in PaddleX.

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
        super().__init__(images, size)
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
        self.class_names = source.class_names
        self._transforms = Transforms.parse(list(source.transforms))
        start = perf_counter()
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            self._reference = segrt_export.PaddleReference(
                source, Path(work), threads=threads, logits=False
            )
        load_s = perf_counter() - start
        self._facts = Facts(
            f"Paddle Inference {paddle.__version__}", "fp32", load_s, {"threads": threads}
        )

    def facts(self) -> Facts:
        """How the network runs."""
        return self._facts

    def segment(self, image: Image) -> tuple[Labels, Steps]:
        """Segment one image."""
        start = perf_counter()
        size = self._transforms.size((image.shape[0], image.shape[1]), self._size)
        batch = np.empty((1, 3, *size), np.float32)
        self._transforms.write(image, out=batch[0])
        prepared = perf_counter()
        labels = self._reference.run(batch)[0]
        ran = perf_counter()
        labels = resize_labels(labels, (image.shape[0], image.shape[1]))
        end = perf_counter()
        times = (prepared - start, ran - prepared, end - ran, end - start)
        return labels[0], Steps(*(1000 * seconds for seconds in times))
