"""The photos of a data set on which a model is worst."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segrt import encode
from segrt.accuracy import ConfusionMatrix
from segrt.datasets import Pair
from segrt.palette import distinct_palette

SHOWN = 12
"""Photos that are kept."""


@dataclass(frozen=True)
class Scored:
    """The score of one photo.

    Attributes:
        pair: the photo and its label file.
        miou: mean intersection over union over the classes of this photo, 0 to 1.
        labels: the labels found, as a PNG.
    """

    pair: Pair
    miou: float
    labels: bytes = field(repr=False)


class Worst:
    """Keeps the photos with the lowest mIoU.

    Example:
        >>> worst = Worst(classes=11, ignore_index=255)
        >>> worst.add(pair, labels, truth)
        >>> worst.photos[0].miou
        0.31

    Attributes:
        photos: at most `SHOWN`, the worst first.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self.photos: list[Scored] = []
        self._shape = classes, ignore_index

    def add(self, pair: Pair, labels: npt.NDArray[np.int32], truth: npt.NDArray[np.uint8]) -> None:
        """Score one photo; without a pixel that counts, it is left out."""
        matrix = ConfusionMatrix(*self._shape)
        matrix.add(labels, truth)
        if np.isnan(matrix.miou):
            return
        if len(self.photos) == SHOWN and matrix.miou >= self.photos[-1].miou:
            return
        png = encode.label_png(labels, distinct_palette(), self._shape[0])
        self.photos.append(Scored(pair, matrix.miou, png))
        self.photos.sort(key=lambda photo: photo.miou)
        del self.photos[SHOWN:]
