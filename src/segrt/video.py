"""Videos and cameras: frames in, and an overlay video out. OpenCV, with the FFmpeg in its wheel, does both."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError, InputError, SegrtError
from segrt.files import replacing
from segrt.result import SegFailure, file_name

if TYPE_CHECKING:
    from segrt.pipeline import Pipeline

log = logging.getLogger("segrt")

SUFFIXES = frozenset(
    [".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"]
)
WRITTEN = (".mp4", ".m4v", ".mov", ".mkv", ".avi")
"""Suffixes that an overlay video can have."""
CODEC = "mp4v"
"""MPEG-4 Part 2: of the encoders in OpenCV's wheel, which has no H.264, the one that is fast and that all of `WRITTEN`
hold. VP9, which browsers would play, takes 50 times as long."""
HEAD = 400
"""Bytes that `is_video` needs."""
FRAME_RATE = 25.0
"""Taken where a video or a camera does not tell its own."""

_AHEAD = 4  # results that wait for the encoder at most
_IMAGE_BRANDS = (
    b"avif",
    b"avis",
    b"heic",
    b"heim",
    b"heis",
    b"heix",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
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
    """What a video says of itself.

    Attributes:
        width: pixels.
        height: pixels.
        frame_rate: frames a second.
        length: frames; some formats only estimate it. None where it is not known, as of a camera.
    """

    width: int
    height: int
    frame_rate: float
    length: int | None


def is_video(head: bytes) -> bool:
    """Whether a file whose first `HEAD` bytes are these is a video: MP4, MOV, AVI, Matroska, WebM, MPEG, ...

    FFmpeg itself would also take playlists, which name other files and hosts to open.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free"):
        return not (head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS)
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    stream = any(
        head[at : at + 377 : 188] == b"GGG" for at in (0, 4)
    )  # .ts, and .m2ts with its time stamps
    return stream or head.startswith(_MAGIC)


def camera_index(source: object) -> int | None:
    """The number of the camera that `source` names, as 0 or as "camera:0"; None if it names none."""
    if type(source) is int and source >= 0:
        return source
    match = re.fullmatch(r"camera:(\d{1,4})", source.lower()) if isinstance(source, str) else None
    return int(match[1]) if match else None


def is_named(source: str) -> bool:
    """Whether this text names a camera, or a file with the suffix of a video."""
    return camera_index(source) is not None or Path(source).suffix.lower() in SUFFIXES


def probe(source: str | int) -> Clip:
    """Look at a video without decoding it.

    Args:
        source: a file, or the number of a camera.

    Raises:
        InputError: it can't be opened.
    """
    with _opened(source, upright=True) as capture:
        return _clip(capture)


def read(
    source: str | int, *, upright: bool = True, max_pixels: int | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decode frame by frame: uint8 (H, W, 3), BGR.

    Args:
        source: a file, or the number of a camera, which never ends by itself.
        upright: turn the frames the way the video says.
        max_pixels: most pixels of a frame; None for any number.

    Raises:
        InputError: it can't be opened, its frames are too large, it holds none, or it ends early.
    """
    count = 0
    with _opened(source, upright) as capture:
        clip = _clip(capture)
        if max_pixels is not None and clip.width * clip.height > max_pixels:
            raise InputError(
                f"a video of {clip.width} x {clip.height} has more than {max_pixels:,} pixels a frame"
            )
        while True:
            found, frame = capture.read()
            if not found:
                break
            count += 1
            yield np.asarray(frame, np.uint8)
    if isinstance(source, int):
        raise InputError(f"camera {source} gave no more frames after {count}")
    if not count:
        raise InputError("this video holds no frame that can be decoded")
    if clip.length and count < 0.95 * clip.length:  # some formats only estimate their length
        raise InputError(
            f"this video breaks off after {count} of {clip.length} frames: it is damaged"
        )


@contextmanager
def _opened(source: str | int, upright: bool) -> Iterator[Any]:
    os.environ.setdefault(
        "OPENCV_FFMPEG_LOGLEVEL", "-8"
    )  # or FFmpeg would print its troubles beside our error
    import cv2

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
        capture = cv2.VideoCapture(
            source, cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG
        )
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            if isinstance(source, int):
                raise InputError(
                    f"camera {source} can't be opened: is it there, and does no other program use it?"
                )
            raise InputError(
                "this video can't be read: it is damaged, or OpenCV has no decoder for it"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, int(upright))
        yield capture
    finally:
        capture.release()


def _clip(capture: Any) -> Clip:
    import cv2

    keys = (
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_FRAME_COUNT,
    )
    width, height, rate, length = (capture.get(key) for key in keys)
    known = 1 <= length < 1e9
    return Clip(
        int(width),
        int(height),
        rate if 0.01 <= rate <= 1000 else FRAME_RATE,
        int(length) if known else None,
    )


def save_overlay_video(
    pipeline: Pipeline,
    source: str | Path | int,
    save_path: str | Path,
    target_size: object = None,
    *,
    batch_size: int | None = None,
    slide: object = None,
    alpha: float = 0.5,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Segment a video and write it again with the colours of the classes over it: as many frames, the same frame rate.

    Decoding, the network and encoding run at the same time, in threads, with a few frames between them; so memory does
    not depend on the length. Sound is not copied. A width or height that is odd loses a pixel. Stopped with Ctrl-C,
    the file holds, and plays, what was done so far; so it does where the video turns out to be damaged.

    Example:
        >>> pipeline = segrt.create_pipeline("semantic_segmentation")
        >>> segrt.save_overlay_video(pipeline, "clip.mp4", "out")
        PosixPath('out/clip_overlay.mp4')

    Args:
        pipeline: the model.
        source: a video file, or the number of a camera (0, or "camera:0"), which goes on until it is stopped.
        save_path: a folder, made when missing, where `clip.mov` becomes `clip_overlay.mp4`; or a file, where it ends in
            .mp4, .m4v, .mov, .mkv or .avi. It gets its name when it is complete.
        target_size: as for `Pipeline.predict`, like the next two.
        batch_size: frames that run together.
        slide: a sliding window.
        alpha: share of the class colour, from 0 to 1.
        progress: called after each frame with the frames done, and all of them, or None where that is not known.

    Returns:
        Path: the file written.

    Raises:
        ConfigError: an argument is not valid.
        InputError: the source can't be read as a video, or not to its end.
        ModelError: the model can't run on it.
        OSError: the file can't be written.
    """
    import cv2

    from segrt.sources import ahead

    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha {alpha!r} is not valid: it must be from 0 to 1")
    index = camera_index(source)
    name = str(source) if index is None else f"camera:{index}"
    target = Path(save_path)
    if target.suffix.lower() not in WRITTEN:
        target = target / f"{Path(file_name(name)).stem}_overlay.mp4"
    results = pipeline.predict(
        name, target_size, batch_size=batch_size, slide=slide, on_error="yield"
    )
    try:
        clip = probe(str(source) if index is None else index)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    size, done = (clip.width, clip.height), 0
    stopped: BaseException | None = None
    with replacing(target, suffix=target.suffix) as temporary:
        writer = cv2.VideoWriter(
            str(temporary), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), clip.frame_rate, size
        )
        try:
            if not writer.isOpened():
                raise InputError(
                    f"{name}: a video of {size[0]} x {size[1]} can't be encoded as {CODEC} in {target}"
                )
            with closing(ahead(results, _AHEAD)) as finished:
                for result in finished:
                    if isinstance(result, SegFailure):
                        raise result.error
                    picture = cv2.cvtColor(
                        np.asarray(result.overlay(alpha, legend=False)), cv2.COLOR_RGB2BGR
                    )
                    done += 1
                    writer.write(
                        picture if picture.shape[1::-1] == size else cv2.resize(picture, size)
                    )
                    if progress is not None:
                        progress(done, clip.length)
        except (KeyboardInterrupt, SegrtError) as error:
            stopped = error
        finally:
            writer.release()
        written = _length(temporary)
        if stopped is not None and not written:
            raise stopped
        if (
            written < 0.95 * done - 1
        ):  # OpenCV does not tell whether writing fails, and AVI and MKV only estimate
            raise OSError(f"{target} could not be written: is the disk full?")
    if stopped is not None:
        log.warning("stopped early: %s holds the first %d frames", target, written)
        raise stopped
    return target


def _length(file: Path) -> int:
    try:
        return probe(str(file)).length or 0
    except InputError:
        return 0
