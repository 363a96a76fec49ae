"""What `Pipeline.predict` yields for each image: a SegResult, or a SegFailure in its place."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from segrt import render
from segrt.errors import ConfigError, SegrtError
from segrt.files import write_atomic

IMAGE_SUFFIXES = frozenset(
    ".bmp .dib .jpeg .jpg .png .webp .pbm .pgm .ppm .pnm .sr .ras .tiff .tif".split()  # noqa: SIM905
)
_LOSSY = frozenset((".jpeg", ".jpg"))


def file_name(input_path: str) -> str:
    """The file name in a path; in a URL, the last part of its path, made safe to be a file's name."""
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
        page_index: page or frame, from 0; None where there is only one.
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
        page_index: page or frame, from 0; None where there is only one.
        class_names: the name of each class id; `class_7` where the model names none.
        palette: uint8 (K, 3), RGB.
        model_name: the model that ran.
        provider: the execution provider that ran it.
        precision: the arithmetic that it ran in.
        timings: milliseconds by step.
        stem: name without suffix under which the result is saved in a folder, less its `_res`.
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
    error: None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.image.shape[:2]:
            raise ValueError(f"labels of shape {self.labels.shape} don't fit an image of shape {self.image.shape}")

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
        classes, shares = self._shares()
        return {self.class_names[c]: share for c, share in zip(classes, shares, strict=True)}

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
        classes, shares = self._shares()
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
            target = target / f"{self.stem}_res{suffix if suffix.lower() in IMAGE_SUFFIXES else '.png'}"
        written = [target, target.with_suffix(".png")] if target.suffix.lower() in _LOSSY else [target]
        for file in written:
            write_atomic(file, self._encode(file.suffix.lower()))
        return written

    def save_to_json(self, save_path: str | Path, indent: int | None = None, ensure_ascii: bool = False) -> Path:
        """Save what stands under "res" in `json`.

        Args:
            save_path: a folder, where `a.jpg` becomes `a_res.json`; or a file, where it ends in `.json`.
            indent: spaces a level. PaddleX indents by 4, which puts each pixel on a line of its own.
            ensure_ascii: escape what is not ASCII.

        Returns:
            Path: the file written.

        Raises:
            OSError: the disk is full, or the path can't be written.
        """
        target = Path(save_path)
        if target.suffix.lower() != ".json":
            target = target / f"{self.stem}_res.json"
        separators = (",", ":") if indent is None else None
        text = json.dumps(self.json["res"], indent=indent, ensure_ascii=ensure_ascii, separators=separators)
        write_atomic(target, text.encode())
        return target

    def save_all(self, save_path: str | Path) -> None:
        """Save the picture and the JSON to a folder."""
        self.save_to_img(save_path)
        self.save_to_json(save_path)

    def save_overlay(self, save_path: str | Path, alpha: float = 0.5, *, legend: bool = True) -> Path:
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

    def _shares(self) -> tuple[list[int], list[float]]:
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        classes = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
        return classes, [float(counts[c]) / self.labels.size for c in classes]

    def _encode(self, suffix: str) -> bytes:
        if suffix == ".png" and len(self.class_names) <= 256:
            picture = Image.fromarray(self.labels.astype(np.uint8))
            picture.putpalette(self.palette[:256].tobytes())
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            return buffer.getvalue()
        return _encode_rgb(self.img["res"], suffix)


def _encode_rgb(picture: Image.Image, suffix: str) -> bytes:
    if suffix in (".sr", ".ras"):  # Sun raster: Pillow reads it, only OpenCV writes it
        import cv2

        return cv2.imencode(".ras", np.asarray(picture)[:, :, ::-1])[1].tobytes()
    buffer = io.BytesIO()
    names = {".jpg": "JPEG", ".tif": "TIFF", ".dib": "DIB", ".pbm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    picture.save(buffer, names.get(suffix, suffix[1:].upper()), **options)
    return buffer.getvalue()
