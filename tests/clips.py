"""Tiny videos generated for tests."""

from __future__ import annotations

from pathlib import Path

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
