from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segrt.accuracy import ConfusionMatrix

IGNORED = 9
Labels = npt.NDArray[np.int32]


def _naive(
    classes: int, images: list[tuple[Labels, Labels]]
) -> tuple[list[list[int]], list[float], float]:
    """Counts, IoU and pixel accuracy, pixel by pixel."""
    counts = [[0] * classes for _ in range(classes)]
    for labels, truth in images:
        for y, x in product(range(truth.shape[0]), range(truth.shape[1])):
            if truth[y, x] != IGNORED:
                counts[truth[y, x]][labels[y, x]] += 1
    iou = []
    for c in range(classes):
        union = sum(counts[c]) + sum(row[c] for row in counts) - counts[c][c]
        iou.append(counts[c][c] / union if union else float("nan"))
    total = sum(map(sum, counts))
    return counts, iou, sum(counts[c][c] for c in range(classes)) / total if total else float("nan")


@st.composite
def _images(draw: st.DrawFn) -> tuple[int, list[tuple[Labels, Labels]]]:
    classes = draw(st.integers(1, 5))
    predicted, true = st.integers(0, classes - 1), st.sampled_from([*range(classes), IGNORED])
    images = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
        images.append(tuple(draw(arrays(np.int32, shape, elements=e)) for e in (predicted, true)))
    return classes, images  # type: ignore[return-value]


@given(_images())
def test_like_counting_pixel_by_pixel(case: tuple[int, list[tuple[Labels, Labels]]]) -> None:
    classes, images = case
    matrix = ConfusionMatrix(classes, IGNORED)
    for labels, truth in images:
        matrix.add(labels, truth)
    counts, iou, accuracy = _naive(classes, images)
    assert matrix.counts.tolist() == counts
    np.testing.assert_allclose(matrix.iou, iou)
    np.testing.assert_allclose(matrix.pixel_accuracy, accuracy)
    known = [value for value in iou if value == value]
    np.testing.assert_allclose(matrix.miou, np.mean(known) if known else np.nan)


@pytest.mark.parametrize(
    ("labels", "truth", "words"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), "don't fit"),
        (np.zeros((1, 1)), np.full((1, 1), 7), "label 7 is none of 3 classes"),
        (np.full((1, 1), 3), np.zeros((1, 1)), "predicted class 3"),
    ],
)
def test_refuses_what_is_no_class(labels: Any, truth: Any, words: str) -> None:
    matrix = ConfusionMatrix(3, 255)
    with pytest.raises(ValueError, match=words):
        matrix.add(labels.astype(np.int32), truth.astype(np.uint8))
    assert matrix.counts.sum() == 0
