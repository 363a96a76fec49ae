"""Paddle Inference as the other side of a pair."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from segrt.bench.contender import Contender, Facts, Image, Labels, Steps
from segrt.errors import MissingExtraError, ModelError
from segrt.postprocess import resize_labels
from segrt.preprocess import Transforms
from segrt.types import TargetSize


class PaddleContender(Contender):
    """Runs a Paddle model on the CPU with oneDNN, from pixels to labels.

    The network's input is prepared by segrt's own front, so that a ratio compares the runtimes and not two ways of
    writing a normalisation. The network gives labels; they go to the image's size by nearest neighbour, as in PaddleX.

    Args:
        images: files to segment in turn.
        size: of inference.
        folder: a Paddle inference model; None where it is not here.
        threads: of Paddle's math library.

    Raises:
        MissingExtraError: paddlepaddle is not installed.
        ModelError: there is no folder.
        ExportError: the folder holds no Paddle model.
    """

    def __init__(
        self, images: Sequence[Path], size: TargetSize, folder: Path | None, threads: int
    ) -> None:
        super().__init__(images, size)
        if folder is None:
            raise ModelError(
                "its Paddle model is not here: name the folder that holds it, or fetch it"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it would like a compiler's cache
                import paddle

            from segrt_export.parity import PaddleReference
            from segrt_export.program import PaddleModel
        except ImportError as error:
            raise MissingExtraError(
                f"Paddle is not usable ({error}): run  pip install 'segrt[export]'"
            ) from None
        source = PaddleModel.open(folder)
        self.class_names = source.class_names
        self._transforms = Transforms.parse(list(source.transforms))
        start = perf_counter()
        with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
            self._reference = PaddleReference(source, Path(work), threads=threads, logits=False)
        load_s = perf_counter() - start
        self._facts = Facts(
            f"Paddle Inference {paddle.__version__}", "fp32", load_s, {"threads": threads}
        )

    def facts(self) -> Facts:
        """What runs the network."""
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
