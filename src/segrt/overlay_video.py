"""Segments a video and writes it again with the class colours over it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segrt import render, video
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.files import is_same_file, replacing
from segrt.frame import SegFailure
from segrt.look import Background, Look
from segrt.names import short_stem
from segrt.pipeline import Pipeline
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.slide import SlideLike
from segrt.types import SizeLike
from segrt.video import Clip
from segrt.video_writer import FORMATS, VideoWriter

log = logging.getLogger("segrt")

WRITTEN = tuple(FORMATS)
"""Suffixes of overlay videos."""

VideoProgress = Callable[[int, int | None], None]
"""Progress callback: frames done, and the total (None if unknown)."""


def save_overlay_video(
    pipeline: Pipeline,
    source: str | Path | int,
    save_path: str | Path,
    target_size: SizeLike = None,
    *,
    batch_size: int | None = None,
    slide: SlideLike = None,
    alpha: float | None = None,
    outlines: bool | None = None,
    only: str | Sequence[str] | None = None,
    background: Background | None = None,
    progress: VideoProgress | None = None,
    overwrite: bool = True,
) -> Path:
    """Segment a video, and save it with the class colours over it, at the same times.

    Decoding, the network and encoding run in parallel, a few frames apart, so memory does not
    depend on the length. Pictures are H.264 (in .avi: MPEG-4 Part 2) and upright; an odd width or
    height repeats the edge once. Sound is copied. Damaged frames are left out. After Ctrl-C, or if
    the video breaks off, the file is playable, with the frames done so far.

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
        alpha: weight of the class colour, as in `SegResult.overlay`, like the next three.
        outlines: whether to draw lines between classes.
        only: classes to show.
        background: what replaces the rest: "blur" or "white".
        progress: called after each frame.
        overwrite: False leaves a file that exists in the end as it is.

    Returns:
        Path: the file.

    Raises:
        ConfigError: an argument is invalid, or `save_path` is the video itself.
        InputError: the source is no video, breaks off, or has damaged frames, which are left out.
        ModelError: the model can't run on it.
        OSError: the file can't be written.
    """
    look = Look(alpha=alpha, outlines=outlines, only=only, background=background)
    if look.background == "transparent":
        raise ConfigError("videos can't have a transparent background: use blur or white")
    look.shows(pipeline.class_names)
    index = video.camera_index(source)
    name = str(source) if index is None else f"camera:{index}"
    target = _target(name, Path(save_path))
    results = pipeline.predict(
        name, target_size, batch_size=batch_size, slide=slide, on_error="yield"
    )
    try:
        clip = video.probe(str(source) if index is None else index)
        encoder = _Encoder(clip, look, progress)
        sound = name if index is None else None
        _save(results, target, encoder, sound=sound, overwrite=overwrite)
    except InputError as error:
        if str(error).startswith(name):
            raise
        raise InputError(f"{name}: {error}") from None
    return target


def _target(name: str, save_path: Path) -> Path:
    if save_path.suffix.lower() in WRITTEN:
        target = save_path
    else:
        target = save_path / f"{short_stem(name)}_overlay.mp4"
    if is_same_file(name, target):
        raise ConfigError(f"{target} is the input itself: save to another folder or name")
    return target


def _save(
    results: Iterator[SegResult | SegFailure],
    target: Path,
    encoder: _Encoder,
    *,
    sound: str | None,
    overwrite: bool,
) -> None:
    """Encode to a temporary file, which becomes `target` if it contains any frame."""
    with replacing(target, suffix=target.suffix.lower(), overwrite=overwrite) as temporary:
        try:
            with VideoWriter(temporary, encoder.clip, sound) as writer:
                stopped = encoder.run(results, writer)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{target} could not be written: {reason}") from error
        if stopped is not None and not encoder.written:
            raise stopped
    if stopped is not None:
        log.warning("stopped early: %s holds the first %d frames", target, encoder.written)
        raise stopped
    if encoder.damaged:
        left_out = f"{target} contains all frames but the {encoder.damaged} that are damaged"
        raise InputError(f"{encoder.first}; {left_out}")


@dataclass
class _Encoder:
    clip: Clip
    look: Look
    progress: VideoProgress | None
    written: int = 0
    damaged: int = 0
    first: InputError | None = None  # of the damaged frames

    def run(
        self, results: Iterator[SegResult | SegFailure], writer: VideoWriter
    ) -> BaseException | None:
        """Write the overlays of all results; returns what stopped it early."""
        stopped: BaseException | None = None
        try:
            # The encoder is the thread, not the network, so that Ctrl-C stops the network.
            with closing(behind(partial(self._write, writer), results, 1)) as written:
                for done in written:
                    if self.progress is not None:
                        self.progress(done, self.clip.length)
        except (KeyboardInterrupt, SegrtError) as error:
            stopped = error
        writer.finish(whole=stopped is None)
        return stopped

    def _write(self, writer: VideoWriter, result: SegResult | SegFailure) -> int:
        """Encode one frame; returns how many are done."""
        if isinstance(result, SegFailure):
            if result.page_index is None or not isinstance(result.error, InputError):
                raise result.error
            self.damaged += 1
            self.first = self.first or result.error
        else:
            writer.write(_painted(result, self.look), result.time or 0.0)
            self.written += 1
        return self.written + self.damaged


def _painted(result: SegResult, look: Look) -> npt.NDArray[np.uint8]:
    return render.paint(result.picture, result.labels, result.palette, result.class_names, look)
