"""Values shared by sources, results and video: one image, and one failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from segrt.errors import SegrtError
from segrt.formats import GeoTags


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to segment.

    Attributes:
        image: uint8 (H, W, 3), BGR; or the bands of `bands`, uint8, uint16, int16 or float32
            (H, W, C).
        input_path: path, URL or camera the image was read from; None for an array or bytes.
        page_index: zero-based index of a PDF page or of a TIFF, video or camera frame; None for
            other formats.
        time: seconds from the start of a video, animation or camera; None for other sources.
        stem: the name under which its result is saved; None for one that follows from `input_path`
            and the images before it.
        bands: the names of the channels of `image`, in order; empty for a picture.
        geotags: where it is, if it is a page of a GeoTIFF; see `segrt.formats.GEOTAGS`.
    """

    image: npt.NDArray[Any]
    input_path: str | None
    page_index: int | None = None
    time: float | None = None
    stem: str | None = None
    bands: tuple[str, ...] = ()
    geotags: GeoTags | None = None


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
