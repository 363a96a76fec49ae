"""Accuracy from one confusion matrix over all pixels of a data set, in constant memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class ConfusionMatrix:
    """Pixel counts by true and predicted class.

    Example:
        >>> matrix = ConfusionMatrix(classes=2, ignore_index=255)
        >>> matrix.add(np.array([[0, 1, 1]]), np.array([[0, 1, 255]]))
        >>> matrix.miou
        1.0

    Attributes:
        counts: int64 (classes, classes); rows are true classes, columns predicted classes.
        ignore_index: true label of the pixels to ignore.
        ignored: how many pixels had this label.
    """

    def __init__(self, classes: int, ignore_index: int) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self.ignore_index = ignore_index
        self.ignored = 0

    def add(self, labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> None:
        """Count the pixels of one image.

        Args:
            labels: predicted class ids, integers (H, W).
            truth: true class ids or `ignore_index`, integers of the same shape.

        Raises:
            ValueError: the shapes differ, or a label is neither a class id nor `ignore_index`.
        """
        if labels.shape != truth.shape:
            raise ValueError(
                f"labels of shape {truth.shape} don't fit an image of shape {labels.shape}"
            )
        classes = len(self.counts)
        counted = truth != self.ignore_index
        true, predicted = truth[counted].astype(np.int64), labels[counted].astype(np.int64)
        for what, ids in (("label", true), ("predicted class", predicted)):
            if ids.size and (ids.min() < 0 or ids.max() >= classes):
                wrong = ids[(ids < 0) | (ids >= classes)][0]
                raise ValueError(
                    f"{what} {wrong} is none of {classes} classes, nor the label to ignore, "
                    f"{self.ignore_index}: set the label to ignore with --ignore-index"
                )
        pairs = np.bincount(classes * true + predicted, minlength=classes**2)
        self.ignored += int(counted.size - np.count_nonzero(counted))
        self.counts += pairs.reshape(classes, classes)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, 0 to 1; NaN for a class that occurs nowhere."""
        intersection = self.counts.diagonal()
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN if no pixel was counted."""
        iou = self.iou
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of pixels assigned their true class; NaN if no pixel was counted."""
        total = self.counts.sum()
        return float(self.counts.trace() / total) if total else float("nan")
