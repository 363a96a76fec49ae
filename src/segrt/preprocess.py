"""From images to the network's input: the transforms of PaddleX, PaddleSeg and others.

An image is resized and padded first and normalised last, directly into its batch: a normalisation
that comes earlier in the list gives the same values, see `Transforms.parse`.

An image is a picture, uint8 BGR, or the bands that a network takes instead: see `Transforms`.
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
from segrt.metadata import MAX_BANDS
from segrt.types import MAX_SIDE, TargetSize, parse_target_size, shown
from segrt.validation import did_you_mean, first_problem

Size: TypeAlias = tuple[int, int]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Numbers: TypeAlias = Annotated[tuple[Number, ...], Field(min_length=1, max_length=MAX_BANDS)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Pixels: TypeAlias = NDArray[Any]
"""An image, uint8 or float32, (H, W, 3), BGR; or (H, W), grey; or the bands of `Transforms`."""

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
        to_rgb: whether the channels of the input are R, G, B rather than B, G, R. Without meaning
            for bands, whose order the model's `bands` state.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Number = 1 / 255
    mean: Numbers = (0.5, 0.5, 0.5)
    std: Numbers = (0.5, 0.5, 0.5)
    to_rgb: Flag = True

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, value: object) -> object:
        return value if isinstance(value, (list, tuple)) else _repeated(value, 3)

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: float) -> float:
        if value == 0:
            raise ValueError("a scale of 0 removes the image")
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in value:
            raise ValueError("a standard deviation can't be 0")
        return value

    @model_validator(mode="after")
    def _as_many(self) -> Normalize:
        if len(self.mean) != len(self.std):
            raise ValueError(f"there are {len(self.mean)} means for {len(self.std)} deviations")
        return self

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """Results by channel and pixel value: float32 (C, 256), computed in float64."""
        mean, std = np.array([self.mean, self.std])[:, :, None]
        return np.asarray((np.arange(256) * self.scale - mean) / std, np.float32)

    def write(self, image: Pixels, out: NDArray[np.float32]) -> None:
        """Normalise one image into one slot of a batch.

        uint8 goes through a table computed in float64, other integers are computed in float64, and
        float32 in float32.

        Args:
            image: uint8 or float32, shape (H, W, 3), BGR, or (H, W), grey; or bands, uint8, uint16,
                int16 or float32, (H, W, C).
            out: float32, shape (C, H, W), C-contiguous; overwritten, with the channels in reverse
                order, which is RGB, unless `to_rgb` is false.

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
            part = image[rows]
            planes = cv2.split(part) if shape[0] <= 4 else np.moveaxis(part, 2, 0)
            for channel, plane in enumerate(planes[::-1] if self.to_rgb else planes):
                if image.dtype == np.uint8:
                    cv2.LUT(plane, self.table[channel], dst=out[channel, rows])
                else:
                    mean, std = self.mean[channel], self.std[channel]
                    values = plane if plane.dtype == np.float32 else plane.astype(np.float64)
                    out[channel, rows] = (values * self.scale - mean) / std


def _repeated(value: object, count: int) -> object:
    """A number, or a list of one number, for each of `count` channels; other values as they are."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,) * count
    if isinstance(value, (list, tuple)):
        return tuple(value) * (count if len(value) == 1 else 1)
    return value


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

    def apply(self, image: Pixels, size: Size, *, bands: bool = False) -> Pixels:
        """Resize an image to `size`; if its channels are `bands`, each of them alone."""
        if not bands:
            return resize(image, size, self.interp)
        # OpenCV's AREA takes at most four channels, and Pillow takes four for R, G, B and alpha.
        planes = [np.ascontiguousarray(image[:, :, band]) for band in range(image.shape[2])]
        return np.stack([resize(plane, size, self.interp) for plane in planes], axis=2)


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
    """A transform that pads at the right and at the bottom, with a value for each channel."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    im_padding_value: Numbers = (127.5, 127.5, 127.5)
    label_padding_value: int = 255  # only for training

    @field_validator("im_padding_value", mode="before")
    @classmethod
    def _three(cls, value: object) -> object:
        return value if isinstance(value, (list, tuple)) else _repeated(value, 3)

    def size(self, source_size: Size) -> Size:
        """The (height, width) after padding."""
        raise AssertionError("defined by each transform")

    def apply(self, image: Pixels, size: Size, *, bands: bool = False) -> Pixels:
        """Pad an image to `size`; as float32 if its type can't represent a value.

        The values are those of R, G, B and the image is BGR, unless it has `bands`.
        """
        height, width = image.shape[:2]
        # A grey image has only the first of OpenCV's four values, which is that of blue.
        value = np.asarray(self.im_padding_value[:: 1 if bands else -1])
        if image.dtype.kind in "iu":
            low, high = np.iinfo(image.dtype).min, np.iinfo(image.dtype).max
            if not ((value == np.rint(value)) & (low <= value) & (value <= high)).all():
                image = image.astype(np.float32)
        padded = np.empty((*size, *image.shape[2:]), image.dtype)
        padded[:height, :width] = image
        padded[height:] = padded[:height, width:] = value if image.ndim == 3 else value[0]
        return padded


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

_BY_CHANNEL = {"Normalize": ("mean", "std")} | {
    name: ("im_padding_value",) for name, step in STEPS.items() if issubclass(step, _Padding)
}
"""The settings with a number for each channel, by transform."""


def _stated_channels(transforms: Sequence[Mapping[str, Any]]) -> int:
    """The number of channels for which transforms have values; 3 if they do not say."""
    for entry in transforms:
        for key in _BY_CHANNEL.get(str(entry.get("type")), ()):
            value = entry.get(key)
            if isinstance(value, (list, tuple)) and len(value) > 1:
                return len(value)
    return 3


def _by_channel(
    kind: str, settings: Mapping[str, Any], count: int, are_bands: bool
) -> dict[str, object]:
    """The settings of a transform that have a number for each channel.

    Raises:
        ValueError: one of bands is missing, or has another number of values.
    """
    found: dict[str, object] = {}
    for key in _BY_CHANNEL.get(kind, ()):
        if key not in settings:
            if are_bands or count != 3:
                raise ValueError(f"{key} is missing: give a number, or one for each band")
            continue
        value = found[key] = _repeated(settings[key], count)
        if isinstance(value, tuple) and len(value) != count:
            raise ValueError(f"{key}: give 1 or {count} numbers, not {len(value)}")
    if kind == "Normalize" and are_bands and isinstance(settings.get("to_rgb", True), bool):
        found["to_rgb"] = False
    return found


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

    Most networks take pictures: uint8, and grey or three colours. Others take bands, such as R, G,
    B and near infrared from the air. Their values are used as they are, in their own type: uint8,
    uint16, int16 or float32. Each step treats each band alone: they are resized in that type, and
    normalised as in `Normalize.write`.

    Example:
        >>> transforms = Transforms.parse([{"type": "Normalize"}])
        >>> layout = transforms.layout(image.shape[:2], target_size=512)
        >>> batch = transforms.batch([transforms.fit(image, layout)])

    Attributes:
        normalize: the normalisation; the identity if the model lists no Normalize.
        steps: what changes the size, in order.
        resize_in: type of the image in these steps; see `segrt.metadata.ModelMeta`.
        channels: of the network's input: 3, 1 for a grey image, or the number of bands.
        fixed: the only (height, width) that the network takes; None where it takes any.
        bands: the names of the channels, in order; empty if the network takes pictures.
    """

    normalize: Normalize
    steps: tuple[Step, ...] = ()
    resize_in: Literal["uint8", "float32"] = "uint8"
    channels: int = 3
    fixed: tuple[int | None, int | None] = (None, None)
    bands: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        transforms: Iterable[Mapping[str, Any]],
        *,
        resize_in: Literal["uint8", "float32"] = "uint8",
        bands: Sequence[str] | None = (),
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
            bands: the names of the input's channels, if they are not those of a picture. There are
                no defaults for bands: Normalize requires `mean` and `std`, and what pads
                `im_padding_value`, with one number or one for each band, and `to_rgb` is ignored.
                None if it is not known whether there are bands: then the number of values in a list
                is not checked.

        Raises:
            ModelError: a type or setting is unknown, or a value is invalid.
        """
        transforms = list(transforms)
        count = _stated_channels(transforms) if bands is None else len(bands) or 3
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
                settings |= _by_channel(str(kind), settings, count, bool(bands))
                if kind == "Normalize":
                    normalize = Normalize(**settings)
                    continue
                if isinstance(settings.get("target_size"), (list, tuple)):
                    settings["target_size"] = settings["target_size"][::-1]
                step = STEPS[str(kind)](**settings)
            except (ValidationError, TypeError, ValueError) as error:
                problem = first_problem(error) if isinstance(error, ValidationError) else error
                raise ModelError(f"the model's transform {kind} is not valid ({problem})") from None
            if normalize and isinstance(step, _Padding):
                triples = zip(step.im_padding_value, normalize.mean, normalize.std, strict=True)
                value = tuple((v * std + mean) / normalize.scale for v, mean, std in triples)
                step = step.model_copy(update={"im_padding_value": value})
            steps.append(step)
        normalize = normalize or Normalize(
            scale=1, mean=(0,) * count, std=(1,) * count, to_rgb=not bands
        )
        dtype = resize_in if steps else "uint8"
        return cls(normalize, tuple(steps), dtype, count, bands=tuple(bands or ()))

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

    def fit(self, image: Pixels, layout: Layout) -> Pixels:
        """Resize and pad an image.

        Args:
            image: uint8 (H, W, 3), BGR; or bands, uint8, uint16, int16 or float32 (H, W, C).
            layout: as returned by `layout` for the size of the image.

        Returns:
            np.ndarray: uint8 or float32 (h, w, 3), BGR, or (h, w) for a grey input, or bands
                (h, w, C) in the type of the image or float32; the image itself if nothing changes.
        """
        fitted = image
        if self.channels == 1 and not self.bands:
            fitted = cv2.cvtColor(np.ascontiguousarray(fitted), cv2.COLOR_BGR2GRAY)
        if self.resize_in == "float32" and layout.steps:
            fitted = fitted.astype(np.float32)
        for step, size in layout.steps:
            fitted = step.apply(fitted, size, bands=bool(self.bands))
        return fitted

    def write(self, image: Pixels, out: NDArray[np.float32]) -> None:
        """Resize an image to exactly the size of `out`, and normalise it into `out`.

        Args:
            image: as in `fit`.
            out: float32, shape (C, h, w), C-contiguous, such as one slot of a batch;
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
            np.ndarray: float32 (N, C, height, width).
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
        image: uint8 or float32, shape (H, W, 3) or (H, W); uint8 for Pillow; or one band, uint16 or
            int16 (H, W).
        size: new (height, width).
        interp: a name in `INTERPOLATIONS` or `PILLOW`.

    Returns:
        np.ndarray: of the same type and channels, but float32 for other types than uint8 resized by
            Pillow; `image` itself if the size is the same.
    """
    if image.shape[:2] == size:
        return image
    if interp in PILLOW:  # each channel separately, so BGR is fine
        image = image if image.dtype == np.uint8 else image.astype(np.float32)
        return np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[interp]))
    return np.asarray(cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[interp]))
