"""From uint8 images to the network's input: the transforms of `inference.yml`.

Their order is that of PaddleX, whatever the order of the list: Resize, then Normalize. Images are
normalised directly into their batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segrt.errors import ModelError
from segrt.types import TargetSize, parse_target_size
from segrt.validation import first_problem

Three: TypeAlias = tuple[float, float, float]

# Interpolation names of `inference.yml`, as OpenCV flags.
INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "BICUBIC": cv2.INTER_CUBIC,  # PaddleX documents CUBIC but implements BICUBIC
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}

# Pixels split into channels at once: few enough to stay in the CPU cache for the table lookup.
_BAND = 1 << 17


class Normalize(BaseModel):
    """Normalise each channel as `(x * scale - mean) / std`.

    Example:
        >>> normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> out = np.empty((3, *image.shape[:2]), np.float32)
        >>> normalize.write(image, out)

    Attributes:
        scale: factor for the pixel values 0 to 255.
        mean: of R, G and B after scaling; a single number applies to all three.
        std: of R, G and B after scaling, not 0; a single number applies to all three.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = 1 / 255
    mean: Three = (0.5, 0.5, 0.5)
    std: Three = (0.5, 0.5, 0.5)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, value: object) -> object:
        return (value,) * 3 if isinstance(value, (int, float)) else value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: Three) -> Three:
        if 0 in value:
            raise ValueError("a standard deviation can't be 0")
        return value

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """Results by channel (R, G, B) and pixel value: float32 (3, 256), computed in float64."""
        mean, std = np.array([self.mean, self.std])[:, :, None]
        return np.asarray((np.arange(256) * self.scale - mean) / std, np.float32)

    def write(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Normalise one image into one slot of a batch.

        Args:
            image: uint8, shape (H, W, 3), BGR.
            out: float32, shape (3, H, W), C-contiguous; overwritten, RGB.

        Raises:
            ValueError: `out` is not such an array; OpenCV would silently write to another one.
        """
        height, width, channels = image.shape
        if (
            out.shape != (channels, height, width)
            or out.dtype != np.float32
            or not out.flags.c_contiguous
        ):
            raise ValueError(
                f"out must be C-contiguous float32 of shape {(channels, height, width)}, got "
                f"{out.dtype} {out.shape}"
            )
        step = _BAND // width + 1
        for top in range(0, height, step):
            rows = slice(top, top + step)
            for channel, plane in enumerate(reversed(cv2.split(image[rows]))):
                cv2.LUT(plane, self.table[channel], dst=out[channel, rows])


class Resize(BaseModel):
    """PaddleX's resize of an image before inference.

    Example:
        >>> Resize(target_size=512).size((1080, 1920))
        (288, 512)

    Attributes:
        target_size: -1 for no resize, N for N x N, or (height, width).
        keep_ratio: keep the aspect ratio and fit the longer side into the longer side of the
            target; if false, resize to exactly `target_size`.
        size_divisor: then round each side up to a multiple of this; None for no rounding.
        interp: a name in `INTERPOLATIONS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_size: int | tuple[int, int] = -1
    keep_ratio: bool = True
    size_divisor: int | None = Field(default=32, ge=0)
    interp: str = "LINEAR"

    @field_validator("target_size", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        return parse_target_size(value)

    @field_validator("interp")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.upper() not in INTERPOLATIONS:
            raise ValueError(f"use one of {', '.join(INTERPOLATIONS)}")
        return value.upper()

    def size(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width), at least 1, to which an image of `source_size` is resized."""
        if self.target_size == -1:
            return source_size
        target = (
            (self.target_size, self.target_size)
            if isinstance(self.target_size, int)
            else self.target_size
        )
        if self.keep_ratio:
            scale = min(max(target) / max(source_size), min(target) / min(source_size))
            target = max(round(source_size[0] * scale), 1), max(round(source_size[1] * scale), 1)
        step = self.size_divisor or 1
        return math.ceil(target[0] / step) * step, math.ceil(target[1] / step) * step


@dataclass(frozen=True)
class Transforms:
    """The preprocessing of a model, parsed from its `inference.yml`.

    Example:
        >>> transforms = Transforms.parse([{"type": "Normalize"}])
        >>> height, width = transforms.size(image.shape[:2], target_size=512)
        >>> batch = np.empty((1, 3, height, width), np.float32)
        >>> transforms.write(image, out=batch[0])

    Attributes:
        normalize: the normalisation; the identity if the model lists no Normalize.
        resize: the resize; None if the model lists no Resize.
    """

    normalize: Normalize
    resize: Resize | None = None

    @classmethod
    def parse(cls, transforms: Iterable[Mapping[str, Any]]) -> Transforms:
        """Parse the list `Deploy: transforms:` of `inference.yml`.

        Args:
            transforms: entries such as {"type": "Normalize", "mean": 0.5} or
                {"type": "Resize", "target_size": 512}. Defaults are those of PaddleX: see
                `Normalize` and `Resize`. As in PaddleX, a pair for `target_size` is
                **[width, height]** in the file.

        Raises:
            ModelError: a type or setting is unknown, or a value is invalid.
        """
        normalize, resize = Normalize(scale=1, mean=(0, 0, 0), std=(1, 1, 1)), None
        for entry in transforms:
            settings = dict(entry)
            kind = settings.pop("type", None)
            try:
                if kind == "Normalize":
                    normalize = Normalize(**settings)
                elif kind == "Resize":
                    if isinstance(settings.get("target_size"), (list, tuple)):
                        settings["target_size"] = settings["target_size"][::-1]
                    resize = Resize(**settings)
                else:
                    raise ModelError(
                        f"the model requires the transform {kind!r}: segrt has Normalize and Resize"
                    )
            except ValidationError as error:
                raise ModelError(
                    f"the model's transform {kind} is not valid ({first_problem(error)})"
                ) from None
        return cls(normalize, resize)

    def size(self, source_size: tuple[int, int], target_size: TargetSize = None) -> tuple[int, int]:
        """The inference size of an image.

        Args:
            source_size: (height, width) of the image.
            target_size: None for the model's own Resize, or the source size if it has none; -1 for
                the source size; N to fit inside N x N with the aspect ratio kept and each side
                rounded up to a multiple of 32, or according to `keep_ratio` and `size_divisor` of
                the model's own Resize; (height, width) for exactly that.

        Returns:
            (height, width), each at least 1.
        """
        if isinstance(target_size, tuple):
            return target_size
        rule = self.resize or Resize()
        return (
            rule if target_size is None else rule.model_copy(update={"target_size": target_size})
        ).size(source_size)

    def batch(
        self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Prepare a batch of images for the network.

        Args:
            images: uint8 (H, W, 3), BGR, of any sizes.
            size: inference size (height, width).

        Returns:
            np.ndarray: float32 (N, 3, height, width), RGB, normalised.
        """
        batch = np.empty((len(images), 3, *size), np.float32)
        for slot, image in zip(batch, images, strict=True):
            self.write(np.ascontiguousarray(image), out=slot)
        return batch

    def write(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Resize an image to the size of `out` and normalise it into `out`.

        Args:
            image: uint8, shape (H, W, 3), BGR.
            out: float32, shape (3, h, w), C-contiguous, such as one slot of a batch; overwritten,
                RGB.

        Raises:
            ValueError: `out` is not such an array.
        """
        self.normalize.write(self.fit(image, (out.shape[1], out.shape[2])), out)

    def fit(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Resize a uint8 image (H, W, 3) to (height, width) with the model's interpolation."""
        return resize(image, size, self.resize.interp if self.resize else "LINEAR")


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], interp: str = "LINEAR"
) -> NDArray[np.uint8]:
    """Resize an image with OpenCV.

    Example:
        >>> resize(np.zeros((1080, 1920, 3), np.uint8), (512, 1024), "AREA").shape
        (512, 1024, 3)

    Args:
        image: uint8, shape (H, W, 3).
        size: new (height, width).
        interp: a name in `INTERPOLATIONS`.

    Returns:
        np.ndarray: uint8, shape (height, width, 3); `image` itself if the size is the same.
    """
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[interp]))
