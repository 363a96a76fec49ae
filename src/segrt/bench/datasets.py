"""Labelled images on disk, in three layouts, found in order and read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import zoo
from segrt.errors import InputError
from segrt.result import IMAGE_SUFFIXES


class Layout(str, Enum):
    """How a data set lies on disk."""

    FOLDER = "folder"
    CITYSCAPES = "cityscapes"
    ADE20K = "ade20k"


@dataclass(frozen=True)
class Pair:
    """An image file and the file with its labels."""

    image: Path
    label: Path


# trainId of each id from 0 to 33, from labels.py of cityscapesScripts; 255 is ignored.
_CITYSCAPES = np.full(256, 255, np.uint8)
_CITYSCAPES[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(
    19
)


@dataclass(frozen=True)
class Truth:
    """How to read the label files of a data set.

    Attributes:
        layout: of the data set.
        ignore: the label of pixels that don't count, where the user names one.
    """

    layout: Layout = Layout.FOLDER
    ignore: int | None = None

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read a label file: uint8 (H, W), class ids and labels to ignore.

        Raises:
            InputError: it can't be read, or is not an 8-bit picture of one channel.
        """
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "P"):
                    raise InputError(
                        f"{path} is a picture of mode {image.mode}: labels are 8-bit with one channel"
                    )
                labels = np.asarray(image, np.uint8)
        except OSError as error:
            raise InputError(f"{path} can't be read: {error}") from None
        if self.layout is Layout.ADE20K:
            labels = labels - np.uint8(1)  # 0, which means nothing, becomes 255
        elif path.name.endswith("_labelIds.png"):
            labels = _CITYSCAPES[labels]
        return labels

    def ignore_index(self, classes: int) -> int:
        """The label that does not count: the user's, else that of the one known data set with as many classes."""
        if self.ignore is not None:
            return self.ignore
        fitting = {d.ignore_index for d in zoo.load().datasets if len(d.classes) == classes}
        return fitting.pop() if self.layout is Layout.FOLDER and len(fitting) == 1 else 255


def find(folder: Path, layout: Layout) -> list[Pair]:
    """List the labelled images of a data set.

    Args:
        folder: of the data set. FOLDER: `images/` and `labels/`, same stems. CITYSCAPES: `leftImg8bit/val` and
            `gtFine/val`. ADE20K: `images/validation` and `annotations/validation`.
        layout: which of these.

    Returns:
        list[Pair]: sorted by path of the image; images without labels are an error, labels without image are not.

    Raises:
        InputError: the folder is not laid out so, or an image has no labels.
    """
    if layout is Layout.CITYSCAPES:
        images = sorted(folder.glob("leftImg8bit/val/*/*_leftImg8bit.png"))
        pairs = [Pair(image, _cityscapes_label(folder, image)) for image in images]
        wanted = "leftImg8bit/val/<city>/*_leftImg8bit.png"
    else:
        below = (
            ("images", "labels")
            if layout is Layout.FOLDER
            else ("images/validation", "annotations/validation")
        )
        images = sorted(
            p for p in (folder / below[0]).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES
        )
        pairs = [Pair(image, folder / below[1] / f"{image.stem}.png") for image in images]
        wanted = f"{below[0]}/ and {below[1]}/"
    if not pairs:
        raise InputError(
            f"{folder} holds no data set laid out as {layout.value}: it needs {wanted}"
        )
    for pair in pairs:
        if not pair.label.is_file():
            raise InputError(f"{pair.image} has no labels: {pair.label} does not exist")
    return pairs


def _cityscapes_label(folder: Path, image: Path) -> Path:
    stem = folder / "gtFine/val" / image.parent.name / image.name.removesuffix("_leftImg8bit.png")
    train_ids = Path(f"{stem}_gtFine_labelTrainIds.png")
    return train_ids if train_ids.is_file() else Path(f"{stem}_gtFine_labelIds.png")
