"""Where the results of `segrt predict` are saved. Nothing may overwrite an input of the call."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from segrt import encode
from segrt.cli.inputs import is_film, is_folder
from segrt.cli.standard import STDOUT, Piped
from segrt.errors import ConfigError, InputError
from segrt.files import is_same_file
from segrt.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from segrt.names import Stems, is_url, same_name, short_stem, suffix
from segrt.overlay_video import WRITTEN

# Formats of several pages or frames, whose results are numbered.
_PAGED = {".pdf", ".tif", ".tiff", ".gif", ".apng", ".webp", ".avif", ".avifs"}
_PAGED |= {".dcx", ".flc", ".fli"}
_RESULT = re.compile(
    r"(?P<stem>.*?)(?P<numbers>(_\d+){0,2})(_res\.[^.]+|_overlay\.png)", re.IGNORECASE | re.DOTALL
)


def names_file(save_path: Path) -> bool:
    """Whether the only result is saved as this file, rather than in a folder of this name.

    Raises:
        ConfigError: it is the name of a picture of a format that can't be written.
    """
    if save_path is STDOUT:
        return True
    if save_path.is_dir():
        return False
    kind = save_path.suffix.lower()
    return kind == ".json" or kind in VIDEO_SUFFIXES or encode.names_picture(save_path)


def check_single(inputs: list[str], file: Path) -> None:
    """Refuse inputs that can't be saved as one file of this name, before anything is written.

    Raises:
        InputError: there are several inputs, or the input is a folder, a video for a file that is
            no video, or an image for a video file.
    """
    name, kind = inputs[0], file.suffix.lower()
    if len(inputs) > 1:
        raise InputError(
            f"{file} is one file, but there are {len(inputs)} inputs: save to a folder"
        )
    if is_folder(name):
        raise InputError(f"{file} is one file, but {name} is a folder: save to a folder")
    if is_film(name) and kind not in WRITTEN:
        raise InputError(
            f"the overlay video of {name} can't be saved as {file}: use {', '.join(WRITTEN)}, or "
            "the path of a folder"
        )
    if kind in VIDEO_SUFFIXES and not is_film(name):
        raise InputError(
            f"{file} is the name of a video, but {name} is not a video: use a name such as "
            f"{file.with_suffix('.png')} or {file.with_suffix('.json')}, or the path of a folder"
        )


def video_targets(videos: list[str], save_path: Path) -> dict[str, Path]:
    """The overlay video of each video."""
    if names_file(save_path):
        return dict.fromkeys(videos, save_path)
    stems = Stems()
    unique = dict.fromkeys(videos)
    return {name: save_path / f"{stems.assign(name)}_overlay.mp4" for name in unique}


def targets(name: str, stem: str, save_path: Path, *, overlay: bool) -> list[Path]:
    """The files in which the result of an image is saved.

    Args:
        name: the input.
        stem: the name of its results in a folder.
        save_path: that folder, or the file of the only result.
        overlay: whether the overlay is saved; in the place of the only result.
    """
    if save_path is STDOUT:
        return []
    if not names_file(save_path):
        own = suffix(name) if suffix(name).lower() in IMAGE_SUFFIXES else ".png"
        picture = save_path / f"{stem}_res{own}"
        more = [save_path / f"{stem}_overlay.png"] if overlay else []
        return [*_with_exact(picture), save_path / f"{stem}_res.json", *more]
    return [save_path] if overlay else _with_exact(save_path)


def _with_exact(picture: Path) -> list[Path]:
    """A label picture, and the PNG next to it if it is a JPEG."""
    is_lossy = picture.suffix.lower() in encode.LOSSY
    return [picture, picture.with_suffix(".png")] if is_lossy else [picture]


def check_coco(file: Path, inputs: list[str], videos: list[str], save_path: Path | None) -> None:
    """Refuse a COCO file that would replace another file or be incomplete.

    Args:
        file: its path.
        inputs: all inputs.
        videos: those that are videos or cameras.
        save_path: where other results are saved.

    Raises:
        ConfigError: it does not end in .json, is a folder, or is the name of a result.
        InputError: it is an input, or an input becomes an overlay video.
    """
    if file.suffix.lower() != ".json" or file.is_dir():
        raise ConfigError(f"--coco {file} is not valid: use a file name that ends in .json")
    if any(is_same_file(file, name) for name in inputs if not isinstance(name, Piped)):
        raise InputError(f"{file} is an input of this call: give --coco another name")
    if save_path is None:
        return
    if videos:
        raise InputError(
            f"--coco is for images, but {videos[0]} is a video, which --save-path saves with an "
            "overlay: segment it in another call, or leave out one of the options"
        )
    in_folder = os.path.realpath(file.parent) == os.path.realpath(save_path)
    if (in_folder and _RESULT.fullmatch(file.name)) or _same_path(file, save_path):
        raise ConfigError(f"{file} is the name of a result: give --coco another name")


def _same_path(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other) or is_same_file(one, other)


def check(images: list[str], videos: dict[str, Path], save_path: Path) -> None:
    """Refuse to overwrite an input, before anything is written.

    Files named like results that are no inputs are results of an earlier run, and replaced.

    Raises:
        InputError: a result would replace an input, or `save_path` is a file that no result can be.
    """
    inputs = {_identity(name) for name in [*images, *videos]} - {None}
    for target in [save_path, *videos.values()]:
        if target.is_file() and _identity(target) in inputs:
            raise InputError(f"{target} is an input of this call: save to another folder or name")
    if save_path.exists() and not save_path.is_dir() and not names_file(save_path):
        raise InputError(
            f"--save_path {save_path} is a file: use a folder, or a file name that ends in .json "
            "or the suffix of a picture or video"
        )
    for name in _inputs_in(save_path, inputs):
        if source := _source_of(save_path / name, images):
            raise InputError(
                f"{save_path / name} is an input of this call, and the result of {source} would "
                "replace it: save to another folder"
            )


def make_folder(folder: Path) -> None:
    """Create the folder for the results, unless it exists.

    Raises:
        InputError: that is impossible, so that no result could be saved.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} can't be created: {error.strerror}") from None


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What two names of one file have in common; None for a URL, a camera or a missing file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino


def _inputs_in(folder: Path, inputs: set[tuple[int, int] | None]) -> list[str]:
    if not folder.is_dir():
        return []
    return [name for name in sorted(os.listdir(folder)) if _identity(folder / name) in inputs]


def _has_pages(name: str, suffix: str) -> bool:
    if suffix != ".png":
        return suffix in _PAGED
    try:
        with open(name, "rb") as file:
            return b"acTL" in file.read(1 << 16)  # an animated PNG
    except OSError:
        return False


def _source_of(result: Path, images: list[str]) -> str | None:
    """The input whose result would replace this file, with or without the number of a page."""
    match = _RESULT.fullmatch(result.name)
    if match is None:
        return None
    full = match["stem"] + match["numbers"]
    stems = {name: short_stem(name) for name in images}
    counts = Counter(same_name(stem) for stem in stems.values())
    for name, stem in stems.items():
        ending = suffix(name)
        many = counts[same_name(stem)] > 1 or is_url(name) or _has_pages(name, ending.lower())
        number = full[len(stem) :]
        if not full.lower().startswith(stem.lower()) or not re.fullmatch(
            r"(_\d+){0,2}" if many else "", number
        ):
            continue
        endings = (f"_res{ending}", "_res.png", "_overlay.png")
        if any(is_same_file(result.with_name(stem + number + end), result) for end in endings):
            return name
    return None
