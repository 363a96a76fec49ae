"""Segments a video and writes it again with the class colours over it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segrt import video
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.files import is_same_file, replacing
from segrt.frame import SegFailure
from segrt.names import file_name
from segrt.pipeline import Pipeline
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.video import Clip

log = logging.getLogger("segrt")

WRITTEN = (".mp4", ".m4v", ".mov", ".mkv", ".avi")
"""Suffixes of overlay videos."""

CODEC = "mp4v"
"""MPEG-4 Part 2: of the encoders in OpenCV's wheel, which lacks H.264, the only fast one that all
formats in `WRITTEN` support. VP9, which browsers would play, takes 50 times as long."""

VideoProgress = Callable[[int, int | None], None]
"""Progress callback: frames done, and the total (None if unknown)."""


def save_overlay_video(
    pipeline: Pipeline,
    source: str | Path | int,
    save_path: str | Path,
    target_size: object = None,
    *,
    batch_size: int | None = None,
    slide: object = None,
    alpha: float = 0.5,
    progress: VideoProgress | None = None,
) -> Path:
    """Segment a video, and save it with the class colours over it, at the same frame rate.

    Decoding, the network and encoding run in parallel, a few frames apart, so memory does not
    depend on the length. Sound is not copied; an odd width or height loses one pixel. After Ctrl-C,
    or if the video is damaged, the file is playable and contains the frames done so far.

    Example:
        >>> pipeline = segrt.create_pipeline("semantic_segmentation")
        >>> segrt.save_overlay_video(pipeline, "clip.mp4", "out")
        PosixPath('out/clip_overlay.mp4')

    Args:
        pipeline: the model.
        source: a video file, or a camera (0, or "camera:0"), which runs until it is interrupted.
        save_path: a folder, created if missing, where `clip.mov` becomes `clip_overlay.mp4`; or a
            file name ending in .mp4, .m4v, .mov, .mkv or .avi.
        target_size: as in `Pipeline.predict`, like `batch_size` and `slide`.
        batch_size: frames per batch.
        slide: sliding window.
        alpha: weight of the class colour, from 0 to 1.
        progress: called after each frame.

    Returns:
        Path: the file written.

    Raises:
        ConfigError: an argument is invalid, or `save_path` is the video itself.
        InputError: the source can't be read as a video, or not to its end.
        ModelError: the model can't run on it.
        OSError: the file can't be written.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha {alpha!r} is not valid: it must be from 0 to 1")
    index = video.camera_index(source)
    name = str(source) if index is None else f"camera:{index}"
    target = Path(save_path)
    if target.suffix.lower() not in WRITTEN:
        target = target / f"{Path(file_name(name)).stem}_overlay.mp4"
    if is_same_file(name, target):
        raise ConfigError(f"{target} is the input itself: save to another folder or name")
    results = pipeline.predict(
        name, target_size, batch_size=batch_size, slide=slide, on_error="yield"
    )
    try:
        clip = video.probe(str(source) if index is None else index)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    _save(results, target, _Encoder(clip, alpha, progress))
    return target


def _save(results: Iterator[SegResult | SegFailure], target: Path, encoder: _Encoder) -> None:
    """Encode to a temporary file, which becomes `target` if it contains any frame."""
    with replacing(target, suffix=target.suffix) as temporary:
        stopped = encoder.run(results, temporary)
        written = _length(temporary)
        if stopped is not None and not written:
            raise stopped
        # OpenCV does not report failed writes, and AVI and MKV only estimate their length.
        if written < 0.95 * encoder.done - 1:
            raise OSError(f"{target} could not be written: is the disk full?")
    if stopped is not None:
        log.warning("stopped early: %s holds the first %d frames", target, written)
        raise stopped


@dataclass
class _Encoder:
    clip: Clip
    alpha: float
    progress: VideoProgress | None
    done: int = 0

    def run(self, results: Iterator[SegResult | SegFailure], file: Path) -> BaseException | None:
        """Write the overlays of all results; returns what stopped it early."""
        size = self.clip.width, self.clip.height
        codec = cv2.VideoWriter.fourcc(*CODEC)
        writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, codec, self.clip.frame_rate, size)
        try:
            if not writer.isOpened():
                raise InputError(f"a video of {size[0]} x {size[1]} can't be encoded as {CODEC}")
            # The encoder is the thread, not the network, so that Ctrl-C stops the network.
            with closing(behind(partial(self._write, writer), results, 1)) as written:
                for done in written:
                    if self.progress is not None:
                        self.progress(done, self.clip.length)
        except (KeyboardInterrupt, SegrtError) as error:
            return error
        finally:
            writer.release()
        return None

    def _write(self, writer: cv2.VideoWriter, result: SegResult | SegFailure) -> int:
        """Encode one frame; returns how many there are now."""
        if isinstance(result, SegFailure):
            raise result.error
        writer.write(self._picture(result, (self.clip.width, self.clip.height)))
        self.done += 1
        return self.done

    def _picture(self, result: SegResult, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        overlay = np.asarray(result.overlay(self.alpha, legend=False))
        picture = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
        picture = picture if picture.shape[1::-1] == size else cv2.resize(picture, size)
        return np.asarray(picture, np.uint8)


def _length(file: Path) -> int:
    try:
        return video.probe(str(file)).length or 0
    except InputError:
        return 0
