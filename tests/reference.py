"""PaddleSeg's postprocessing in naive float64: full-size logits, argmax, nearest neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def upsample(
    logits: NDArray[Any], size: tuple[int, int], align_corners: bool
) -> NDArray[np.float64]:
    """Bilinear interpolation of (N, C, h, w) to (N, C, H, W), ignoring corners of weight 0."""
    values = logits.astype(np.float64)
    for axis, full in ((2, size[0]), (3, size[1])):
        low, i = values.shape[axis], np.arange(full)
        at = (
            i * (low - 1) / max(full - 1, 1)
            if align_corners
            else np.maximum(((2 * i + 1) * low / full - 1) / 2, 0)
        )
        # Weights that should be 0 must be exactly 0.
        at = np.where(np.abs(at - at.round()) < 1e-9, at.round(), at)
        before = np.minimum(np.floor(at).astype(int), low - 1)
        after = np.minimum(before + 1, low - 1)
        weight = np.where(after > before, at - before, 0)
        weight = weight[:, None] if axis == 2 else weight
        a, b = values.take(before, axis=axis), values.take(after, axis=axis)
        with np.errstate(invalid="ignore"):
            values = np.where(weight == 0, a, (1 - weight) * a + weight * b)
    return values


def nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """OpenCV's nearest neighbour for the last two axes: (..., H, W) to (..., Hs, Ws)."""
    indices = np.arange(image.shape[-2] * image.shape[-1], dtype=np.int32).reshape(image.shape[-2:])
    sample = cv2.resize(indices, size[::-1], interpolation=cv2.INTER_NEAREST).reshape(size)
    flat: NDArray[Any] = image.reshape(*image.shape[:-2], -1)
    return flat[..., sample]


def slide_logits(
    infer: Callable[[slice, slice], NDArray[Any]],
    size: tuple[int, int],
    crop: tuple[int, int],
    stride: tuple[int, int],
) -> NDArray[np.float64]:
    """PaddleSeg's `slide_inference`: the mean of the logits (C, h, w) of all crops at full size."""
    total: NDArray[np.float64] | None = None
    count = np.zeros(size)
    rows, cols = (
        1 if full <= part else int(np.ceil((full - part) / step)) + 1
        for full, part, step in zip(size, crop, stride, strict=True)
    )
    for row in range(rows):
        for col in range(cols):
            bottom, right = (
                min(row * stride[0] + crop[0], size[0]),
                min(col * stride[1] + crop[1], size[1]),
            )
            box = slice(max(bottom - crop[0], 0), bottom), slice(max(right - crop[1], 0), right)
            logits = infer(*box)
            if total is None:
                total = np.zeros((len(logits), *size))
            total[(slice(None), *box)] += logits
            count[box] += 1
    assert total is not None
    return total / count
