"""Values shared by sources, results and video: one image, one failure, and the known suffixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segrt.errors import SegrtError

IMAGE_SUFFIXES = frozenset(
    {
        *(".bmp", ".dib", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
        *(".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes of image files that segrt reads and writes."""

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
    }
)
"""Suffixes of video files that segrt reads."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        image: uint8 (H, W, 3), BGR.
        input_path: path, URL or camera the image was read from; None for an array or bytes.
        page_index: zero-based index of a PDF page or of a TIFF, video or camera frame; None for
            other formats.
        time: seconds from the start of a video, animation or camera; None for other sources.
    """

    image: npt.NDArray[np.uint8]
    input_path: str | None
    page_index: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class SegFailure:
    """An input that could not be segmented. `predict` yields it with `on_error="yield"`.

    Example:
        >>> for result in pipeline.predict(paths, on_error="yield"):
        ...     if isinstance(result, segrt.SegFailure):
        ...         print(result.input_path, result.error)

    Attributes:
        input_path: path, URL or camera; None for an array or bytes.
        page_index: zero-based page or frame index; None for formats with a single image.
        error: the cause.
    """

    input_path: str | None
    page_index: int | None
    error: SegrtError
