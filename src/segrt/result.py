"""What `Pipeline.predict` yields for each image."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import encode, notebook, render, shapes
from segrt.errors import ConfigError, MissingExtraError
from segrt.files import is_same_file, write_atomic
from segrt.formats import IMAGE_SUFFIXES, GeoTags
from segrt.lettering import legend as draw_legend
from segrt.look import Background, Legend, Look
from segrt.names import names_folder, short_stem, suffix
from segrt.result_dict import IMAGE, LABELS, OWN, ResultDict, dump, plain
from segrt.types import LabelFormat, parse_label_format, shown

_PIXELS = "pixels: x to the right, y down from the upper left corner of the image"
# RFC 7946 knows degrees only; GDAL reads a crs of its predecessor, by name. "crs": null, which is
# in the predecessor as well, means degrees to GDAL.
_PIXELS_WKT = 'LOCAL_CS["pixels of the image",UNIT["pixel",1],AXIS["x",EAST],AXIS["y",SOUTH]]'


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


@dataclass(frozen=True, eq=False, repr=False)
class SegResult(ResultDict):
    """The labels of one image, with everything needed to show and save them.

    What is saved never replaces the image that was read: `save_to_img`, `save_to_json` and
    `save_overlay` raise ConfigError instead, whatever name or link leads to it. In a folder, files
    with the names of results are taken for results of an earlier run, and replaced; so is a file
    whose name is given. With `overwrite=False`, files that exist are left as they are.

    Notebooks show the overlay, the share of each class and the timings.

    It is also a mutable mapping with PaddleX's keys: `input_path`, `page_index`, `input_img`
    (uint8, RGB; or the bands) and `pred` (int32, shape (1, H, W)); those of videos have `time` as
    well. Attributes can't be assigned, items can: `result["pred"] = ...` replaces `labels`, and so
    everything made of them; `scores` remain those of the network. A new `input_path` or
    `page_index` gives a new `stem`. Further items are printed and saved as JSON. Two results are
    equal only if they are the same object.

    Example:
        >>> for result in pipeline.predict("road.png"):
        ...     print(result.areas())
        ...     result.save_to_img("./output/")

    Attributes:
        labels: int32 (H, W), the size of the source image; class ids in [0, num_classes).
        image: the source image, uint8 (H, W, 3), BGR; or its `bands`, (H, W, C), as they are.
        input_path: path, URL or camera; None for an array or bytes.
        page_index: zero-based index of a PDF page or of a TIFF or video frame; None for formats
            with a single image.
        class_names: the name of each class id; `class_7` if the model has no names.
        palette: uint8 (K, 3), RGB: the colours of overlays and legends.
        model_name: the model.
        provider: the execution provider that ran it.
        precision: the arithmetic it ran in.
        timings: milliseconds per step.
        stem: file name without suffix, and without `_res`, used when the result is saved to a
            folder.
        scores: float32 (H, W), in (0, 1]: the softmax probability of each pixel's class; None
            unless requested with `predict(..., scores=True)`.
        time: seconds from the start of a video, animation or camera; None for other sources.
        geotags: where the image is, if it is a page of a GeoTIFF: the values of its tags by their
            numbers, for the label picture saved as TIFF.
        label_palette: uint8 (K, 3), RGB: the colours of label pictures, such as `img`; None if they
            are those of `palette`.
        error: always None; a `SegFailure` has an error.
        bands: the names of the channels of `image`, in order, of a model that takes bands; empty
            for a picture. What shows the image, such as `overlay`, shows the bands called red,
            green and blue, else the first three, or the first alone: uint8 as it is; other types
            so that the 2nd and 98th percentile of each band become black and full brightness.
    """

    labels: npt.NDArray[np.int32]
    image: npt.NDArray[Any]
    input_path: str | None
    page_index: int | None
    class_names: tuple[str, ...]
    palette: npt.NDArray[np.uint8]
    model_name: str
    provider: str
    precision: str
    timings: Timings
    stem: str
    scores: npt.NDArray[np.float32] | None = None
    time: float | None = None
    geotags: GeoTags | None = field(default=None, repr=False)
    label_palette: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    error: None = None
    bands: tuple[str, ...] = ()
    _items: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.image.shape[:2]:
            raise ValueError(
                f"labels of shape {self.labels.shape} don't fit an image of shape "
                f"{self.image.shape}"
            )
        self._items.update((key, None) for key in OWN if key != "time" or self.time is not None)

    # Mapping would compare the arrays, which has no truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<SegResult {self._title()}: {self._summary()}>"

    def _title(self) -> str:
        name = "an array" if self.input_path is None else os.path.basename(self.input_path)
        page = "" if self.page_index is None else f", {self.page_index}"
        return f"{name}{page}"

    def _summary(self) -> str:
        height, width = self.labels.shape
        shares = [f"{name} {share:.0%}" for name, share in self.areas().items()]
        more = [f"{len(shares) - 3} more"] if len(shares) > 3 else []
        return f"{height} x {width}, {', '.join(shares[:3] + more)}; {self._run()}"

    def _run(self) -> str:
        took = f"{self.timings.total:.1f} ms"
        return f"{self.model_name} on {self.provider} {self.precision}, {took}"

    def _repr_png_(self) -> bytes:
        return notebook.encoded(self.overlay(), "PNG")

    def _repr_html_(self) -> str:
        colours = {
            self.class_names[c]: self.palette[c].tolist() for c in shapes.shares(self.labels)
        }
        height, width = self.labels.shape
        return notebook.html(
            self.overlay(legend=False),
            self._title(),
            self.areas(),
            colours,
            f"{height} x {width}; {self._run()}",
        )

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The image as it is shown: uint8 (H, W, 3), BGR; see `bands`."""
        return render.shown_bands(self.image, self.bands) if self.bands else self.image

    @property
    def img(self) -> dict[str, Image.Image]:
        """`{"res": picture}`: the coloured label map, RGB, at the size of the source image."""
        return {"res": Image.fromarray(render.colorize(self.labels, self._label_palette))}

    @property
    def _label_palette(self) -> npt.NDArray[np.uint8]:
        return self.palette if self.label_palette is None else self.label_palette

    def areas(self) -> dict[str, float]:
        """The share of the image covered by each class present, by name, largest first.

        Classes of one name are added up.

        Example:
            >>> result.areas()
            {'road': 0.41, 'sky': 0.33, 'building': 0.26}
        """
        areas: dict[str, float] = {}
        for c, share in shapes.shares(self.labels).items():
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
        for c in shapes.shares(self.labels):
            name, mask = self.class_names[c], self.labels == c
            masks[name] = masks[name] | mask if name in masks else mask
        return masks

    def legend(self) -> Image.Image:
        """Draw colours, names and areas of the classes present, largest first: RGB.

        Example:
            >>> result.legend().save("legend.png")
        """
        return draw_legend(
            [
                render.row(c, self.class_names, self.palette, share)
                for c, share in shapes.shares(self.labels).items()
            ]
        )

    def to_polygons(self) -> list[shapes.Polygon]:
        """The exact outline of each connected region, ordered by class id, then from top to bottom.

        The polygons are valid, and cover the image without overlaps.

        Example:
            >>> for polygon in result.to_polygons():
            ...     print(polygon.class_name, polygon.area, polygon.exterior.shape)
        """
        return [
            shapes.Polygon(label, self.class_names[label], exterior, holes)
            for label, exterior, holes in shapes.regions(self.labels)
        ]

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection (RFC 7946) with one Polygon for each connected region.

        Coordinates are pixels, not degrees: x to the right and y **down** from the upper left
        corner of the image. Its member `crs` tells this to GDAL, and programs based on it: a local
        coordinate system with the unit pixel. Its member `image` contains the image's `height` and
        `width`, and says in words what the `coordinates` are.

        Example:
            >>> Path("regions.geojson").write_text(json.dumps(result.to_geojson()))
        """
        height, width = self.labels.shape
        return {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": _PIXELS_WKT}},
            "image": {"height": height, "width": width, "coordinates": _PIXELS},
            "features": [_feature(polygon) for polygon in self.to_polygons()],
        }

    def to_coco_rle(
        self,
        compressed: bool = True,
        *,
        per_region: bool = False,
        image_id: int = 1,
        first_id: int = 1,
        first_category: int = 0,
    ) -> list[dict[str, Any]]:
        """Each class present as a COCO annotation, ordered by class id, as read by pycocotools.

        `segrt.to_coco` makes a complete COCO file of several results.

        Example:
            >>> from pycocotools import mask
            >>> mask.decode(result.to_coco_rle()[0]["segmentation"])  # uint8 (H, W)

        Args:
            compressed: whether the counts are pycocotools' text rather than a list of numbers.
            per_region: whether to return an annotation for each connected region, as in
                `to_polygons`, rather than for each class. Objects of one class that touch are one
                region.
            image_id: the `image_id` of all annotations.
            first_id: the `id` of the first annotation; the others follow. pycocotools' evaluation
                takes 0 for "no match".
            first_category: the `category_id` of class 0; 1 in the files of `segrt.to_coco`.

        Returns:
            list[dict]: `id`, `image_id`, `category_id`, `category_name`, `iscrowd` (0), `area` in
                pixels, `bbox` as [x, y, width, height], `segmentation` as {"size": [H, W],
                "counts": ...}, and `score`: the mean of `scores` there, 1.0 without them.
        """
        height, width = self.labels.shape
        parts = shapes.components(self.labels) if per_region else self.labels
        scores = self._mean_scores(parts)
        runs = shapes.rle_counts(parts)
        texts = shapes.rle_strings(runs.values()) if compressed else runs.values()
        boxes = shapes.rle_boxes(runs.values(), height)
        annotations: list[dict[str, Any]] = []
        for (part, counts), text, box in zip(runs.items(), texts, boxes, strict=True):
            column, row = divmod(counts[0], height)
            category = int(self.labels[row, column])
            annotations.append(
                {
                    "id": 0,
                    "image_id": image_id,
                    "category_id": category + first_category,
                    "category_name": self.class_names[category],
                    "iscrowd": 0,
                    "area": sum(counts[1::2]),
                    "bbox": list(box),
                    "segmentation": {"size": [height, width], "counts": text},
                    "score": 1.0 if scores is None else scores[part],
                }
            )
        annotations.sort(key=lambda annotation: annotation["category_id"])
        for number, annotation in enumerate(annotations, first_id):
            annotation["id"] = number
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
        classes = sorted(shapes.shares(self.labels))
        masks = np.stack([self.labels == c for c in classes])
        return supervision.Detections(
            xyxy=np.array([shapes.bounds(mask) for mask in masks], np.float32),
            mask=masks,
            class_id=np.array(classes),
            data={"class_name": np.array([self.class_names[c] for c in classes])},
        )

    def overlay(
        self,
        alpha: float | None = None,
        *,
        legend: bool | Legend | None = None,
        outlines: bool | None = None,
        names: bool = False,
        only: str | Sequence[str] | None = None,
        background: Background | None = None,
        side_by_side: bool = False,
    ) -> Image.Image:
        """Blend the class colours over the source image, or cut classes out of it.

        Example:
            >>> result.overlay(alpha=0.4, names=True, legend="below").show()
            >>> result.overlay(only="car", background="transparent").save("car.png")

        Args:
            alpha: weight of the class colour, from 0 (only the photo) to 1 (only the labels); None
                is 0.5, or 0 with a background.
            legend: "right", "below" or "inside" the picture, "none", or "auto": below tall
                pictures, right of others. True is "auto", False "none". None is "auto", or "none"
                with a background. An inside legend that does not fit is placed as with "auto".
            outlines: whether to draw lines between classes; None draws them if two of the classes
                present have colours that are hard to tell apart (`segrt.colour_distance.CLOSE`).
            names: whether to write the names of the classes into large regions.
            only: classes to show, as a list or separated by commas; the rest remains a photo.
            background: cut out the classes of `only`, or all but a class named background: what
                replaces the rest is the photo, blurred ("blur"), "white", or nothing
                ("transparent").
            side_by_side: whether to put the photo to the left.

        Returns:
            PIL.Image.Image: RGB, or RGBA for a transparent background.

        Raises:
            ConfigError: a value is invalid.
        """
        look = Look(
            alpha=alpha,
            legend=legend,
            outlines=outlines,
            names=names,
            only=only,
            background=background,
            side_by_side=side_by_side,
        )
        return render.overlay(self.picture, self.labels, self.palette, self.class_names, look)

    def save_to_img(self, save_path: str | Path, *, overwrite: bool = True) -> list[Path]:
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
            overwrite: False leaves files that exist as they are.

        Returns:
            list[Path]: the files.

        Raises:
            ConfigError: `save_path` is the input itself, no valid path or of a format that can't be
                written, or the PNG next to a JPEG would replace a file of another origin; nothing
                is written.
            OSError: the disk is full, or the path can't be written.
        """
        own = suffix(self.input_path) if self.input_path else ""
        own = own if own.lower() in IMAGE_SUFFIXES else ".png"
        target = self._picture_target(save_path, f"_res{own}")
        if target.suffix.lower() not in encode.LOSSY:
            self._write({target: self._encode(target.suffix.lower())}, overwrite)
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
            },
            overwrite,
        )
        return [target, beside]

    def save_to_json(
        self,
        save_path: str | Path,
        indent: int | None = None,
        ensure_ascii: bool = False,
        *,
        label_format: LabelFormat | None = None,
        overwrite: bool = True,
    ) -> Path:
        """Save the value of "res" in `json`, as PaddleX does, or with more and in fewer bytes.

        Example:
            >>> result.save_to_json("./output/", label_format="rle")
            PosixPath('output/road_res.json')

        Args:
            save_path: a folder, where `a.jpg` becomes `a_res.json`, or a file name ending in
                `.json`.
            indent: spaces per level. PaddleX uses 4, which puts each pixel on a line of its own.
            ensure_ascii: whether to escape non-ASCII characters.
            label_format: the form of "pred", and whether the file says what it is of. "rle": the
                result of `to_coco_rle`. "png": a base64 PNG whose pixel values are the class ids.
                "list": class ids nested as (1, H, W). Each of them adds the keys `model`,
                `label_format`, `size` ([H, W]), `class_names` and `areas`. None: the file of
                PaddleX, which is "list" without these keys.
            overwrite: False leaves a file that exists as it is.

        Returns:
            Path: the file.

        Raises:
            ConfigError: label_format is unknown, `save_path` is the input itself or no valid path,
                or an item that a script has added can't be JSON.
            OSError: the disk is full, or the path can't be written.
        """
        data = {key: plain(self[key]) for key in self if key not in (IMAGE, LABELS)}
        if label_format is not None:
            data |= {
                "model": self.model_name,
                "label_format": parse_label_format(label_format),
                "size": self.labels.shape,
                "class_names": self.class_names,
                "areas": self.areas(),
            }
        with_labels = LABELS in self
        if with_labels and label_format == "rle":
            data[LABELS] = self.to_coco_rle()
        elif with_labels and label_format == "png":
            data[LABELS] = base64.b64encode(self.label_png()).decode()
        elif with_labels:
            data[LABELS] = None  # the last one, replaced below: json is slow on large lists
        separators = (",", ":") if indent is None else None
        text = dump(data, indent=indent, ensure_ascii=ensure_ascii, separators=separators).encode(
            "utf-8", "backslashreplace"
        )  # names that are not UTF-8: \\udcb5 is JSON as well
        if with_labels and label_format in (None, "list"):
            before, _, after = text.rpartition(b"null")
            text = before + encode.nested_json(self.labels, indent) + after
        is_file = Path(save_path).suffix.lower() == ".json" and not names_folder(save_path)
        target = self._target(save_path, "_res.json", is_file)
        self._write({target: text}, overwrite)
        return target

    def save_all(self, save_path: str | Path) -> None:
        """Save both the picture and the JSON to a folder.

        Example:
            >>> result.save_all("./output/")
        """
        self.save_to_img(save_path)
        self.save_to_json(save_path)

    def save_overlay(
        self,
        save_path: str | Path,
        alpha: float | None = None,
        *,
        legend: bool | Legend | None = None,
        outlines: bool | None = None,
        names: bool = False,
        only: str | Sequence[str] | None = None,
        background: Background | None = None,
        side_by_side: bool = False,
        overwrite: bool = True,
    ) -> Path:
        """Save what `overlay` returns for these arguments.

        Example:
            >>> result.save_overlay("./output/")
            PosixPath('output/road_overlay.png')
            >>> result.save_overlay("car.png", only="car", background="transparent")
            PosixPath('car.png')

        Args:
            save_path: a folder, where `a.jpg` becomes `a_overlay.png`, or a file name ending in an
                image suffix; .png, .webp, .tif or .tiff for a transparent background.
            alpha: as in `overlay`, like the others.
            legend: where the legend is.
            outlines: whether to draw lines between classes.
            names: whether to write the names of the classes into large regions.
            only: classes to show.
            background: what replaces the rest.
            side_by_side: whether to put the photo to the left.
            overwrite: False leaves a file that exists as it is.

        Returns:
            Path: the file.

        Raises:
            ConfigError: a value is invalid, or `save_path` is the input itself, no valid path or of
                a format that can't be written, or not with transparency.
            OSError: the disk is full, or the path can't be written.
        """
        target = self._picture_target(save_path, "_overlay.png")
        kind = target.suffix.lower()
        if background == "transparent" and kind not in encode.TRANSPARENT:
            raise ConfigError(
                f"{target.name} can't have a transparent background: use "
                f"{', '.join(encode.TRANSPARENT)}"
            )
        picture = self.overlay(
            alpha,
            legend=legend,
            outlines=outlines,
            names=names,
            only=only,
            background=background,
            side_by_side=side_by_side,
        )
        self._write({target: encode.rgb(picture, kind)}, overwrite)
        return target

    def flat_json(self) -> bytes:
        """The class ids, row by row, as one flat JSON list."""
        return encode.flat_json(self.labels)

    def label_png(self) -> bytes:
        """A PNG whose pixel values are the class ids; 16-bit grey for more than 256 classes."""
        return encode.label_png(self.labels, self._label_palette, len(self.class_names))

    def _get_own(self, key: str) -> Any:
        if key == LABELS:
            return self.labels[None]
        if key == IMAGE:
            return np.ascontiguousarray(self.image[:, :, :: 1 if self.bands else -1])
        return getattr(self, key)

    def _set_own(self, key: str, value: Any) -> None:
        if key == LABELS:
            changed: dict[str, Any] = {"labels": self._parse_labels(value)}
        elif key == IMAGE:
            changed = {"image": self._parse_image(value)}
        else:
            changed = {key: _parse_origin(key, value)}
        for name, parsed in changed.items():
            object.__setattr__(self, name, parsed)
        if key in ("input_path", "page_index") and self.input_path:
            page = "" if self.page_index is None else f"_{self.page_index}"
            object.__setattr__(self, "stem", f"{short_stem(self.input_path) or 'image'}{page}")

    def _parse_labels(self, value: Any) -> npt.NDArray[np.int32]:
        """Check the labels that a script assigns to the key "pred"."""
        labels, shape = np.asarray(value), (1, *self.labels.shape)
        if labels.shape != shape or labels.dtype.kind not in "iub":
            raise ConfigError(
                f"pred of shape {labels.shape} and type {labels.dtype} is not valid: assign whole "
                f"numbers of shape {shape}"
            )
        low, high, classes = int(labels.min()), int(labels.max()), len(self.class_names)
        if low < 0 or high >= classes:
            raise ConfigError(
                f"pred with labels from {low} to {high} is not valid: {self.model_name} has the "
                f"classes 0 to {classes - 1}"
            )
        checked: npt.NDArray[np.int32] = labels[0].astype(np.int32)
        return checked

    def _parse_image(self, value: Any) -> npt.NDArray[Any]:
        """Check the picture, RGB or of `bands`, that a script assigns to the key "input_img"."""
        picture = np.asarray(value)
        if picture.shape != self.image.shape or picture.dtype != self.image.dtype:
            order = ", ".join(self.bands) or "RGB"
            raise ConfigError(
                f"input_img of shape {picture.shape} and type {picture.dtype} is not valid: assign "
                f"a picture of shape {self.image.shape} and type {self.image.dtype}, {order}"
            )
        return np.ascontiguousarray(picture[:, :, :: 1 if self.bands else -1])

    def _mean_scores(self, parts: npt.NDArray[np.int32]) -> list[float] | None:
        """The mean score of each part of the image, given the part of each pixel."""
        if self.scores is None:
            return None
        sums = np.bincount(parts.ravel(), self.scores.ravel())
        means = sums / np.maximum(np.bincount(parts.ravel()), 1)
        return [float(mean) for mean in np.nan_to_num(means)]

    def _picture_target(self, save_path: str | Path, ending: str) -> Path:
        """The picture's path. Raises ConfigError for formats that can't be written."""
        return self._target(save_path, ending, encode.names_picture(save_path))

    def _target(self, save_path: str | Path, ending: str, is_file: bool) -> Path:
        """`save_path` itself if that is a file; otherwise a file in that folder."""
        return Path(save_path) if is_file else Path(save_path) / f"{self.stem}{ending}"

    def _write(self, contents: Mapping[Path, bytes], overwrite: bool) -> None:
        """Write files, unless one of them is the input."""
        for file in contents:
            if self.input_path and is_same_file(self.input_path, file):
                raise ConfigError(f"{file} is the input itself: save to another folder or name")
        try:
            for file, content in contents.items():
                write_atomic(file, content, overwrite=overwrite)
        except ValueError as error:  # a null character, or one that file names can't hold here
            raise ConfigError(f"{str(file)!a} can't be a file name here: {error}") from None

    def _encode(self, kind: str) -> bytes:
        if kind == ".png":
            return self.label_png()
        return encode.rgb(self.img["res"], kind, self.geotags)


def _parse_origin(key: str, value: Any) -> Any:
    """Check what a script assigns to one of the keys "input_path", "page_index" and "time"."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    kinds = {"input_path": (str,), "page_index": (int,), "time": (int, float)}[key]
    if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{key} {shown(value)} is not valid: assign {names}, or None")
    return value


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
