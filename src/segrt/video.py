"""Reads videos frame by frame, with PyAV and the FFmpeg in its wheel; cameras with OpenCV."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from segrt import camera
from segrt.damage import Positions, judged
from segrt.errors import InputError, TooLargeError
from segrt.formats import HEAD, VIDEO_SUFFIXES, is_avif, is_heif, is_image_name, lower_suffix

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

FRAME_RATE = 25.0
"""Frame rate of videos and cameras that don't state theirs."""

LATE = 10.0
"""Videos that start later than this, in seconds, count from their start: broadcasts, mostly."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free")
_MAGIC = {
    b"\x1aE\xdf\xa3": "matroska",
    b"\0\0\1\xba": "mpeg",
    b"\0\0\1\xb3": "mpegvideo",
    b"FLV\1": "flv",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"OggS": "ogg",
}
# FFmpeg looks at the first frames when it opens a file. It must not allocate huge ones, but to
# report the size of those that are merely over the limit, it has to know it.
_SMALL = 1 << 25  # pixels
_UNREADABLE = "this video can't be read: it is damaged, it has no pictures, or none FFmpeg decodes"
# PyAV 17 crashes if it gets options for streams that are not listed in a header.
_HEADED = ("asf", "avi", "matroska", "mov")
_TIMED = ("asf", "flv", "matroska", "mov")  # they state their duration
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class Clip:
    """The properties a video states.

    Attributes:
        width: pixels, of upright frames.
        height: pixels, of upright frames.
        frame_rate: frames per second, on average.
        length: number of frames, which some formats only estimate; None if unknown, as for a
            camera.
        pixel_aspect: width of a pixel divided by its height, of upright frames.
        time_base: unit of the times, in seconds.
        end: seconds from the start, when the last frame ends; None if unknown.
    """

    width: int
    height: int
    frame_rate: float
    length: int | None
    pixel_aspect: Fraction = Fraction(1)
    time_base: Fraction = field(default=Fraction(1, 90_000), compare=False)
    end: float | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame of a video.

    Attributes:
        image: uint8 (H, W, 3), BGR.
        time: seconds from the start of the video or camera; increases strictly.
    """

    image: npt.NDArray[np.uint8]
    time: float


def demuxer(head: bytes) -> str | None:
    """FFmpeg's name of a video's container format; None for anything but a video.

    FFmpeg itself would also accept playlists, which can refer to other files and hosts.

    Args:
        head: at least the first 400 bytes of the file.
    """
    if head[4:8] in _BOXES:
        return None if is_avif(head) or is_heif(head) else "mov"
    if head[:4] == b"RIFF":
        return "avi" if head[8:12] == b"AVI " else None
    # .ts packets, and .m2ts packets, which start with a time stamp
    if any(head[at : at + 377 : 188] == b"GGG" for at in (0, 4)):
        return "mpegts"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def is_video(head: bytes) -> bool:
    """Whether a file is a video (MP4, MOV, AVI, Matroska, WebM, MPEG, ...), given its first bytes.

    Args:
        head: at least the first 400 bytes of the file.
    """
    return demuxer(head) is not None


def camera_index(source: object) -> int | None:
    """The index of a camera given as 0 or "camera:0"; None for any other source."""
    if type(source) is int and 0 <= source <= 9999:
        return source
    pattern = r"camera:(\d{1,4})"
    match = re.fullmatch(pattern, source.lower()) if isinstance(source, str) else None
    return int(match[1]) if match else None


def names_video(source: str) -> bool:
    """Whether a text names a camera or a video.

    The suffix of a file decides; with an unknown one, or none, its content.

    Example:
        >>> names_video("camera:0"), names_video("clip.mp4"), names_video("road.png")
        (True, True, False)
    """
    if camera_index(source) is not None or lower_suffix(source) in VIDEO_SUFFIXES:
        return True
    if is_image_name(source) or not Path(source).is_file():
        return False
    with suppress(OSError), open(source, "rb") as file:
        return is_video(file.read(HEAD))
    return False


def probe(source: str | int) -> Clip:
    """Read the properties of a video. Of its frames, only the first is decoded, for its rotation.

    Args:
        source: a file, or the index of a camera.

    Raises:
        InputError: it can't be opened.
    """
    import av

    if isinstance(source, int):
        width, height, rate = camera.properties(source)
        return Clip(width, height, rate if 0.01 <= rate <= 1000 else FRAME_RATE, None)
    with opened(source) as (container, stream):
        clip, first = _clip(container, stream, _is_cut(source)), None
        with suppress(av.FFmpegError):
            first = next(container.decode(stream), None)
        if first is None or not _orientation(first)[0]:
            return clip
        return replace(
            clip, width=clip.height, height=clip.width, pixel_aspect=1 / clip.pixel_aspect
        )


def read(
    source: str | bytes | int, *, upright: bool = True, max_pixels: int | None = None
) -> Iterator[Picture | InputError]:
    """Decode a video frame by frame.

    Args:
        source: a file, its bytes, or the index of a camera, which never ends on its own.
        upright: whether to rotate and mirror frames as the video specifies.
        max_pixels: maximum number of pixels of a frame; None for no limit.

    Yields:
        Each frame in its position; an error for one that is damaged, or predicted from one that
        is. Frames before the first that can be decoded, as in recordings of broadcasts, are left
        out.

    Raises:
        InputError: it can't be opened, it has no frames, or it is truncated.
        TooLargeError: its frames have more than `max_pixels`.
    """
    if isinstance(source, int):
        for time, image in camera.read(source):
            _check_size(image.shape[1], image.shape[0], max_pixels)
            yield Picture(image, time)
        return
    count = 0
    try:
        for item in _File(source, upright, max_pixels, threads=True).items():
            count += 1
            yield item
    except _Unclear:
        again = _File(source, upright, max_pixels, threads=False)
        yield from islice(again.items(), count, None)


class _Unclear(Exception):
    """With several frames in progress, FFmpeg does not tell which of them is damaged."""


@contextmanager
def opened(
    source: str | bytes, max_pixels: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video, and nothing else it may refer to.

    Yields:
        The container, and its first stream of moving pictures.

    Raises:
        InputError: it can't be opened, or FFmpeg has no decoder for it.
        TooLargeError: its frames have more than `max_pixels`.
    """
    import av

    with _file(source) as file:
        head = file.read(HEAD)
        file.seek(0)
        if (name := demuxer(head)) is None:
            raise InputError("this is not a video of a known format")
        options = {}
        if max_pixels is not None:
            options["max_pixels"] = str(min(max(max_pixels, _SMALL), 2**31 - 1))
        try:
            container = av.open(
                file,
                "r",
                format=name,
                container_options={"protocol_whitelist": "none"},
                options=options if name in _HEADED else {},
                metadata_errors="ignore",
            )
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise
            raise InputError(_UNREADABLE) from None
        with container:
            stream = next(filter(_moves, container.streams.video), None)
            if stream is None:
                raise InputError(_UNREADABLE)
            _check_size(stream.width, stream.height, max_pixels)
            if stream.codec_context.name == "mjpeg":  # which does not mark damaged frames
                options["err_detect"] = "explode"
            stream.codec_context.options = options
            yield container, stream


@contextmanager
def _file(source: str | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(source, "rb"))
        except OSError as error:
            raise InputError(f"it can't be read: {error.strerror}") from None
        yield file


def _moves(stream: VideoStream) -> bool:
    """Whether a stream can be decoded, and is not the cover of an album."""
    from av.stream import Disposition

    return stream.codec_context is not None and not stream.disposition & Disposition.attached_pic


def start(container: InputContainer, first: Packet[Any] | None = None) -> float:
    """Seconds to subtract from the times of a video that starts very late; otherwise 0.

    Args:
        container: the video.
        first: its first packet of pictures, for formats that don't state their start.
    """
    begin = 0.0
    if container.start_time is not None:
        begin = container.start_time / 1e6
    elif first is not None and first.pts is not None:
        begin = float(first.pts * first.time_base)
    return begin if begin > LATE else 0.0


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise TooLargeError(
            f"a video of {width} x {height} has more than {max_pixels:,} pixels a frame"
        )


def _is_cut(source: str | bytes) -> bool:
    """Whether the end of an AVI or Matroska file is missing, by the sizes at its beginning."""
    with _file(source) as file:
        size, head = file.seek(0, io.SEEK_END), b""
        file.seek(0)
        head = file.read(HEAD)
        if head.startswith(b"\x1aE\xdf\xa3"):
            length, at = _ebml_size(head, 4)
            segment = (length or 0) + at
            length, at = _ebml_size(head, segment + 4)
            return head[segment : segment + 4] == b"\x18S\x80g" and at + (length or 0) > size
        at = 0  # a large AVI file has several parts
        while head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
            at += 8 + int.from_bytes(head[4:8], "little")
            at += at % 2
            if at - size > 1:
                return True
            file.seek(at)
            head = file.read(12)
    return False


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """The size of an element of Matroska, None if it is not known, and where its content begins."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    unknown = (1 << 7 * length) - 1
    value &= unknown
    return None if value == unknown else value, at + length


def _clip(container: InputContainer, stream: VideoStream, cut: bool) -> Clip:
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    rate = rate if 0.01 <= rate <= 1000 else FRAME_RATE
    length = stream.frames
    if container.format.name == "avi" and not cut:  # it repeats a frame by an empty one
        length = len(stream.index_entries) or length
    begin, end = _span(container, stream)
    if not length and end is not None and container.format.name != "mpegvideo":  # without times
        length = round((end - begin) * rate)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    base = stream.time_base or Fraction(1, 90_000)
    known = 1 <= length < 1e9
    end = None if end is None or (end == _end(container) and container.streams.audio) else end
    if end is not None:
        end -= start(container)
    size = stream.width, stream.height
    return Clip(*size, rate, length if known else None, aspect, base, end)


def _span(container: InputContainer, stream: VideoStream) -> tuple[float, float | None]:
    """Begin and end of a video, in seconds; the end is that of the sound if only this is known."""
    base = stream.time_base or Fraction(1, 90_000)
    begin = (container.start_time or 0) / 1e6
    if stream.start_time is not None:
        begin = float(stream.start_time * base)
    if stream.duration is not None:
        return begin, begin + float(stream.duration * base)
    if _is_matroska(container):  # its durations count from zero, not from the start
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        if tag:
            return begin, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return begin, _end(container)


def _end(container: InputContainer) -> float | None:
    """Seconds."""
    if container.duration is None:
        return None
    begin = 0 if _is_matroska(container) else container.start_time or 0
    return (begin + container.duration) / 1e6


def _is_matroska(container: InputContainer) -> bool:
    return container.format.name.startswith("matroska")


def times(source: str) -> list[float]:
    """The times of all frames of a video, in seconds, without decoding it.

    Raises:
        InputError: it can't be opened.
    """
    import av

    found, offset = list[float](), None
    with opened(source) as (container, stream), suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                offset = start(container, packet) if offset is None else offset
                found.append(float(packet.pts * packet.time_base) - offset)
    return sorted(found)


class _File:
    """One pass over a video file."""

    def __init__(
        self, source: str | bytes, upright: bool, max_pixels: int | None, *, threads: bool
    ) -> None:
        self._source, self._upright, self._max_pixels = source, upright, max_pixels
        self._threads = threads  # decode several frames at once
        self._cut = False  # whether the end of the file is missing
        self._torn = False  # whether it ends within a frame
        self._end = 0.0  # seconds, of the last packet of any stream
        self._offset = 0.0  # seconds, subtracted from all times

    def items(self) -> Iterator[Picture | InputError]:
        """The frames, and errors for those that are damaged, in order."""
        from av.video.reformatter import VideoReformatter

        count, pending, time = 0, list[InputError](), None
        converter = VideoReformatter()
        with opened(self._source, self._max_pixels) as (container, stream):
            self._cut = _is_cut(self._source)
            clip = _clip(container, stream, self._cut)
            frames = self._frames(container, stream)
            for frame in judged(frames, stream.codec_context.codec):
                time = self._time(frame, time, clip)
                if isinstance(frame, InputError):
                    pending.append(frame)
                    continue
                _check_size(frame.width, frame.height, self._max_pixels)  # it may change
                yield from pending
                count += len(pending) + 1
                pending.clear()
                yield Picture(self._image(converter, frame), time)
            if count and (self._cut or self._torn or self._ends_early(container)):
                of = "" if clip.length is None else f" of {clip.length}"
                raise InputError(f"this video breaks off after {count}{of} frames: damaged?")
        if not count:
            raise InputError("this video holds no frame that can be decoded")
        yield from pending

    def _frames(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[VideoFrame | None]:
        """The frames in display order; None for a lost one."""
        import av

        stream.thread_type = "AUTO" if self._threads else "SLICE"
        positions = Positions(stream.codec_context.codec)
        for packet in self._packets(container, stream):
            if packet is not None:
                positions.note(packet)
            try:
                frames = stream.codec_context.decode(packet)
            except EOFError:
                continue
            except av.FFmpegError:
                if self._threads:
                    raise _Unclear from None
                positions.fail(packet)
                continue
            for frame in frames:
                yield from repeat(None, positions.lost_before(frame))
                yield frame
        lost = positions.lost_at_end()
        if lost and self._threads:
            raise _Unclear
        yield from repeat(None, lost)

    def _packets(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[Packet[Any] | None]:
        """The packets of the video, and None at the end, to get its last frames."""
        import av

        first = True
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._end = max(self._end, end)
                if packet.stream_index != stream.index or not packet.size:
                    continue  # an empty packet repeats a frame
                if first:
                    self._offset, first = start(container, packet), False
                self._torn = packet.is_corrupt  # if no other follows
                yield packet
        except av.FFmpegError:
            self._torn = True
        yield None

    def _ends_early(self, container: InputContainer) -> bool:
        # An AVI file may end with repeated frames, which FFmpeg leaves out. Of the other formats it
        # takes the duration from the last packet.
        end, name = _end(container), container.format.name.split(",")[0]
        if end is None or container.duration is None or name not in _TIMED:
            return False
        # Some files only estimate it, or include how long the last frame is shown.
        return self._end < end - max(0.05 * container.duration / 1e6, 0.2)

    def _time(self, frame: VideoFrame | InputError, last: float | None, clip: Clip) -> float:
        """Seconds. One frame after the last if the file states no time, or an earlier one."""
        following = 0.0 if last is None else last + 1 / clip.frame_rate
        if isinstance(frame, InputError) or frame.pts is None:
            return following
        time = float(frame.pts * clip.time_base) - self._offset
        return time if last is None or time > last else following

    def _image(self, converter: VideoReformatter, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        unmarked = frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb
        matrix = colour_matrix(frame.width, frame.height) if unmarked else None
        picture = converter.reformat(frame, format="bgr24", src_colorspace=matrix)
        image = np.asarray(picture.to_ndarray(), np.uint8)
        if self._upright:
            transposed, mirrored, flipped = _orientation(frame)
            image = image.transpose(1, 0, 2) if transposed else image
            image = image[:, ::-1] if mirrored else image
            image = image[::-1] if flipped else image
        return np.ascontiguousarray(image)


def colour_matrix(width: int, height: int) -> int:
    """The matrix that players assume for YUV of this size, as a member of `Colorspace`.

    FFmpeg assumes BT.601 for videos that don't state theirs, whatever their size. Players assume
    BT.709 for high definition.
    """
    from av.video.reformatter import Colorspace

    high = width >= 1280 or height > 576
    return int(Colorspace.ITU709 if high else Colorspace.ITU601)


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether to transpose a frame, then to mirror its columns, and its rows.

    The display matrix (a, b, u, c, d, v, x, y, w) moves pixel (x, y) to (ax + cy, bx + dy).
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
