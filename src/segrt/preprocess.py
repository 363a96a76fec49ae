"""From uint8 images to the network's input: the transforms of PaddleX, PaddleSeg and others.

An image is resized and padded first and normalised last, directly into its batch: a normalisation
that comes earlier in the list gives the same values, see `Transforms.parse`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segrt.errors import InputError, ModelError
from segrt.types import MAX_SIDE, TargetSize, parse_target_size, shown
from segrt.validation import did_you_mean, first_problem

Size: TypeAlias = tuple[int, int]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Three: TypeAlias = tuple[Number, Number, Number]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Pixels: TypeAlias = NDArray[Any]
"""An image, uint8 or float32, (H, W, 3), BGR; or (H, W), grey."""

# Interpolation names of `inference.yml`, as OpenCV flags.
INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "BICUBIC": cv2.INTER_CUBIC,  # PaddleX documents CUBIC but implements BICUBIC
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}

# Pillow's, for networks from transformers: unlike OpenCV's, they average when they reduce an image.
PILLOW = {
    "PILLOW_NEAREST": Image.Resampling.NEAREST,
    "PILLOW_LANCZOS": Image.Resampling.LANCZOS,
    "PILLOW_BILINEAR": Image.Resampling.BILINEAR,
    "PILLOW_BICUBIC": Image.Resampling.BICUBIC,
    "PILLOW_BOX": Image.Resampling.BOX,
    "PILLOW_HAMMING": Image.Resampling.HAMMING,
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
        mean: of each channel of the input after scaling; a single number applies to all three.
        std: likewise; not 0.
        to_rgb: whether the channels of the input are R, G, B rather than B, G, R.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Number = 1 / 255
    mean: Three = (0.5, 0.5, 0.5)
    std: Three = (0.5, 0.5, 0.5)
    to_rgb: Flag = True

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, value: object) -> object:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return (value,) * 3
        if isinstance(value, (list, tuple)):
            if len(value) not in (1, 3):
                raise ValueError(f"give 1 or 3 numbers, not {len(value)}")
            return tuple(value) * (3 // len(value))
        return value

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: float) -> float:
        if value == 0:
            raise ValueError("a scale of 0 removes the image")
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: Three) -> Three:
        if 0 in value:
            raise ValueError("a standard deviation can't be 0")
        return value

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """Results by channel and pixel value: float32 (3, 256), computed in float64."""
        mean, std = np.array([self.mean, self.std])[:, :, None]
        return np.asarray((np.arange(256) * self.scale - mean) / std, np.float32)

    def write(self, image: Pixels, out: NDArray[np.float32]) -> None:
        """Normalise one image into one slot of a batch.

        Args:
            image: uint8 or float32, shape (H, W, 3), BGR, or (H, W), grey.
            out: float32, shape (3 or 1, H, W), C-contiguous; overwritten, RGB unless `to_rgb` is
                false.

        Raises:
            ValueError: `out` is not such an array; OpenCV would silently write to another one.
        """
        height, width = image.shape[:2]
        shape = (image.shape[2] if image.ndim == 3 else 1, height, width)
        if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(
                f"out must be C-contiguous float32 of shape {shape}, got {out.dtype} {out.shape}"
            )
        step = _BAND // width + 1
        for top in range(0, height, step):
            rows = slice(top, top + step)
            planes = cv2.split(image[rows])
            for channel, plane in enumerate(reversed(planes) if self.to_rgb else planes):
                if image.dtype == np.uint8:
                    cv2.LUT(plane, self.table[channel], dst=out[channel, rows])
                else:
                    mean, std = self.mean[channel], self.std[channel]
                    out[channel, rows] = (plane * self.scale - mean) / std


class _Resizing(BaseModel):
    """A transform that resizes: its subclasses define the new size."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    interp: str = "LINEAR"

    @field_validator("interp")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.upper() not in (*INTERPOLATIONS, *PILLOW):
            raise ValueError(
                f"use one of {', '.join((*INTERPOLATIONS, *PILLOW))}, not {shown(value)}"
            )
        return value.upper()

    def size(self, source_size: Size) -> Size:
        """The (height, width), at least 1, to which an image of `source_size` is resized."""
        raise AssertionError("defined by each transform")

    def apply(self, image: Pixels, size: Size) -> Pixels:
        """Resize an image to `size`."""
        return resize(image, size, self.interp)


def _scaled(size: Size, scale: float) -> Size:
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


class Resize(_Resizing):
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

    target_size: int | tuple[int, int] = -1
    keep_ratio: Flag = True
    size_divisor: Annotated[int, Field(ge=0, le=MAX_SIDE, strict=True)] | None = 32

    @field_validator("target_size", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        size = parse_target_size(value)
        return (size, size) if isinstance(size, int) and size != -1 else size

    def size(self, source_size: Size) -> Size:
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


class ResizeByLong(_Resizing):
    """PaddleSeg's resize of the longer side to `long_size`, with the aspect ratio kept."""

    long_size: Side

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        return _scaled(source_size, self.long_size / max(source_size))


class ResizeByShort(_Resizing):
    """PaddleSeg's resize of the shorter side to `short_size`; the other is at most `max_size`.

    Attributes:
        short_size: the shorter side afterwards.
        max_size: limit on the longer side, which takes precedence.
        rounding: of the longer side: "nearest", or "down" as in transformers.
    """

    short_size: Side
    max_size: Annotated[float, Field(ge=1)] = 1e10
    rounding: Literal["nearest", "down"] = "nearest"

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        short, long = min(source_size), max(source_size)
        target = self.short_size
        if self.rounding == "down":
            longer = int(target * long / short)
            if longer > self.max_size:
                target, longer = int(self.max_size * target / longer), int(self.max_size)
            sides = max(target, 1), max(longer, 1)
            return sides if source_size[0] <= source_size[1] else sides[::-1]
        if target / short * long > self.max_size:
            target = max(int(self.max_size / long * short), 1)
        return _scaled(source_size, target / short)


class LimitLong(_Resizing):
    """PaddleSeg's limits on the longer side; sizes within them stay."""

    max_long: Side | None = None
    min_long: Side | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LimitLong:
        _check_order("long", self.min_long, self.max_long)
        return self

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        return _limited(source_size, max(source_size), self.min_long, self.max_long)


class LimitShort(_Resizing):
    """PaddleSeg's limits on the shorter side; sizes within them stay."""

    max_short: Side | None = None
    min_short: Side | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LimitShort:
        _check_order("short", self.min_short, self.max_short)
        return self

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        return _limited(source_size, min(source_size), self.min_short, self.max_short)


def _check_order(side: str, least: int | None, most: int | None) -> None:
    if least and most and least > most:
        raise ValueError(f"min_{side} {least} is above max_{side} {most}")


def _limited(size: Size, side: int, least: int | None, most: int | None) -> Size:
    target = most if most and side > most else least if least and side < least else side
    return size if target == side else _scaled(size, target / side)


class ResizeRangeScaling(_Resizing):
    """PaddleSeg's resize of the longer side to a random size; the range must be a single size."""

    min_value: Side = 400
    max_value: Side = 600

    @model_validator(mode="after")
    def _single(self) -> ResizeRangeScaling:
        if self.min_value != self.max_value:
            raise ValueError(
                f"it picks a random size from {self.min_value} to {self.max_value}, which is for "
                "training: use ResizeByLong"
            )
        return self

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        return _scaled(source_size, self.max_value / max(source_size))


class ResizeToMultiple(_Resizing):
    """Round each side up to a multiple of `size_divisor`."""

    size_divisor: Side = 32

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        step = self.size_divisor
        return math.ceil(source_size[0] / step) * step, math.ceil(source_size[1] / step) * step


class _Padding(BaseModel):
    """A transform that pads at the right and at the bottom, with a value from 0 to 255."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    im_padding_value: Three = (127.5, 127.5, 127.5)
    label_padding_value: int = 255  # only for training

    @field_validator("im_padding_value", mode="before")
    @classmethod
    def _three(cls, value: object) -> object:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return (value,) * 3
        return value

    def size(self, source_size: Size) -> Size:
        """The (height, width) after padding."""
        raise AssertionError("defined by each transform")

    def apply(self, image: Pixels, size: Size) -> Pixels:
        """Pad an image to `size`; as float32 if the value is not a whole number."""
        height, width = image.shape[:2]
        value = self.im_padding_value[::-1]  # BGR
        if not all(v.is_integer() and 0 <= v <= 255 for v in map(float, value)):
            image = image.astype(np.float32)
        below, right = size[0] - height, size[1] - width
        return np.asarray(
            cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)
        )


class Padding(_Padding):
    """PaddleSeg's padding to `target_size`, (height, width); larger images are an error."""

    target_size: tuple[Side, Side]

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        if source_size[0] > self.target_size[0] or source_size[1] > self.target_size[1]:
            raise InputError(
                f"the image of {source_size[0]} x {source_size[1]} is larger than the "
                f"{self.target_size[0]} x {self.target_size[1]} that the model's Padding makes: "
                "set target_size"
            )
        return self.target_size


class PaddingByAspectRatio(_Padding):
    """PaddleSeg's padding to the aspect ratio `aspect_ratio`, width / height."""

    aspect_ratio: Annotated[float, Field(ge=1e-3, le=1e3)] = 1

    def size(self, source_size: Size) -> Size:
        """The (height, width) of an image of `source_size` after this step."""
        height, width = source_size
        ratio = width / height
        if ratio > self.aspect_ratio:
            height = int(width / self.aspect_ratio)
        elif ratio < self.aspect_ratio:
            width = int(height * self.aspect_ratio)
        return max(height, source_size[0]), max(width, source_size[1])


Step: TypeAlias = _Resizing | _Padding

STEPS: dict[str, type[_Resizing] | type[_Padding]] = {
    step.__name__: step
    for step in (
        Resize,
        ResizeByLong,
        ResizeByShort,
        LimitLong,
        LimitShort,
        ResizeRangeScaling,
        ResizeToMultiple,
        Padding,
        PaddingByAspectRatio,
    )
}
"""The transforms that change the size of an image, by name."""


class Layout(NamedTuple):
    """How an image gets to its inference size.

    Attributes:
        source: (height, width) of the image.
        steps: each step that changes the size, with the (height, width) after it.
    """

    source: Size
    steps: tuple[tuple[Step, Size], ...] = ()

    @property
    def size(self) -> Size:
        """The inference size (height, width)."""
        return self.steps[-1][1] if self.steps else self.source

    @property
    def is_plain(self) -> bool:
        """Whether the image is resized at most once, and not padded."""
        return len(self.steps) <= 1 and all(isinstance(step, _Resizing) for step, _ in self.steps)


@dataclass(frozen=True)
class Transforms:
    """The preprocessing of a model.

    Example:
        >>> transforms = Transforms.parse([{"type": "Normalize"}])
        >>> layout = transforms.layout(image.shape[:2], target_size=512)
        >>> batch = transforms.batch([transforms.fit(image, layout)])

    Attributes:
        normalize: the normalisation; the identity if the model lists no Normalize.
        steps: what changes the size, in order.
        resize_in: type of the image in these steps; see `segrt.metadata.ModelMeta`.
        channels: of the network's input: 3, or 1 for a grey image.
        fixed: the only (height, width) that the network takes; None where it takes any.
    """

    normalize: Normalize
    steps: tuple[Step, ...] = ()
    resize_in: Literal["uint8", "float32"] = "uint8"
    channels: int = 3
    fixed: tuple[int | None, int | None] = (None, None)

    @classmethod
    def parse(
        cls,
        transforms: Iterable[Mapping[str, Any]],
        *,
        resize_in: Literal["uint8", "float32"] = "uint8",
    ) -> Transforms:
        """Parse the list `Deploy: transforms:` of `inference.yml`.

        A Normalize may precede steps that resize or pad: interpolation of normalised values and
        normalisation of interpolated values are the same, and padding is converted.

        Args:
            transforms: entries such as {"type": "Normalize", "mean": 0.5} or
                {"type": "Resize", "target_size": 512}. Defaults are those of PaddleX: see
                `Normalize` and `Resize`. As in PaddleX, a pair for `target_size` is
                **[width, height]** in the file.
            resize_in: see `segrt.metadata.ModelMeta`.

        Raises:
            ModelError: a type or setting is unknown, or a value is invalid.
        """
        normalize: Normalize | None = None
        steps: list[Step] = []
        for entry in transforms:
            settings = dict(entry)
            kind = settings.pop("type", None)
            if not isinstance(kind, str) or (kind not in STEPS and kind != "Normalize"):
                known = ["Normalize", *STEPS]
                raise ModelError(
                    f"the model requires the transform {shown(kind)}{did_you_mean(kind, known)}: "
                    f"segrt has {', '.join(known)}"
                )
            if kind == "Normalize" and normalize:
                raise ModelError("the model lists the transform Normalize twice")
            try:
                if kind == "Normalize":
                    normalize = Normalize(**settings)
                    continue
                if isinstance(settings.get("target_size"), (list, tuple)):
                    settings["target_size"] = settings["target_size"][::-1]
                step = STEPS[str(kind)](**settings)
            except (ValidationError, TypeError) as error:
                problem = first_problem(error) if isinstance(error, ValidationError) else error
                raise ModelError(f"the model's transform {kind} is not valid ({problem})") from None
            if normalize and isinstance(step, _Padding):
                triples = zip(step.im_padding_value, normalize.mean, normalize.std, strict=True)
                value = tuple((v * std + mean) / normalize.scale for v, mean, std in triples)
                step = step.model_copy(update={"im_padding_value": value})
            steps.append(step)
        identity = Normalize(scale=1, mean=(0, 0, 0), std=(1, 1, 1))
        return cls(normalize or identity, tuple(steps), resize_in if steps else "uint8")

    def size(self, source_size: Size, target_size: TargetSize = None) -> Size:
        """The inference size of an image; see `layout`."""
        return self.layout(source_size, target_size).size

    def layout(
        self, source_size: Size, target_size: TargetSize = None, *, in_crops: bool = False
    ) -> Layout:
        """How an image of a size gets to its inference size.

        Args:
            source_size: (height, width) of the image.
            target_size: None for the model's own steps, or the source size if it has none; -1 for
                the source size; N to fit inside N x N with the aspect ratio kept and each side
                rounded up to a multiple of 32, or according to `keep_ratio` and `size_divisor` of
                the model's own Resize; (height, width) for exactly that. Anything but None replaces
                all of the model's own steps.
            in_crops: whether the network runs on crops, so that `fixed` does not apply.

        Raises:
            InputError: the model's own steps refuse this size.
        """
        rule = next((step for step in self.steps if isinstance(step, Resize)), None)
        steps: tuple[Step, ...] = self.steps
        if isinstance(target_size, tuple):
            steps = (self._resize(keep_ratio=False, size_divisor=None, target_size=target_size),)
        elif target_size is not None:
            rule = rule or self._resize()
            steps = (rule.model_copy(update={"target_size": target_size}),)
        size, done = source_size, list[tuple[Step, Size]]()
        if not in_crops and any(self.fixed):
            own = target_size is None and self._ends_at_fixed(source_size)
            if not own:
                exact = self.fixed[0] or size[0], self.fixed[1] or size[1]
                steps = (self._resize(keep_ratio=False, size_divisor=None, target_size=exact),)
        for step in steps:
            after = step.size(size)
            if after != size:
                done.append((step, after))
            size = after
        return Layout(source_size, tuple(done))

    def _resize(self, **settings: Any) -> Resize:
        """A Resize with the interpolation of the model's own steps."""
        own = (step.interp for step in self.steps if isinstance(step, _Resizing))
        return Resize(interp=next(own, "LINEAR"), **settings)

    def _ends_at_fixed(self, size: Size) -> bool:
        for step in self.steps:
            try:
                size = step.size(size)
            except InputError:
                return False
        return all(want in (None, got) for want, got in zip(self.fixed, size, strict=True))

    def fit(self, image: NDArray[np.uint8], layout: Layout) -> Pixels:
        """Resize and pad an image.

        Args:
            image: uint8 (H, W, 3), BGR.
            layout: as returned by `layout` for the size of the image.

        Returns:
            np.ndarray: uint8 or float32 (h, w, 3), BGR, or (h, w) for a grey input; the image
                itself if nothing changes.
        """
        fitted: Pixels = image
        if self.channels == 1:
            fitted = cv2.cvtColor(np.ascontiguousarray(fitted), cv2.COLOR_BGR2GRAY)
        if self.resize_in == "float32" and layout.steps:
            fitted = fitted.astype(np.float32)
        for step, size in layout.steps:
            fitted = step.apply(fitted, size)
        return fitted

    def write(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Resize an image to exactly the size of `out`, and normalise it into `out`.

        Args:
            image: uint8, shape (H, W, 3), BGR.
            out: float32, shape (3 or 1, h, w), C-contiguous, such as one slot of a batch;
                overwritten.

        Raises:
            ValueError: `out` is not such an array.
        """
        source = image.shape[0], image.shape[1]
        layout = self.layout(source, (out.shape[1], out.shape[2]))
        self.normalize.write(np.ascontiguousarray(self.fit(image, layout)), out)

    def batch(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Normalise images of one size, as returned by `fit`, into a batch for the network.

        Returns:
            np.ndarray: float32 (N, 3 or 1, height, width).
        """
        batch = np.empty((len(images), self.channels, *images[0].shape[:2]), np.float32)
        for slot, image in zip(batch, images, strict=True):
            self.normalize.write(np.ascontiguousarray(image), slot)
        return batch


def resize(image: Pixels, size: Size, interp: str = "LINEAR") -> Pixels:
    """Resize an image with OpenCV or Pillow.

    Example:
        >>> resize(np.zeros((1080, 1920, 3), np.uint8), (512, 1024), "AREA").shape
        (512, 1024, 3)

    Args:
        image: uint8 or float32, shape (H, W, 3) or (H, W); uint8 for Pillow.
        size: new (height, width).
        interp: a name in `INTERPOLATIONS` or `PILLOW`.

    Returns:
        np.ndarray: of the same type and channels; `image` itself if the size is the same.
    """
    if image.shape[:2] == size:
        return image
    if interp in PILLOW:  # each channel separately, so BGR is fine
        return np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[interp]))
    return np.asarray(cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[interp]))
