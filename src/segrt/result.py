"""What `Pipeline.predict` yields for each image: a SegResult, or a SegFailure in its place."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import render, shapes
from segrt.errors import ConfigError, MissingExtraError, SegrtError
from segrt.files import write_atomic
from segrt.types import LabelFormat, parse_label_format

IMAGE_SUFFIXES = frozenset(
    ".bmp .dib .jpeg .jpg .png .webp .pbm .pgm .ppm .pnm .sr .ras .tiff .tif".split()  # noqa: SIM905
)
_LOSSY = frozenset((".jpeg", ".jpg"))
_BAND = (
    1 << 16
)  # pixels written to JSON at once: few enough to be in the cache still when they are looked at again


def file_name(input_path: str) -> str:
    """The file name in a path; in a URL, the last part of its path, made safe to be a file's name; "camera_0"."""
    if input_path.startswith("camera:"):
        return input_path.replace(":", "_")
    if not input_path.lower().startswith(("http://", "https://")):
        return Path(input_path).name
    name = PurePosixPath(unquote(urlsplit(input_path).path)).name
    return re.sub(r'[\x00-\x1f<>:"|?*\\]', "_", name)[-100:]


@dataclass(frozen=True)
class Timings:
    """Milliseconds that one image took; in a batch, its share of the batch's time.

    Attributes:
        preprocess: from the decoded image to the network's input.
        run: the network.
        postprocess: from the network's output to labels of the source's size.
    """

    preprocess: float
    run: float
    postprocess: float

    @property
    def total(self) -> float:
        """The sum of the three."""
        return self.preprocess + self.run + self.postprocess


@dataclass(frozen=True)
class SegFailure:
    """Stands in the place of an input that could not be segmented, with `on_error="yield"`.

    Attributes:
        input_path: the input, as text; None for an array.
        page_index: page of a PDF, or frame of a TIFF or a video, from 0; None where there is only one.
        error: what went wrong.
    """

    input_path: str | None
    page_index: int | None
    error: SegrtError


@dataclass(frozen=True, eq=False)
class SegResult(Mapping[str, Any]):
    """The labels of one image, and what belongs to them.

    As a mapping it has the keys of PaddleX: `input_path`, `page_index` and `pred` (int32, shape (1, H, W)).

    Attributes:
        labels: int32 (H, W) of the source image, class ids in [0, num_classes).
        image: the source, uint8 (H, W, 3), BGR.
        input_path: the input, as text; None for an array.
        page_index: page of a PDF, or frame of a TIFF or a video, from 0; None where there is only one.
        class_names: the name of each class id; `class_7` where the model names none.
        palette: uint8 (K, 3), RGB.
        model_name: the model that ran.
        provider: the execution provider that ran it.
        precision: the arithmetic that it ran in.
        timings: milliseconds by step.
        stem: name without suffix under which the result is saved in a folder, less its `_res`.
        scores: float32 (H, W), in (0, 1]: the softmax probability of each pixel's class; None unless asked for, with
            `predict(..., scores=True)`.
        error: always None; a SegFailure has one.
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
    error: None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.image.shape[:2]:
            raise ValueError(
                f"labels of shape {self.labels.shape} don't fit an image of shape {self.image.shape}"
            )

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
        """`{"res": picture}`: the label map in colours, RGB, the size of the source."""
        return {"res": Image.fromarray(render.colorize(self.labels, self.palette))}

    def areas(self) -> dict[str, float]:
        """The share of the image that each class covers, 0 to 1, by name, largest first; classes that occur only."""
        classes, shares = self.shares()
        return {self.class_names[c]: share for c, share in zip(classes, shares, strict=True)}

    def masks(self) -> dict[str, shapes.Mask]:
        """Where each class is: bool (H, W), by name, largest first; classes that occur only."""
        return {self.class_names[c]: self.labels == c for c in self.shares()[0]}

    @property
    def legend(self) -> Image.Image:
        """Colours, names and shares of the classes that occur, largest first: RGB."""
        classes, shares = self.shares()
        return render.legend(classes, self.class_names, self.palette, shares)

    def to_polygons(self) -> list[shapes.Polygon]:
        """The exact outline of each connected region, classes by id."""
        return [
            shapes.Polygon(c, self.class_names[c], exterior, holes)
            for c in sorted(self.shares()[0])
            for exterior, holes in shapes.outlines(self.labels == c)
        ]

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection (RFC 7946) with a Polygon for each connected region.

        Coordinates are pixels, x to the right and y **down** from the upper left corner of the image, not degrees.
        """
        return {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": {
                        "class_id": p.class_id,
                        "class_name": p.class_name,
                        "area": p.area,
                    },
                    "geometry": {
                        "type": "Polygon",
                        "coordinates": [
                            [*ring.tolist(), ring[0].tolist()] for ring in (p.exterior, *p.holes)
                        ],
                    },
                }
                for p in self.to_polygons()
            ],
        }

    def to_coco_rle(self, compressed: bool = True) -> list[dict[str, Any]]:
        """Each class that occurs as a COCO annotation, by id, with the keys that pycocotools reads.

        Args:
            compressed: write the counts as pycocotools' text; if false, as a list of numbers.

        Returns:
            list[dict]: `category_id`, `category_name`, `area` in pixels, `bbox` as [x, y, width, height], and
                `segmentation` as {"size": [H, W], "counts": ...}.
        """
        annotations = []
        for c, counts in shapes.rle_counts(self.labels).items():
            x, y, right, bottom = _box(self.labels == c)
            annotations.append(
                {
                    "category_id": c,
                    "category_name": self.class_names[c],
                    "area": sum(counts[1::2]),
                    "bbox": [x, y, right - x, bottom - y],
                    "segmentation": {
                        "size": list(self.labels.shape),
                        "counts": shapes.rle_string(counts) if compressed else counts,
                    },
                }
            )
        return annotations

    def to_supervision(self) -> Any:
        """A `supervision.Detections` with one mask for each class that occurs, by id, and its name in `data`.

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
            xyxy=np.array([_box(mask) for mask in masks], np.float32),
            mask=masks,
            class_id=np.array(classes),
            data={"class_name": np.array([self.class_names[c] for c in classes])},
        )

    def overlay(self, alpha: float = 0.5, *, legend: bool = True) -> Image.Image:
        """The source with the colours of the classes over it.

        Args:
            alpha: share of the class colour, from 0 (only the photo) to 1 (only the labels).
            legend: whether colours, names and shares of the classes stand beside it.

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
            format_json: spread it over lines, as JSON.
            indent: spaces a level, with `format_json`.
            ensure_ascii: escape what is not ASCII, with `format_json`.
        """
        data = {"res": {**self, "pred": "..."}}
        print(json.dumps(data, indent=indent, ensure_ascii=ensure_ascii) if format_json else data)

    def save_to_img(self, save_path: str | Path) -> list[Path]:
        """Save the label map as a picture in the colours of the classes.

        In a folder, `a.jpg` becomes `a_res.jpg`, page 3 of `doc.pdf` becomes `doc_3_res.png`. JPEG can't hold a label
        map (its compression makes colours that are no class's), so beside every JPEG a `.png` is written, which is
        indexed: its pixel values are the class ids, its palette is the colours.

        Args:
            save_path: a folder, made when missing; or a file, where it ends in an image suffix.

        Returns:
            list[Path]: the files written.

        Raises:
            ConfigError: the image suffix of `save_path` is not one that can be written.
            OSError: the disk is full, or the path can't be written.
        """
        target = Path(save_path)
        if target.suffix.lower() not in IMAGE_SUFFIXES:
            suffix = Path(file_name(self.input_path)).suffix if self.input_path else ""
            target = (
                target / f"{self.stem}_res{suffix if suffix.lower() in IMAGE_SUFFIXES else '.png'}"
            )
        written = (
            [target, target.with_suffix(".png")] if target.suffix.lower() in _LOSSY else [target]
        )
        for file in written:
            write_atomic(file, self._encode(file.suffix.lower()))
        return written

    def save_to_json(
        self,
        save_path: str | Path,
        indent: int | None = None,
        ensure_ascii: bool = False,
        *,
        label_format: LabelFormat = "list",
    ) -> Path:
        """Save what stands under "res" in `json`, or the same with the labels in a smaller form.

        Args:
            save_path: a folder, where `a.jpg` becomes `a_res.json`; or a file, where it ends in `.json`.
            indent: spaces a level. PaddleX indents by 4, which puts each pixel on a line of its own.
            ensure_ascii: escape what is not ASCII.
            label_format: what "pred" is. "list": the class ids, nested as (1, H, W), like PaddleX. "rle": what
                `to_coco_rle` gives. "png": a PNG whose pixel values are the class ids, base64. Beside "rle" and "png"
                stand the keys `label_format`, `size` ([H, W]) and `class_names`.

        Returns:
            Path: the file written.

        Raises:
            ConfigError: there is no such label_format.
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
            data["pred"] = None  # json would take a second for what _list_text does in a fraction
        separators = (",", ":") if indent is None else None
        text = json.dumps(
            data, indent=indent, ensure_ascii=ensure_ascii, separators=separators
        ).encode()
        if label_format == "list":
            before, _, after = text.rpartition(b"null")
            text = before + _list_text(self.labels, indent) + after
        target = Path(save_path)
        if target.suffix.lower() != ".json":
            target = target / f"{self.stem}_res.json"
        write_atomic(target, text)
        return target

    def save_all(self, save_path: str | Path) -> None:
        """Save the picture and the JSON to a folder."""
        self.save_to_img(save_path)
        self.save_to_json(save_path)

    def save_overlay(
        self, save_path: str | Path, alpha: float = 0.5, *, legend: bool = True
    ) -> Path:
        """Save `overlay(alpha, legend=legend)`.

        Args:
            save_path: a folder, where `a.jpg` becomes `a_overlay.png`; or a file with an image suffix.
            alpha: share of the class colour.
            legend: whether a legend stands beside it.

        Returns:
            Path: the file written.
        """
        target = Path(save_path)
        if target.suffix.lower() not in IMAGE_SUFFIXES:
            target = target / f"{self.stem}_overlay.png"
        write_atomic(target, _encode_rgb(self.overlay(alpha, legend=legend), target.suffix.lower()))
        return target

    def shares(self) -> tuple[list[int], list[float]]:
        """The ids of the classes that occur, largest first, and the share of the image that each covers, 0 to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        classes = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
        return classes, [float(counts[c]) / self.labels.size for c in classes]

    def flat_json(self) -> bytes:
        """The class ids row by row as one flat JSON list, many times as fast as `json.dumps` makes it."""
        return (
            b"["
            + _numbers(self.labels, _number_texts(int(self.labels.max()) + 1, b","))[:-1]
            + b"]"
        )

    def _encode(self, suffix: str) -> bytes:
        if suffix == ".png" and len(self.class_names) <= 256:
            return self.label_png()
        return _encode_rgb(self.img["res"], suffix)

    def label_png(self) -> bytes:
        """A PNG whose pixel values are the class ids: indexed, or 16-bit grey where there are more than 256 classes."""
        if len(self.class_names) > 256:
            picture = Image.fromarray(self.labels.astype(np.uint16))
        else:
            picture = Image.fromarray(self.labels.astype(np.uint8))
            picture.putpalette(self.palette[:256].tobytes())
        buffer = io.BytesIO()
        # Run lengths alone take a third of the time, and up to a fifth more bytes.
        picture.save(buffer, "PNG", compress_type=zlib.Z_RLE)
        return buffer.getvalue()


def _box(mask: shapes.Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of what is true, in pixels; something must be."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _list_text(labels: npt.NDArray[np.int32], indent: int | None) -> bytes:
    """What `json.dumps` writes for `[labels.tolist()]` as a value of the outermost object, many times as fast."""
    line = [b"" if indent is None else b"\n" + b" " * (indent * level) for level in range(5)]
    count, step = int(labels.max()) + 1, _BAND // labels.shape[1] + 1
    texts, between = (
        _number_texts(count, b"," + line[4], b";"),
        line[3] + b"]," + line[3] + b"[" + line[4],
    )
    parts = []
    for top in range(0, len(labels), step):
        band = labels[top : top + step].copy()
        band[:, -1] += count  # the text with a semicolon: this ends a row
        parts.append(_numbers(band, texts).replace(b";", between))
    parts[-1] = parts[-1].removesuffix(between)
    start, end = (
        b"[" + line[2] + b"[" + line[3] + b"[" + line[4],
        line[3] + b"]" + line[2] + b"]" + line[1] + b"]",
    )
    return b"".join((start, *parts, end))


def _number_texts(count: int, *endings: bytes) -> npt.NDArray[Any]:
    """The text of each number below `count` with the first ending, then with the next one, padded with NUL."""
    texts = [b"%d" % number + ending for ending in endings for number in range(count)]
    if max(map(len, texts)) > 4:
        return np.array(texts)
    return np.array(texts, "S4").view(
        np.uint32
    )  # NumPy looks up integers several times as fast as bytes


def _numbers(labels: npt.NDArray[np.int32], texts: npt.NDArray[Any]) -> bytes:
    """The texts of labels, in row-major order."""
    return texts.take(labels).tobytes().translate(None, b"\0")


def _encode_rgb(picture: Image.Image, suffix: str) -> bytes:
    if suffix in (".sr", ".ras"):  # Sun raster: Pillow reads it, only OpenCV writes it
        import cv2

        return cv2.imencode(".ras", np.asarray(picture)[:, :, ::-1])[1].tobytes()
    buffer = io.BytesIO()
    names = {
        ".jpg": "JPEG",
        ".tif": "TIFF",
        ".dib": "DIB",
        ".pbm": "PPM",
        ".pgm": "PPM",
        ".pnm": "PPM",
    }
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    picture.save(buffer, names.get(suffix, suffix[1:].upper()), **options)
    return buffer.getvalue()
