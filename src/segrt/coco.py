"""Results of several images as one COCO data set, in memory or in a file."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from segrt.errors import ConfigError, InputError
from segrt.files import replacing
from segrt.frame import SegFailure
from segrt.names import file_name, is_url
from segrt.result import SegResult

log = logging.getLogger("segrt")


def to_coco(
    results: Iterable[SegResult | SegFailure], *, compressed: bool = True, per_region: bool = False
) -> dict[str, Any]:
    """Collect the results of one model in a COCO data set, as read by pycocotools.

    Images have `id` (from 1), `file_name`, `height` and `width`, and where they apply `page_index`,
    `time` and `coco_url`. File names are relative to the folder that contains all files; images
    from arrays are named after `stem`. The categories are all classes of the model; their `id` is
    the class id plus 1, since datumaro and others read category 0 as "no label". Annotations are
    those of `SegResult.to_coco_rle`, numbered from 1.

    Example:
        >>> data = segrt.to_coco(pipeline.predict("photos/"), per_region=True)
        >>> Path("labels.json").write_text(json.dumps(data))
        >>> pycocotools.coco.COCO("labels.json").getAnnIds(imgIds=[1])
        [1, 2, 3]

    Args:
        results: results of `predict`. Failures are left out, with a warning.
        compressed: as in `SegResult.to_coco_rle`.
        per_region: likewise.

    Returns:
        dict: `info`, `images`, `categories` and `annotations`, ready for `json.dumps`.

    Raises:
        ConfigError: the results have different classes.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    data_set = _DataSet(compressed, per_region)
    for result in results:
        if isinstance(result, SegFailure):
            log.warning("left out of the COCO data set: %r: %s", result.input_path, result.error)
            continue
        image, found = data_set.add(result)
        images.append(image)
        annotations += found
    return {
        "info": data_set.info,
        "images": [data_set.named(image) for image in images],
        "categories": data_set.categories,
        "annotations": annotations,
    }


class CocoFile:
    """A file like those of `to_coco`, for any number of images: few of them are in memory at once.

    What is added waits in temporary files in the same folder, which vanish even if the process is
    killed. The file itself appears, or is replaced, as a whole when it is finished.

    Example:
        >>> with CocoFile(Path("labels.json"), per_region=True) as file:
        ...     for result in pipeline.predict("photos/", on_error="skip"):
        ...         file.add(result)
        ...     file.finish()

    Attributes:
        file: the file; missing folders are created.
    """

    def __init__(self, file: Path, *, per_region: bool = False) -> None:
        """Begin a file.

        Args:
            file: its path.
            per_region: as in `SegResult.to_coco_rle`.

        Raises:
            InputError: its folder can't be created or written.
        """
        self.file = file
        self._data_set = _DataSet(True, per_region)
        with _reported(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                self._images, self._annotations = (
                    opened.enter_context(tempfile.TemporaryFile(dir=file.parent)) for _ in range(2)
                )
                self._opened = opened.pop_all()

    def __enter__(self) -> CocoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, result: SegResult) -> None:
        """Add an image with its annotations.

        Raises:
            ConfigError: it has other classes than the images before.
            InputError: the disk is full.
        """
        image, annotations = self._data_set.add(result)
        with _reported(self.file):
            self._images.write(json.dumps(image).encode() + b"\n")
            for annotation in annotations:
                self._annotations.write(json.dumps(annotation).encode() + b"\n")

    def finish(self) -> None:
        """Write the file, after the last image.

        Raises:
            InputError: it can't be written.
        """
        with (
            _reported(self.file),
            replacing(self.file, ".json") as temporary,
            temporary.open("wb") as file,
        ):
            file.write(b'{"info": ' + json.dumps(self._data_set.info).encode())
            file.write(b',\n"images": [\n')
            images = (self._data_set.named(json.loads(line)) for line in _from_start(self._images))
            file.writelines(_separated(json.dumps(image).encode() for image in images))
            file.write(b'\n],\n"categories": ' + json.dumps(self._data_set.categories).encode())
            file.write(b',\n"annotations": [\n')
            file.writelines(_separated(line[:-1] for line in _from_start(self._annotations)))
            file.write(b"\n]}\n")


class _DataSet:
    """What is known of a data set before its last image."""

    def __init__(self, compressed: bool, per_region: bool) -> None:
        self._compressed, self._per_region = compressed, per_region
        self._images = self._annotations = 0  # how many there are
        self._classes: tuple[str, ...] | None = None
        self._models: dict[str, None] = {}
        self._folder: str | None = None  # of all files; "" if they are on different drives

    @property
    def info(self) -> dict[str, str]:
        return {"description": f"Labels predicted by {', '.join(self._models) or 'no model'}"}

    @property
    def categories(self) -> list[dict[str, Any]]:
        return [
            {"id": index, "name": name, "supercategory": ""}
            for index, name in enumerate(self._classes or (), 1)
        ]

    def add(self, result: SegResult) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The image and the annotations of a result; the name of the image is not yet complete."""
        if self._classes not in (None, result.class_names):
            raise ConfigError(
                f"{result.input_path!r} has other classes than the results before: use results of "
                "one model"
            )
        self._classes = result.class_names
        self._models[result.model_name] = None
        self._images += 1
        annotations = result.to_coco_rle(
            self._compressed,
            per_region=self._per_region,
            image_id=self._images,
            first_id=self._annotations + 1,
            first_category=1,
        )
        self._annotations += len(annotations)
        return self._image(result), annotations

    def named(self, image: dict[str, Any]) -> dict[str, Any]:
        """An image with its final name, which is relative to the folder that contains all files."""
        path = image["file_name"]
        if os.path.isabs(path):
            name = Path(path).relative_to(self._folder).as_posix() if self._folder else ""
            image["file_name"] = name or file_name(path)
        return image

    def _image(self, result: SegResult) -> dict[str, Any]:
        height, width = result.labels.shape
        path, name = result.input_path, f"{result.stem}.png"
        if path is not None and (is_url(path) or path.startswith("camera:")):
            name = file_name(path)
        elif path is not None:
            name = os.path.abspath(path)
            self._folder = _common(self._folder, os.path.dirname(name))
        image = {"id": self._images, "file_name": name, "height": height, "width": width}
        if result.page_index is not None:
            image["page_index"] = result.page_index
        if result.time is not None:
            image["time"] = result.time
        if path is not None and is_url(path):
            image["coco_url"] = path
        return image


def _common(folder: str | None, other: str) -> str:
    """The folder that contains both; "" if they are on different drives."""
    if folder is None:
        return other
    try:
        return os.path.commonpath([folder, other]) if folder else ""
    except ValueError:
        return ""


def _from_start(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _separated(items: Iterable[bytes]) -> Iterator[bytes]:
    """The items of a JSON list, a line each."""
    for number, item in enumerate(items):
        yield b",\n" + item if number else item


@contextmanager
def _reported(file: Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror or error}") from None
