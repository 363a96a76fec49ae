"""Reads cameras frame by frame, with OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segrt.errors import InputError


def properties(index: int) -> tuple[int, int, float]:
    """The width, the height and the frame rate a camera states; 0 for what it does not.

    Raises:
        InputError: it can't be opened.
    """
    with _opened(index) as capture:
        keys = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS
        width, height, rate = (capture.get(key) for key in keys)
    return int(width), int(height), float(rate)


def read(index: int) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Read a camera until the caller stops.

    Yields:
        Seconds since the first frame, and the frame: uint8 (H, W, 3), BGR.

    Raises:
        InputError: it can't be opened, or gives no more frames.
    """
    count, start = 0, 0.0
    with _opened(index) as capture:
        while True:
            found, frame = capture.read()
            now = time.monotonic()
            if not found:
                raise InputError(f"camera {index} gave no more frames after {count}")
            start = start if count else now
            count += 1
            yield now - start, np.asarray(frame, np.uint8)


@contextmanager
def _opened(index: int) -> Iterator[Any]:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(index, cv2.CAP_ANY)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            raise InputError(
                f"camera {index} can't be opened: is it connected, and not in use by another "
                "program?"
            )
        yield capture
    finally:
        capture.release()
