"""Finds the frames of a video that are damaged, or are predicted from one that is.

FFmpeg decodes what it can. It marks frames in which it had to make up pixels, but not the frames
after them, which repeat these pixels until the next key frame. A frame of which nothing can be
decoded is only missing from its output.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segrt.errors import InputError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.codec import Codec
    from av.video.stream import VideoStream

_HELD = 8  # B-frames that wait for the frame they may be predicted from
_B_FRAME = 3  # av.video.frame.PictureType.B
_ONE_TO_ONE = ("h264", "hevc", "mpeg1video", "mpeg2video")  # unless they are interlaced
_B_IS_FINAL = ("mpeg1video", "mpeg2video", "mpeg4")  # nothing is predicted from their B-frames


class Positions:
    """Compares the packets that a decoder gets with its frames, to find the lost ones.

    In most formats a packet may legitimately give no frame, so there the decoder must report a
    loss. In the others each packet is a frame.

    Args:
        codec: the decoder.
    """

    def __init__(self, codec: Codec) -> None:
        self._all = codec.intra_only or codec.name in _ONE_TO_ONE
        self._expected: list[int] = []  # a heap of presentation times
        self._failed: set[int] = set()
        self._unplaced = 0  # failed packets without a time
        self._begin: int | None = None  # time of the first key frame
        self._shown: int | None = None  # time of the last frame

    def note(self, packet: Packet[VideoStream]) -> None:
        """Expect a frame of a packet."""
        if packet.pts is None:
            return
        if packet.is_keyframe and self._begin is None:
            self._begin = packet.pts
        # Where times start again, as in recordings that were joined, some can't be compared.
        again = self._shown is not None and packet.pts <= self._shown
        if self._all and not packet.is_discard and not again:
            heapq.heappush(self._expected, packet.pts)

    def fail(self, packet: Packet[VideoStream] | None) -> None:
        """Count a packet that can't be decoded."""
        if packet is None or packet.pts is None:
            self._unplaced += packet is not None
        elif packet.pts not in self._failed:
            self._failed.add(packet.pts)
            if not self._all:
                heapq.heappush(self._expected, packet.pts)

    def lost_before(self, frame: VideoFrame) -> int:
        """Number of frames lost between the frame before and this one."""
        if self._all and frame.interlaced_frame:  # a packet may be one field, half a frame
            self._all, self._expected = False, sorted(self._failed)
        lost, self._unplaced = self._unplaced, 0
        while frame.pts is not None and self._expected and self._expected[0] <= frame.pts:
            time = heapq.heappop(self._expected)
            self._failed.discard(time)
            # What precedes the first key frame was never complete.
            early = self._shown is None if self._begin is None else time < self._begin
            lost += time < frame.pts and not early
        self._shown = frame.pts
        return lost

    def lost_at_end(self) -> int:
        """Number of frames lost after the last one."""
        return self._unplaced + len(self._expected)


def judged(frames: Iterator[VideoFrame | None], codec: Codec) -> Iterator[VideoFrame | InputError]:
    """Replace damaged frames, and those predicted from them, by errors.

    Args:
        frames: in display order; None for a lost one.
        codec: their decoder.
    """
    held: deque[VideoFrame] = deque()  # B-frames, which may be predicted from the next other frame
    follows = False  # whether frames are predicted from a damaged one
    for frame in frames:
        is_b = frame is not None and frame.pict_type == _B_FRAME
        if frame is None or frame.is_corrupt:
            final = is_b and codec.name in _B_IS_FINAL
            for kept in held:
                yield kept if is_b else _follower()
            held.clear()
            follows = follows or not (final or codec.intra_only)
            yield InputError("this frame is damaged")
            continue
        if frame.key_frame:
            follows = False
        if follows:
            yield _follower()
            continue
        if not is_b or len(held) == _HELD:
            yield from held
            held.clear()
        if is_b:
            held.append(frame)
        else:
            yield frame
    yield from held


def _follower() -> InputError:
    return InputError("this frame is predicted from a damaged one")
