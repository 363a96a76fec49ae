"""Copies the sound of a video into another one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from segrt import video

if TYPE_CHECKING:
    from av import Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

log = logging.getLogger("segrt")

_PLAYED = {"aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus"}
_COPIED = {
    "mp4": _PLAYED,
    "mov": {"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24le"},
    "avi": {"ac3", "mp2", "mp3", "pcm_s16le", "pcm_u8"},
}
"""Codecs that players expect in each container; Matroska, which is not listed, allows all."""

_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 11_025, 8000)  # of AAC
_NEVER = -(2**62)
_JITTER = 0.02  # seconds


@dataclass
class _Track:
    """One stream of sound: where it goes to, and whether it is encoded again."""

    target: AudioStream
    encoded: bool
    last: int = _NEVER  # decoding time of the last packet
    position: int = _NEVER  # end of the last frame, in samples


class Sound:
    """The sound of a video file, for another file of the same times.

    What players expect in the new container is copied, the rest encoded as AAC, in AVI as PCM.

    Example:
        >>> with closing(Sound("clip.mp4", container)) as sound:
        ...     sound.copy(2.5)  # all until 2.5 s, before the picture of that time
        ...     sound.finish()  # the rest

    Args:
        source: the video file.
        container: what to write to; nothing may have been written yet.
    """

    def __init__(self, source: str, container: OutputContainer) -> None:
        self._container, self._stack = container, ExitStack()
        self._tracks: dict[int, _Track] = {}
        self._next: tuple[float, Packet[Any]] | None = None
        opened, pictures = self._stack.enter_context(video.opened(source))
        try:
            for stream in opened.streams.audio:
                if stream.codec_context is not None:
                    self._add(stream)
        except BaseException:
            self._stack.close()
            raise
        self._packets = self._read(opened, pictures.index)

    def close(self) -> None:
        """Close the source."""
        self._stack.close()

    def copy(self, until: float) -> None:
        """Write the sound up to a time, in seconds."""
        while self._next is None or self._next[0] <= until:
            if self._next is not None:
                self._write(self._next[1])
            self._next = next(self._packets, None)
            if self._next is None:
                return

    def finish(self) -> None:
        """Write the rest of the sound."""
        self.copy(float("inf"))
        self.flush()

    def flush(self) -> None:
        """Write what the encoders have not written yet."""
        for track in self._tracks.values():
            if track.encoded:
                self._mux(track, track.target.encode(None))

    def _add(self, stream: AudioStream) -> None:
        name, codec = self._container.format.name, stream.codec_context.codec.canonical_name
        if name not in _COPIED or codec in _COPIED[name]:
            with suppress(ValueError):  # the container does not support it
                target = self._container.add_stream_from_template(stream)
                self._tracks[stream.index] = _Track(target, encoded=False)
                return
        own = stream.codec_context.sample_rate
        rate = next((rate for rate in _RATES if rate <= own), _RATES[-1])
        target = self._container.add_stream("pcm_s16le" if name == "avi" else "aac", rate=rate)
        channels = stream.codec_context.layout.nb_channels
        target.layout = "mono" if channels == 1 else "stereo"
        target.bit_rate = 96_000 * min(channels, 2)
        self._tracks[stream.index] = _Track(target, encoded=True)

    def _read(
        self, container: InputContainer, pictures: int
    ) -> Iterator[tuple[float, Packet[Any]]]:
        """The packets of sound and their times, in seconds."""
        import av

        offset = None if container.start_time is None else video.start(container)
        if not self._tracks:
            return
        with suppress(av.FFmpegError):  # the pictures end there as well, with an error
            for packet in container.demux():
                if offset is None and packet.stream_index == pictures and packet.size:
                    offset = video.start(container, packet)
                if packet.stream_index not in self._tracks or not packet.size:
                    continue
                time = packet.dts if packet.pts is None else packet.pts
                if time is not None:
                    shift = round((offset or 0) / packet.time_base)
                    packet.pts = time - shift
                    packet.dts = None if packet.dts is None else packet.dts - shift
                    yield float(packet.pts * packet.time_base), packet

    def _write(self, packet: Packet[Any]) -> None:
        import av

        track = self._tracks[packet.stream_index]
        if not track.encoded:
            self._mux(track, [packet])
            return
        with suppress(av.FFmpegError, ValueError):  # a damaged packet, or another format
            decoded: list[Any] = packet.decode()
            for frame in decoded:
                # Rounded times, as in Matroska, would leave gaps between the samples.
                unit = Fraction(1, frame.sample_rate)
                time = round((frame.pts or 0) * frame.time_base / unit)
                if abs(time - track.position) * unit > _JITTER:
                    track.position = time
                frame.pts, frame.time_base = track.position, unit
                track.position += frame.samples
                self._mux(track, track.target.encode(frame))

    def _mux(self, track: _Track, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            if self._container.format.name not in ("mp4", "mov") and packet.pts is not None:
                # Encoders begin before zero. FFmpeg would delay everything, the pictures too.
                if packet.pts + (packet.duration or 0) <= 0:
                    continue
                packet.pts = packet.dts = max(packet.pts, 0)
            time = packet.pts if packet.dts is None else packet.dts
            if time is None or time <= track.last:
                continue  # containers want increasing times
            track.last = time
            packet.stream = track.target
            self._container.mux(packet)
