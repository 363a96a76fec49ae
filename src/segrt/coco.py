"""Results of several images as one COCO data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segrt.errors import ConfigError
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
    paths: list[str | None] = []
    names: tuple[str, ...] | None = None
    models: dict[str, None] = {}
    for result in results:
        if isinstance(result, SegFailure):
            log.warning("left out of the COCO data set: %r: %s", result.input_path, result.error)
            continue
        if names not in (None, result.class_names):
            raise ConfigError(
                f"{result.input_path!r} has other classes than the results before: use results of "
                "one model"
            )
        names = result.class_names
        models[result.model_name] = None
        paths.append(result.input_path)
        images.append(_image(result, len(images) + 1))
        first = len(annotations) + 1
        annotations += result.to_coco_rle(
            compressed,
            per_region=per_region,
            image_id=len(images),
            first_id=first,
            first_category=1,
        )
    _name_files(images, paths)
    return {
        "info": {"description": f"Labels predicted by {', '.join(models) or 'no model'}"},
        "images": images,
        "categories": [
            {"id": index, "name": name, "supercategory": ""}
            for index, name in enumerate(names or (), 1)
        ],
        "annotations": annotations,
    }


def _image(result: SegResult, number: int) -> dict[str, Any]:
    height, width = result.labels.shape
    image = {"id": number, "file_name": f"{result.stem}.png", "height": height, "width": width}
    if result.page_index is not None:
        image["page_index"] = result.page_index
    if result.time is not None:
        image["time"] = result.time
    return image


def _name_files(images: list[dict[str, Any]], paths: list[str | None]) -> None:
    """Complete the names of images with a path."""
    files = []
    for image, path in zip(images, paths, strict=True):
        if path is None:
            continue
        image["file_name"] = file_name(path)
        if is_url(path):
            image["coco_url"] = path
        elif not path.startswith("camera:"):
            files.append((image, os.path.abspath(path)))
    try:
        folder = os.path.commonpath([os.path.dirname(path) for _, path in files])
    except ValueError:  # no files, or on different drives
        return
    for image, path in files:
        image["file_name"] = Path(path).relative_to(folder).as_posix()
