"""What `Pipeline.predict` yields for each image."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import encode, render, shapes
from segrt.errors import ConfigError, MissingExtraError
from segrt.files import is_same_file, write_atomic
from segrt.formats import IMAGE_SUFFIXES
from segrt.names import file_name
from segrt.types import LabelFormat, parse_label_format

_LOSSY = frozenset((".jpeg", ".jpg"))


@dataclass(frozen=True)
class Timings:
    """Milliseconds spent on one image; in a batch, its share of the batch.

    Example:
        >>> print(f"{result.timings.run:.1f} ms of {result.timings.total:.1f} ms in the network")

    Attributes:
        preprocess: from the decoded image to the network's input.
        run: the network.
        postprocess: from the network's output to labels at the size of the source image.
    """

    preprocess: float
    run: float
    postprocess: float

    @property
    def total(self) -> float:
        """The sum of the three."""
        return self.preprocess + self.run + self.postprocess


@dataclass(frozen=True, eq=False)
class SegResult(Mapping[str, Any]):
    """The labels of one image, with everything needed to show and save them.

    What is saved never replaces the image that was read: `save_to_img`, `save_to_json` and
    `save_overlay` raise ConfigError instead, whatever name or link leads to it. In a folder, files
    with the names of results are taken for results of an earlier run, and replaced; so is a file
    whose name is given.

    It is also a mapping with PaddleX's keys: `input_path`, `page_index` and `pred` (int32, shape
    (1, H, W)). Two results are equal only if they are the same object.

    Example:
        >>> for result in pipeline.predict("road.png"):
        ...     print(result.areas())
        ...     result.save_to_img("./output/")

    Attributes:
        labels: int32 (H, W), the size of the source image; class ids in [0, num_classes).
        image: the source image, uint8 (H, W, 3), BGR.
        input_path: path, URL or camera; None for an array or bytes.
        page_index: zero-based index of a PDF page or of a TIFF or video frame; None for formats
            with a single image.
        class_names: the name of each class id; `class_7` if the model has no names.
        palette: uint8 (K, 3), RGB.
        model_name: the model.
        provider: the execution provider that ran it.
        precision: the arithmetic it ran in.
        timings: milliseconds per step.
        stem: file name without suffix, and without `_res`, used when the result is saved to a
            folder.
        scores: float32 (H, W), in (0, 1]: the softmax probability of each pixel's class; None
            unless requested with `predict(..., scores=True)`.
        time: seconds from the start of a video, animation or camera; None for other sources.
        error: always None; a `SegFailure` has an error.
    """

    labels: npt.NDArray[np.int32]
    image: npt.NDArray[np.uint8] = field(repr=False)
    input_path: str | None
    page_index: int | None
    class_names: tuple[str, ...] = field(repr=False)
    palette: npt.NDArray[np.uint8] = field(repr=False)
    model_name: str
    provider: str
    precision: str
    timings: Timings
    stem: str
    scores: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    time: float | None = None
    error: None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.image.shape[:2]:
            raise ValueError(
                f"labels of shape {self.labels.shape} don't fit an image of shape "
                f"{self.image.shape}"
            )

    # Mapping would compare the arrays, which has no truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, key: str) -> Any:
        if key == "pred":
            return self.labels[None]
        if key in ("input_path", "page_index"):
            return getattr(self, key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("input_path", "page_index", "pred"))

    def __len__(self) -> int:
        return 3

    @property
    def json(self) -> dict[str, dict[str, Any]]:
        """`{"res": {"input_path": ..., "page_index": ..., "pred": nested list (1, H, W)}}`."""
        return {"res": {**self, "pred": self.labels[None].tolist()}}

    @property
    def img(self) -> dict[str, Image.Image]:
        """`{"res": picture}`: the coloured label map, RGB, at the size of the source image."""
        return {"res": Image.fromarray(render.colorize(self.labels, self.palette))}

    def areas(self) -> dict[str, float]:
        """The share of the image covered by each class present, by name, largest first.

        Classes of one name are added up.

        Example:
            >>> result.areas()
            {'road': 0.41, 'sky': 0.33, 'building': 0.26}
        """
        areas: dict[str, float] = {}
        for c, share in zip(*self.shares(), strict=True):
            areas[self.class_names[c]] = areas.get(self.class_names[c], 0) + share
        return areas

    def masks(self) -> dict[str, shapes.Mask]:
        """A bool mask (H, W) for each class present, by name, largest first.

        Classes of one name have one mask.

        Example:
            >>> road = result.masks()["road"]
            >>> result.image[~road] = 0  # black out everything else
        """
        masks: dict[str, shapes.Mask] = {}
        for c in self.shares()[0]:
            name, mask = self.class_names[c], self.labels == c
            masks[name] = masks[name] | mask if name in masks else mask
        return masks

    @property
    def legend(self) -> Image.Image:
        """Colours, names and areas of the classes present, largest first: RGB."""
        classes, shares = self.shares()
        return render.legend(classes, self.class_names, self.palette, shares)

    def to_polygons(self) -> list[shapes.Polygon]:
        """The exact outline of each connected region, ordered by class id.

        Example:
            >>> for polygon in result.to_polygons():
            ...     print(polygon.class_name, polygon.area, polygon.exterior.shape)
        """
        return [
            shapes.Polygon(c, self.class_names[c], exterior, holes)
            for c in sorted(self.shares()[0])
            for exterior, holes in shapes.outlines(self.labels == c)
        ]

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection (RFC 7946) with one Polygon for each connected region.

        Coordinates are pixels, not degrees: x to the right and y **down** from the upper left
        corner of the image.

        Example:
            >>> Path("regions.geojson").write_text(json.dumps(result.to_geojson()))
        """
        return {
            "type": "FeatureCollection",
            "features": [_feature(polygon) for polygon in self.to_polygons()],
        }

    def to_coco_rle(self, compressed: bool = True) -> list[dict[str, Any]]:
        """Each class present as a COCO annotation, ordered by class id, as read by pycocotools.

        Example:
            >>> from pycocotools import mask
            >>> mask.decode(result.to_coco_rle()[0]["segmentation"])  # uint8 (H, W)

        Args:
            compressed: whether the counts are pycocotools' text rather than a list of numbers.

        Returns:
            list[dict]: `category_id`, `category_name`, `area` in pixels, `bbox` as
                [x, y, width, height], and `segmentation` as {"size": [H, W], "counts": ...}.
        """
        annotations = []
        for c, counts in shapes.rle_counts(self.labels).items():
            left, top, right, bottom = shapes.bounds(self.labels == c)
            annotations.append(
                {
                    "category_id": c,
                    "category_name": self.class_names[c],
                    "area": sum(counts[1::2]),
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": {
                        "size": list(self.labels.shape),
                        "counts": shapes.rle_string(counts) if compressed else counts,
                    },
                }
            )
        return annotations

    def to_supervision(self) -> Any:
        """A `supervision.Detections` with one mask for each class present, ordered by class id.

        The class names are in its `data["class_name"]`.

        Example:
            >>> import supervision as sv
            >>> sv.MaskAnnotator().annotate(result.image.copy(), result.to_supervision())

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise MissingExtraError(
                "to_supervision needs supervision: run  pip install 'segrt[supervision]'"
            ) from None
        classes = sorted(self.shares()[0])
        masks = np.stack([self.labels == c for c in classes])
        return supervision.Detections(
            xyxy=np.array([shapes.bounds(mask) for mask in masks], np.float32),
            mask=masks,
            class_id=np.array(classes),
            data={"class_name": np.array([self.class_names[c] for c in classes])},
        )

    def overlay(self, alpha: float = 0.5, *, legend: bool = True) -> Image.Image:
        """Blend the class colours over the source image.

        Example:
            >>> result.overlay(alpha=0.4, legend=False).show()

        Args:
            alpha: weight of the class colour, from 0 (only the photo) to 1 (only the labels).
            legend: whether to add colours, names and areas to the right.

        Returns:
            PIL.Image.Image: RGB.

        Raises:
            ConfigError: alpha is not in [0, 1].
        """
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha {alpha!r} is not valid: it must be from 0 to 1")
        picture = render.overlay(self.image, self.labels, self.palette, alpha)
        if not legend:
            return Image.fromarray(picture)
        classes, shares = self.shares()
        return render.with_legend(picture, classes, self.class_names, self.palette, shares)

    def print(self, format_json: bool = True, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Print `{'res': {'input_path': ..., 'page_index': ..., 'pred': '...'}}`.

        Args:
            format_json: whether to print indented JSON rather than one line.
            indent: spaces per level of the JSON.
            ensure_ascii: whether the JSON escapes non-ASCII characters. They always are where
                stdout can't represent them.
        """
        data = {"res": {**self, "pred": "..."}}
        text = f"{data}"
        if format_json:
            text = json.dumps(data, indent=indent, ensure_ascii=ensure_ascii)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = json.dumps(data, indent=indent) if format_json else ascii(data)
        print(text)

    def save_to_img(self, save_path: str | Path) -> list[Path]:
        """Save the coloured label map.

        In a folder, `a.jpg` becomes `a_res.jpg`, and page 3 of `doc.pdf` becomes `doc_3_res.png`.
        JPEG compression changes colours, so a JPEG can't represent a label map: a `.png` is written
        next to every JPEG. It is indexed: its pixel values are the class ids and its palette
        contains the colours. If `save_path` is the name of a JPEG, that PNG replaces only a file
        that segrt wrote for the same purpose.

        Example:
            >>> result.save_to_img("./output/")
            [PosixPath('output/road_res.png')]

        Args:
            save_path: a folder, created if missing, or a file name ending in an image suffix.

        Returns:
            list[Path]: the files written.

        Raises:
            ConfigError: `save_path` is the input itself or no valid path, or the PNG next to a
                JPEG would replace a file of another origin; nothing is written.
            OSError: the disk is full, or the path can't be written.
        """
        suffix = Path(file_name(self.input_path)).suffix if self.input_path else ""
        own = suffix if suffix.lower() in IMAGE_SUFFIXES else ".png"
        target = self._target(save_path, f"_res{own}", IMAGE_SUFFIXES)
        if target.suffix.lower() not in _LOSSY:
            self._write({target: self._encode(target.suffix.lower())})
            return [target]
        beside = target.with_suffix(".png")
        if target == Path(save_path) and beside.is_file() and not encode.is_marked(beside):
            raise ConfigError(
                f"{beside}, which is written next to {target.name}, exists and is not from segrt: "
                "give another name, or move it away"
            )
        self._write(
            {
                target: self._encode(target.suffix.lower()),
                beside: encode.mark(self._encode(".png")),
            }
        )
        return [target, beside]

    def save_to_json(
        self,
        save_path: str | Path,
        indent: int | None = None,
        ensure_ascii: bool = False,
        *,
        label_format: LabelFormat = "list",
    ) -> Path:
        """Save the value of "res" in `json`, optionally with the labels in a compact form.

        Example:
            >>> result.save_to_json("./output/", label_format="rle")
            PosixPath('output/road_res.json')

        Args:
            save_path: a folder, where `a.jpg` becomes `a_res.json`, or a file name ending in
                `.json`.
            indent: spaces per level. PaddleX uses 4, which puts each pixel on a line of its own.
            ensure_ascii: whether to escape non-ASCII characters.
            label_format: the form of "pred". "list": class ids nested as (1, H, W), like PaddleX.
                "rle": the result of `to_coco_rle`. "png": a base64 PNG whose pixel values are the
                class ids. "rle" and "png" add the keys `label_format`, `size` ([H, W]) and
                `class_names`.

        Returns:
            Path: the file written.

        Raises:
            ConfigError: label_format is unknown, or `save_path` is the input itself or no valid
                path.
            OSError: the disk is full, or the path can't be written.
        """
        data: dict[str, Any] = {"input_path": self.input_path, "page_index": self.page_index}
        if parse_label_format(label_format) != "list":
            data |= {
                "label_format": label_format,
                "size": self.labels.shape,
                "class_names": self.class_names,
            }
        if label_format == "rle":
            data["pred"] = self.to_coco_rle()
        elif label_format == "png":
            data["pred"] = base64.b64encode(self.label_png()).decode()
        else:
            data["pred"] = None  # replaced below: json is slow on large lists
        separators = (",", ":") if indent is None else None
        text = json.dumps(
            data, indent=indent, ensure_ascii=ensure_ascii, separators=separators
        ).encode("utf-8", "backslashreplace")  # names that are not UTF-8: \\udcb5 is JSON as well
        if label_format == "list":
            before, _, after = text.rpartition(b"null")
            text = before + encode.nested_json(self.labels, indent) + after
        target = self._target(save_path, "_res.json", {".json"})
        self._write({target: text})
        return target

    def save_all(self, save_path: str | Path) -> None:
        """Save both the picture and the JSON to a folder.

        Example:
            >>> result.save_all("./output/")
        """
        self.save_to_img(save_path)
        self.save_to_json(save_path)

    def save_overlay(
        self, save_path: str | Path, alpha: float = 0.5, *, legend: bool = True
    ) -> Path:
        """Save `overlay(alpha, legend=legend)`.

        Example:
            >>> result.save_overlay("./output/")
            PosixPath('output/road_overlay.png')

        Args:
            save_path: a folder, where `a.jpg` becomes `a_overlay.png`, or a file name ending in an
                image suffix.
            alpha: weight of the class colour.
            legend: whether to add a legend.

        Returns:
            Path: the file written.

        Raises:
            ConfigError: alpha is not in [0, 1], or `save_path` is the input itself or no valid
                path.
            OSError: the disk is full, or the path can't be written.
        """
        target = self._target(save_path, "_overlay.png", IMAGE_SUFFIXES)
        picture = self.overlay(alpha, legend=legend)
        self._write({target: encode.rgb(picture, target.suffix.lower())})
        return target

    def shares(self) -> tuple[list[int], list[float]]:
        """Ids of the classes present, largest first, and the share of the image each covers."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        classes = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
        return classes, [float(counts[c]) / self.labels.size for c in classes]

    def flat_json(self) -> bytes:
        """The class ids, row by row, as one flat JSON list."""
        return encode.flat_json(self.labels)

    def label_png(self) -> bytes:
        """A PNG whose pixel values are the class ids; 16-bit grey for more than 256 classes."""
        return encode.label_png(self.labels, self.palette, len(self.class_names))

    def _target(self, save_path: str | Path, ending: str, suffixes: Collection[str]) -> Path:
        """`save_path` itself if it ends in one of `suffixes`; otherwise a file in that folder."""
        target = Path(save_path)
        return target if target.suffix.lower() in suffixes else target / f"{self.stem}{ending}"

    def _write(self, contents: Mapping[Path, bytes]) -> None:
        """Write files, unless one of them is the input."""
        for file in contents:
            if self.input_path and is_same_file(self.input_path, file):
                raise ConfigError(f"{file} is the input itself: save to another folder or name")
        try:
            for file, content in contents.items():
                write_atomic(file, content)
        except ValueError as error:  # a null character, or one that file names can't hold here
            raise ConfigError(f"{str(file)!a} can't be a file name here: {error}") from None

    def _encode(self, suffix: str) -> bytes:
        if suffix == ".png":
            return self.label_png()
        return encode.rgb(self.img["res"], suffix)


def _feature(polygon: shapes.Polygon) -> dict[str, Any]:
    rings = [[*ring.tolist(), ring[0].tolist()] for ring in (polygon.exterior, *polygon.holes)]
    return {
        "type": "Feature",
        "properties": {
            "class_id": polygon.class_id,
            "class_name": polygon.class_name,
            "area": polygon.area,
        },
        "geometry": {"type": "Polygon", "coordinates": rings},
    }
