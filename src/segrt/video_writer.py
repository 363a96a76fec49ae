"""Writes videos with PyAV, at the times of another video and with its sound."""

from __future__ import annotations

from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from segrt import video
from segrt.errors import InputError
from segrt.sound import Sound
from segrt.video import Clip

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import OutputContainer
    from av.video.stream import VideoStream

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
"""FFmpeg's container formats of the suffixes of videos that can be written."""

_H264 = {"preset": "ultrafast", "crf": "20"}
_MPEG4 = {"flags": "+qscale", "global_quality": str(4 * 118)}  # a quantizer of 4
_FINEST = 1_000_000  # ticks per second; encoders don't support arbitrary ones
_RATES = (24, 25, 30, 50, 60, 100, 120)
_SPACES = {1: 1, 5: 6}  # from members of av's Colorspace to FFmpeg's AVColorSpace
_TOO_LONG = (
    "an .avi can't show one frame for longer than a minute: save as .mp4, .m4v, .mov or .mkv"
)


class VideoWriter:
    """A video file that is written frame by frame.

    H.264 if FFmpeg has x264, whose fastest setting is as fast as MPEG-4 Part 2, which is used
    otherwise. In AVI it is always MPEG-4 Part 2: players expect it there, and FFmpeg can't store
    the times of H.264.

    Example:
        >>> with VideoWriter(Path("out.mp4"), video.probe("clip.mp4"), "clip.mp4") as writer:
        ...     writer.write(picture, 0.04)
        ...     writer.finish()

    Args:
        path: the file; its suffix, one of `FORMATS`, sets the container.
        clip: the video it is made from.
        source: the file of this video, for its sound; None: no sound.
    """

    def __init__(self, path: Path, clip: Clip, source: str | None) -> None:
        self._path, self._clip, self._source = path, clip, source
        self._format = FORMATS[path.suffix.lower()]
        self._stack = ExitStack()
        self._base = _time_base(clip, self._format, source)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._sound: Sound | None = None
        self._size = clip.width, clip.height
        self._held: Packet[Any] | None = None  # its duration is known when the next one comes
        self._last: int | None = None  # time of the last frame, in ticks
        self._failed: Exception | None = None  # FFmpeg crashes if a file is written on after that

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, picture: npt.NDArray[np.uint8], time: float) -> None:
        """Add a frame.

        Args:
            picture: uint8 (H, W, 3), BGR. It is resized to the first, should its size differ.
            time: seconds; frames at the time of the one before, or earlier, follow it directly.

        Raises:
            InputError: frames of this size, or this distance, can't be encoded.
            OSError: the file can't be written.
        """
        import av

        if self._failed is not None:
            raise self._failed
        if self._stream is None:
            self._begin(picture.shape[1], picture.shape[0])
        assert self._stream is not None
        if picture.shape[1::-1] != self._size:
            picture = np.asarray(cv2.resize(picture, self._size), np.uint8)
        right, below = self._stream.width - self._size[0], self._stream.height - self._size[1]
        if right or below:
            edge = cv2.BORDER_REPLICATE
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, edge), np.uint8)
        # FFmpeg's short cut from BGR to YUV is off by up to 5 levels.
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
        frame = av.VideoFrame.from_numpy_buffer(picture, format="rgb24")
        frame = self._converter.reformat(
            frame, format="yuv420p", dst_colorspace=self._colours, dst_color_range="MPEG"
        )
        ticks = round(time / self._base)
        self._last = ticks if self._last is None else max(ticks, self._last + 1)
        frame.pts = self._last
        frame.time_base = self._base
        self._encode(frame)

    def finish(self, *, whole: bool) -> None:
        """Complete the file.

        Args:
            whole: whether it got all frames, so that the rest of the sound follows.

        Raises:
            OSError: the file can't be written.
        """
        if self._failed is not None:
            raise self._failed
        if self._stream is None or self._container is None:
            return
        self._encode(None)
        if self._held is not None and self._last is not None:
            end = self._clip.end if whole else None
            last = 0.0 if end is None else end - float(self._last * self._base)
            last = last if 0 < last < 60 else 1 / self._clip.frame_rate
            self._mux(self._held, round(last / self._base))
        if self._sound is not None:
            (self._sound.finish if whole else self._sound.flush)()
        self._container.close()
        self._stack.close()

    def _begin(self, width: int, height: int) -> None:
        """Open the file and the encoder, for frames of the size of the first."""
        import av
        from av.video.reformatter import VideoReformatter

        file = self._stack.enter_context(self._path.open("wb"))
        self._container = av.open(file, "w", format=self._format)
        h264 = self._format != "avi" and "libx264" in av.codecs_available
        rate = Fraction(self._clip.frame_rate).limit_denominator(1001)
        stream = self._container.add_stream(
            "libx264" if h264 else "mpeg4", rate=rate, options=_H264 if h264 else _MPEG4
        )
        context = stream.codec_context
        stream.time_base = context.time_base = self._base
        # H.264 stores halves of the width and height. The encoders of MPEG-4 keep odd sizes.
        stream.width, stream.height = width + (width % 2 and h264), height + (height % 2 and h264)
        stream.pix_fmt = "yuv420p"
        self._colours = video.colour_matrix(width, height)
        context.colorspace, context.color_range = _SPACES[self._colours], 1  # limited range
        if self._clip.pixel_aspect != 1:
            context.sample_aspect_ratio = self._clip.pixel_aspect
        try:
            context.open()
        except av.FFmpegError:
            raise InputError(
                f"a video of {width} x {height} can't be encoded as {context.codec.long_name}"
            ) from None
        self._converter = VideoReformatter()
        self._size, self._stream = (width, height), stream
        if self._source is not None:
            self._sound = self._stack.enter_context(closing(Sound(self._source, self._container)))

    def _encode(self, frame: VideoFrame | None) -> None:
        import av

        assert self._stream is not None
        try:
            packets = self._stream.encode(frame)
        except av.FFmpegError as error:
            raise InputError(f"the overlay can't be encoded: {error}") from None
        for packet in packets:
            if self._held is not None:
                self._mux(self._held, (packet.pts or 0) - (self._held.pts or 0))
            self._held = packet

    def _mux(self, packet: Packet[Any], duration: int) -> None:
        import av

        assert self._container is not None
        packet.duration = max(1, duration)
        try:
            if self._sound is not None:
                self._sound.copy(float((packet.pts or 0) * packet.time_base))
            self._container.mux(packet)
        except Exception as error:
            long = isinstance(error, av.ArgumentError) and self._format == "avi"
            self._failed = InputError(_TOO_LONG) if long else error
            raise self._failed from None


def _time_base(clip: Clip, container: str, source: str | None) -> Fraction:
    """The unit of the times of a new video, in seconds, so that those of `clip` are kept.

    AVI stores no times, but a rate, and an empty frame for each unit without one.
    """
    if container != "avi":
        return max(clip.time_base, Fraction(1, _FINEST))
    times = [] if source is None else video.times(source)
    steps = sorted(after - time for time, after in pairwise(times))
    likely = steps[len(steps) // 2] if steps else 1 / clip.frame_rate
    for rate in (Fraction(1 / likely).limit_denominator(1001), *map(Fraction, _RATES)):
        if times and max(abs(time - round(time * rate) / rate) for time in times) < 0.0005:
            return 1 / rate
    return Fraction(1, 1000)
