"""Labelled images on disk in three layouts, listed in order and read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import zoo
from segrt.errors import InputError
from segrt.formats import READ_SUFFIXES


class Layout(str, Enum):
    """The folder layout of a data set."""

    FOLDER = "folder"
    CITYSCAPES = "cityscapes"
    ADE20K = "ade20k"


@dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    image: Path
    label: Path


# trainId for each id from 0 to 33, from labels.py of cityscapesScripts; 255 is ignored.
_CITYSCAPES = np.full(256, 255, np.uint8)
_CITYSCAPES[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(
    19
)


@dataclass(frozen=True)
class Truth:
    """How to read the label files of a data set.

    Example:
        >>> truth = Truth(Layout.CITYSCAPES)
        >>> labels = truth.read(pair.label)

    Attributes:
        layout: the folder layout.
        ignore: label of the pixels to ignore; None for the default of the data set.
    """

    layout: Layout = Layout.FOLDER
    ignore: int | None = None

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read a label file as class ids and labels to ignore, uint8 (H, W).

        Raises:
            InputError: the file can't be read, or is not an 8-bit image with one channel.
        """
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "P"):
                    raise InputError(
                        f"{path} is an image of mode {image.mode}: labels must be 8-bit with one "
                        "channel"
                    )
                labels = np.asarray(image, np.uint8)
        except OSError as error:
            raise InputError(f"{path} can't be read: {error}") from None
        if self.layout is Layout.ADE20K:
            labels = labels - np.uint8(1)  # 0, "unlabelled", becomes 255
        elif path.name.endswith("_labelIds.png"):
            labels = _CITYSCAPES[labels]
        return labels

    def ignore_index(self, classes: int) -> int:
        """The label to ignore for a model with this many classes.

        `ignore` if it is set. Otherwise, for a plain folder, the ignored label of the known data
        set with as many classes if there is exactly one; 255 in all other cases.
        """
        if self.ignore is not None:
            return self.ignore
        fitting = {d.ignore_index for d in zoo.load().datasets if len(d.classes) == classes}
        return fitting.pop() if self.layout is Layout.FOLDER and len(fitting) == 1 else 255


def find(folder: Path, layout: Layout) -> list[Pair]:
    """List the labelled images of a data set, sorted by image path.

    Every image must have labels; labels without an image are ignored.

    Example:
        >>> pairs = find(Path("camvid"), Layout.FOLDER)

    Args:
        folder: root of the data set.
        layout: FOLDER: `images/` and `labels/` with equal stems. CITYSCAPES: `leftImg8bit/val` and
            `gtFine/val`. ADE20K: `images/validation` and `annotations/validation`.

    Raises:
        InputError: the folder does not have this layout, or an image has no labels.
    """
    if layout is Layout.CITYSCAPES:
        images = sorted(folder.glob("leftImg8bit/val/*/*_leftImg8bit.png"))
        pairs = [Pair(image, _cityscapes_label(folder, image)) for image in images]
        wanted = "leftImg8bit/val/<city>/*_leftImg8bit.png"
    else:
        subfolders = (
            ("images", "labels")
            if layout is Layout.FOLDER
            else ("images/validation", "annotations/validation")
        )
        images = sorted(
            file
            for file in (folder / subfolders[0]).glob("*")
            if file.suffix.lower() in READ_SUFFIXES and not file.name.startswith(".")
        )
        pairs = [Pair(image, folder / subfolders[1] / f"{image.stem}.png") for image in images]
        wanted = f"{subfolders[0]}/ and {subfolders[1]}/"
    if not pairs:
        raise InputError(
            f"{folder} contains no data set in the layout {layout.value!r}: it needs {wanted}"
        )
    for pair in pairs:
        if not pair.label.is_file():
            raise InputError(f"{pair.image} has no labels: {pair.label} does not exist")
    return pairs


def _cityscapes_label(folder: Path, image: Path) -> Path:
    stem = folder / "gtFine/val" / image.parent.name / image.name.removesuffix("_leftImg8bit.png")
    train_ids = Path(f"{stem}_gtFine_labelTrainIds.png")
    return train_ids if train_ids.is_file() else Path(f"{stem}_gtFine_labelIds.png")
