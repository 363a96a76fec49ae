"""The images in a folder, and an account of the files that are left out."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from segrt.formats import HEAD, VIDEO_SUFFIXES, is_image, is_image_name

log = logging.getLogger("segrt")


@dataclass(frozen=True)
class Found:
    """What a folder contains.

    Attributes:
        files: the images and PDFs, and the subfolders that can't be read, sorted by path.
        left_out: number of other files, by suffix; also "hidden", "without a suffix"
            and "link to a folder".
    """

    files: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """The files that are left out: "2 .txt, 1 hidden"; empty if there are none."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))

    def warn(self, folder: str) -> None:
        """Log one line about the files that are left out, if there are both these and images."""
        if self.files and self.left_out:
            videos = VIDEO_SUFFIXES & self.left_out.keys()
            hint = " (videos are read when they are given by name)" if videos else ""
            log.warning("%s: left out: %s%s", folder, self.summary(), hint)


def find_images(folder: str, skip: Path | None = None) -> Found:
    """Find the images and PDFs in a folder and its subfolders.

    A file is an image if its suffix says so, or, with an unknown suffix or none, its first bytes.
    Hidden files and folders (which start with a dot), videos and links to folders are left out.

    Example:
        >>> found = find_images("photos")
        >>> found.files, found.summary()
        (['photos/a.jpg', 'photos/more/b.png'], '1 .txt, 2 hidden')

    Args:
        folder: the folder.
        skip: a subfolder that is left out without being counted.

    Raises:
        OSError: the folder itself can't be read.
    """
    found = Found()
    _search(folder, skip, found)
    found.files.sort()
    return found


def _search(folder: str, skip: Path | None, found: Found) -> None:
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as scan:
                entries = list(scan)
        except OSError:
            if parent == folder:
                raise
            found.files.append(parent)
            continue
        for entry in entries:
            if _is_folder(entry):
                if skip is not None and skip.exists() and skip.samefile(entry.path):
                    continue
                if entry.name.startswith("."):
                    found.left_out["hidden"] += 1
                elif entry.is_symlink():
                    found.left_out["link to a folder"] += 1
                else:
                    waiting.append(entry.path)
            elif entry.name.startswith("."):  # ._a.jpg holds what a Mac keeps about a.jpg
                found.left_out["hidden"] += 1
            elif is_image_name(entry.name) or _holds_image(entry):
                found.files.append(entry.path)
            else:
                found.left_out[Path(entry.name).suffix.lower() or "without a suffix"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _holds_image(entry: os.DirEntry[str]) -> bool:
    if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES:
        return False
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            return is_image(file.read(HEAD))
    except OSError:
        return False
