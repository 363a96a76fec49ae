"""Small value types. Strings such as "gpu:0", "-1" or "high-performance" are parsed only here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias, cast, get_args

from segrt.errors import ConfigError, DeviceError

DEVICE_KINDS = ("cpu", "gpu", "xpu", "npu", "mlu", "dcu", "gcu", "iluvatar_gpu", "metax_gpu")


class Mode(str, Enum):
    """How the backend is chosen.

    `normal` is FP32 on the most basic provider, `high-performance` is the fastest one available.

    Example:
        >>> Mode.parse("high-performance")
        <Mode.HIGH_PERFORMANCE: 'high-performance'>
    """

    NORMAL = "normal"
    HIGH_PERFORMANCE = "high-performance"

    @classmethod
    def parse(cls, value: str | Mode) -> Mode:
        """Parse "normal" or "high-performance".

        Raises:
            ConfigError: the value is neither.
        """
        try:
            return cls(value)
        except ValueError:
            raise ConfigError(
                f"unknown mode {shown(value)}: use one of {', '.join(m.value for m in cls)}"
            ) from None


@dataclass(frozen=True)
class Device:
    """A device as specified by the user.

    Example:
        >>> Device.parse("gpu:0,1")
        Device(kind='gpu', ids=(0, 1))

    Attributes:
        kind: one of `DEVICE_KINDS`.
        ids: device indices; empty for "cpu", at least one otherwise.
    """

    kind: str
    ids: tuple[int, ...] = ()

    @classmethod
    def parse(cls, value: str | Device) -> Device:
        """Parse "cpu", "gpu", "gpu:1" or "gpu:0,1".

        Raises:
            DeviceError: the kind is unknown, or an index is not a whole number.
        """
        if isinstance(value, Device):
            return value
        match = (
            re.fullmatch(r"([a-z_]+)(?::(\d{1,9}(?:,\d{1,9})*))?", value.strip().lower())
            if isinstance(value, str)
            else None
        )
        if match is None or match[1] not in DEVICE_KINDS or (match[1] == "cpu" and match[2]):
            raise DeviceError(
                f"unknown device {shown(value)}: use cpu, or one of {', '.join(DEVICE_KINDS[1:])} "
                "with optional indices, as in gpu:0 or gpu:0,1"
            )
        ids = tuple(dict.fromkeys(int(i) for i in match[2].split(","))) if match[2] else ()
        return cls(match[1], ids or (() if match[1] == "cpu" else (0,)))

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.ids))}" if self.ids else self.kind


def shown(value: object) -> str:
    """The repr of a value for an error message, shortened to 60 characters.

    Example:
        >>> shown(10**400)
        '1000000000000000000000000000...0000000000000000000000000000'
    """
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return f"a value of type {type(value).__name__} with thousands of digits"
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


SizeLike: TypeAlias = int | Sequence[int] | str | None
"""What `parse_target_size` takes."""

TargetSize: TypeAlias = int | tuple[int, int] | None
"""None: not set. -1: the size of the image. N: fit inside N x N. (height, width): exactly that."""

MAX_SIDE = 65_535
"""Maximum height or width of a target size, in pixels."""


def parse_target_size(value: object) -> TargetSize:
    """Parse a target size given as a number, a pair (height, width), or text.

    Example:
        >>> parse_target_size("512,1024"), parse_target_size("-1")
        ((512, 1024), -1)

    Args:
        value: int, pair of ints, str or None. Text may be `-1`, `512`, `512,256`, `(512,256)`,
            `[512, 256]` or `None`. A pair of -1 means -1.

    Returns:
        TargetSize: None, -1, a positive int, or a pair (height, width) of positive ints.

    Raises:
        ConfigError: the value is anything else.
    """
    parsed: object = value
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("none", "null", ""):
            return None
        numbers = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        if re.fullmatch(r"\s*-?\d{1,9}\s*(,\s*-?\d{1,9}\s*,?\s*)?", numbers):
            parsed = tuple(int(n) for n in numbers.split(",") if n.strip())
            parsed = parsed[0] if len(parsed) == 1 else parsed
    if (
        isinstance(parsed, (list, tuple))
        and len(parsed) == 2
        and all(type(n) is int for n in parsed)
    ):
        parsed = tuple(parsed)
        if parsed == (-1, -1):
            return -1
        if all(1 <= n <= MAX_SIDE for n in parsed):
            return cast("tuple[int, int]", parsed)
    if parsed is None or (type(parsed) is int and (parsed == -1 or 1 <= parsed <= MAX_SIDE)):
        return parsed
    raise ConfigError(
        f"target_size {shown(value)} is not valid: use -1 (the size of the image), one number N "
        f"(fit inside N x N), or a pair height,width; each from 1 to {MAX_SIDE}"
    )


def parse_size(text: str) -> tuple[int, int]:
    """Parse an exact inference size written as "HEIGHTxWIDTH".

    Example:
        >>> parse_size("512x1024")
        (512, 1024)

    Raises:
        ConfigError: any other text, or a side outside 1 to `MAX_SIDE`.
    """
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.strip().lower())
    size = parse_target_size((int(match[1]), int(match[2]))) if match else None
    if not isinstance(size, tuple):
        raise ConfigError(f"size {shown(text)} is not valid: give HEIGHTxWIDTH, as in 512x1024")
    return size


Color: TypeAlias = Literal["bgr", "rgb"]
"""The order of the colour channels of arrays."""


def parse_color(value: str) -> Color:
    """Check the order of colour channels.

    Raises:
        ConfigError: there is no such order.
    """
    if value not in get_args(Color):
        raise ConfigError(f"color {shown(value)} is not valid: use {' or '.join(get_args(Color))}")
    return cast("Color", value)


OnError: TypeAlias = Literal["raise", "skip", "yield"]
"""What to do about unreadable inputs: raise the error, skip them, or yield a `SegFailure`."""

LabelFormat: TypeAlias = Literal["list", "rle", "png"]
"""How labels are stored in JSON: nested list, COCO run lengths, or base64 PNG."""


def parse_label_format(value: str) -> LabelFormat:
    """Check a label format.

    Raises:
        ConfigError: there is no such format.
    """
    if value not in get_args(LabelFormat):
        raise ConfigError(
            f"label_format {shown(value)} is not valid: use {', '.join(get_args(LabelFormat))}"
        )
    return cast("LabelFormat", value)
