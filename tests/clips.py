"""Tiny videos generated for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np


def write_clip(
    path: Path,
    frames: int = 12,
    *,
    codec: str = "mp4v",
    rate: float = 12.5,
    side: int = 64,
    noise: bool = False,
) -> Path:
    """Write a video of (side, 2 side): frame i is blue, then red from column 4 i on; or noise."""
    random = np.random.default_rng(0)
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, (2 * side, side)
    )
    assert writer.isOpened()
    for index in range(frames):
        picture = np.full((side, 2 * side, 3), (230, 10, 10), np.uint8)
        picture[:, 4 * index :] = (10, 10, 230)
        writer.write(random.integers(0, 256, picture.shape, np.uint8) if noise else picture)
    writer.release()
    return path


def write_timed(
    path: Path,
    times: Sequence[float],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (96, 64),
    time_base: Fraction = Fraction(1, 90_000),
    options: dict[str, str] | None = None,
    sound: str | None = None,
    rotate: tuple[int, bool] | None = None,
    aspect: Fraction | None = None,
    noise: bool = False,
) -> Path:
    """Write a video whose frames turn from dark to bright at 2 s.

    Args:
        path: the file; its suffix sets the container.
        times: of the frames, in seconds.
        codec: name of the encoder.
        pixels: pixel format.
        size: width and height.
        time_base: unit of the times.
        options: of the encoder.
        sound: codec of a tone as long as the video; None for no sound.
        rotate: degrees, counter-clockwise, and whether to mirror, as the display matrix says.
        aspect: width of a pixel divided by its height.
        noise: whether the right half is noise, so that no frame resembles the one before.
    """
    shape, random = (size[1], size[0], 3), np.random.default_rng(0)
    with av.open(path, "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.time_base = stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        tone = None if sound is None else container.add_stream(sound, rate=16_000, layout="mono")
        for time in times:
            picture = np.full(shape, 220 if time >= 2 else 40, np.uint8)
            picture[:, : size[0] // 4] = (40, 60, 200)
            if noise:
                half = picture[:, size[0] // 2 :]
                half[:] = random.integers(0, 256, half.shape)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if isinstance(tone, av.AudioStream):
            length = int(16_000 * (times[-1] - times[0] + 0.04))
            wave = np.sin(np.arange(length) * 0.2) * 8000
            samples = av.AudioFrame.from_ndarray(
                wave.astype(np.int16)[None], format="s16", layout="mono"
            )
            samples.rate, samples.pts = 16_000, round(times[0] * 16_000)
            samples.time_base = Fraction(1, 16_000)
            container.mux(tone.encode(samples))
            container.mux(tone.encode(None))
    if rotate is not None:
        _rotate(path, *rotate)
    return path


def _rotate(path: Path, degrees: int, mirror: bool) -> None:
    """Write the display matrix of an MP4 or MOV file: pixel (x, y) moves to (ax + cy, bx + dy)."""
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}[
        degrees
    ]
    side = -1 if mirror else 1
    matrix = b"".join(
        (value * 0x10000).to_bytes(4, "big", signed=True)
        for value in (side * a, b, 0, side * c, d, 0)
    )
    content = path.read_bytes()
    offset = content.index(b"tkhd") + 4 + 40
    path.write_bytes(content[:offset] + matrix + content[offset + len(matrix) :])


def damage(path: Path, number: int, *, part: slice = slice(None)) -> Path:
    """Zero a part of the packet with this number in decoding order; all of it by default."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[number].pos, packets[number].size
    assert start is not None
    content = bytearray(path.read_bytes())
    zeroed = range(start, start + size)[part]
    content[zeroed.start : zeroed.stop] = bytes(len(zeroed))
    path.write_bytes(content)
    return path
