"""Reads videos and cameras frame by frame, with OpenCV and the FFmpeg bundled in its wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segrt.errors import InputError, TooLargeError
from segrt.formats import VIDEO_SUFFIXES

HEAD = 400
"""Number of bytes that `is_video` needs."""

FRAME_RATE = 25.0
"""Frame rate of videos and cameras that don't state theirs."""

_IMAGE_BRANDS = (
    *(b"avif", b"avis", b"heic", b"heim", b"heis"),
    *(b"heix", b"hevc", b"hevx", b"mif1", b"msf1"),
)
_MAGIC = (
    b"\x1aE\xdf\xa3",
    b"\0\0\1\xba",
    b"\0\0\1\xb3",
    b"FLV\1",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"OggS",
)


@dataclass(frozen=True)
class Clip:
    """The properties a video states.

    Attributes:
        width: pixels.
        height: pixels.
        frame_rate: frames per second.
        length: number of frames, which some formats only estimate; None if unknown, as for a
            camera.
    """

    width: int
    height: int
    frame_rate: float
    length: int | None


def is_video(head: bytes) -> bool:
    """Whether a file is a video (MP4, MOV, AVI, Matroska, WebM, MPEG, ...), given its first bytes.

    FFmpeg itself would also accept playlists, which can refer to other files and hosts.

    Args:
        head: at least the first `HEAD` bytes of the file.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free"):
        return not (head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS)
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    # .ts packets, and .m2ts packets, which start with a time stamp
    stream = any(head[at : at + 377 : 188] == b"GGG" for at in (0, 4))
    return stream or head.startswith(_MAGIC)


def camera_index(source: object) -> int | None:
    """The index of a camera given as 0 or "camera:0"; None for any other source."""
    if type(source) is int and 0 <= source <= 9999:
        return source
    pattern = r"camera:(\d{1,4})"
    match = re.fullmatch(pattern, source.lower()) if isinstance(source, str) else None
    return int(match[1]) if match else None


def is_video_name(source: str) -> bool:
    """Whether this text is a camera or a file name with the suffix of a video."""
    return camera_index(source) is not None or Path(source).suffix.lower() in VIDEO_SUFFIXES


def probe(source: str | int) -> Clip:
    """Read the properties of a video without decoding it.

    Args:
        source: a file, or the index of a camera.

    Raises:
        InputError: it can't be opened.
    """
    with _opened(source, upright=True) as capture:
        return _clip(capture)


def read(
    source: str | int, *, upright: bool = True, max_pixels: int | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode a video frame by frame: uint8 (H, W, 3), BGR.

    Args:
        source: a file, or the index of a camera, which never ends on its own.
        upright: whether to rotate frames as the video specifies.
        max_pixels: maximum number of pixels of a frame; None for no limit.

    Raises:
        InputError: it can't be opened, it has no frames, or it is truncated.
        TooLargeError: its frames have more than `max_pixels`.
    """
    count = 0
    with _opened(source, upright) as capture:
        clip = _clip(capture)
        _check_size(clip.width, clip.height, max_pixels)
        while True:
            found, frame = capture.read()
            if not found:
                break
            _check_size(frame.shape[1], frame.shape[0], max_pixels)  # it may change
            count += 1
            yield np.asarray(frame, np.uint8)
    if isinstance(source, int):
        raise InputError(f"camera {source} gave no more frames after {count}")
    if not count:
        raise InputError("this video holds no frame that can be decoded")
    if clip.length and count < 0.95 * clip.length:  # some formats only estimate their length
        raise InputError(f"this video breaks off after {count} of {clip.length} frames: damaged?")


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise TooLargeError(
            f"a video of {width} x {height} has more than {max_pixels:,} pixels a frame"
        )


@contextmanager
def _opened(source: str | int, upright: bool) -> Iterator[Any]:
    # Keep FFmpeg from printing its own messages in addition to our errors.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if isinstance(source, str):
        try:
            with open(source, "rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise InputError(f"it can't be read: {error.strerror}") from None
        if not is_video(head):
            raise InputError("this is not a video of a known format")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        backend = cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG
        capture = cv2.VideoCapture(source, backend)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            if isinstance(source, int):
                raise InputError(
                    f"camera {source} can't be opened: is it connected, and not in use by another "
                    "program?"
                )
            raise InputError(
                "this video can't be read: it is damaged, or OpenCV has no decoder for it"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, int(upright))
        yield capture
    finally:
        capture.release()


def _clip(capture: Any) -> Clip:
    keys = (
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_FRAME_COUNT,
    )
    width, height, rate, length = (capture.get(key) for key in keys)
    known = 1 <= length < 1e9
    frame_rate = rate if 0.01 <= rate <= 1000 else FRAME_RATE
    return Clip(int(width), int(height), frame_rate, int(length) if known else None)
