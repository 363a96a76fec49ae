"""The class that Ray Data runs in its actors: from a batch of images to rows with labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

from segrt import encode, manifest
from segrt.create import create_pipeline
from segrt.errors import ConfigError, InputError
from segrt.frame import Frame, SegFailure
from segrt.manifest import Row
from segrt.ray import stores
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.sources import frames
from segrt.types import Color, SizeLike

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from segrt.slide import SlideLike

LabelColumn: TypeAlias = Literal["png", "rle"]
Labelled: TypeAlias = tuple[Row, bytes | None]
"""The row of an image and its encoded labels; None if it failed."""


class Segmenter:
    """Segments the images of a batch, for `ray.data.Dataset.map_batches`.

    Each actor loads the model once. An image that can't be read becomes a row with an error; it
    raises nothing. Actors that take all CPUs of a cluster leave none to the tasks that read the
    images, and Ray Data then waits forever: leave at least one CPU a node to them, as below.

    Example:
        >>> photos = ray.data.read_binary_files("photos/", include_paths=True)
        >>> rows = photos.map_batches(
        ...     segrt.ray.Segmenter,
        ...     fn_constructor_kwargs={"image": "bytes", "workers": 2},
        ...     batch_size=32,
        ...     num_cpus=1,
        ...     concurrency=1,
        ... )
        >>> rows.write_parquet("labels/")

    Returned columns: those of `segrt.manifest`, and `labels`: the bytes of a PNG whose pixel values
    are the class ids, at the size of the image (16 bits a pixel for more than 256 classes); or,
    with `labels="rle"`, the JSON of `SegResult.to_coco_rle`. Null if the image failed.
    """

    def __init__(
        self,
        *,
        path: str = "path",
        image: str | None = None,
        color: Color = "rgb",
        labels: LabelColumn = "png",
        target_size: SizeLike = None,
        batch_size: int | None = None,
        slide: SlideLike = None,
        exif: bool = True,
        pdf_scale: float = 2.0,
        max_pixels: int | None = None,
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            path: the column with paths or URLs; with `image`, they are only names, and may be
                missing.
            image: the column with the images, as the bytes of files or as arrays: (H, W, 3),
                or the bands that the model takes.
            color: the order of the channels of these arrays; Ray Data reads images as RGB.
            labels: the form of the labels.
            target_size: as in `Pipeline.predict`, like the next five.
            batch_size: images that run together.
            slide: sliding window.
            exif: apply the EXIF orientation of photos.
            pdf_scale: pixels per point of PDF pages.
            max_pixels: limit on the pixels of an image.
            options: of `create_pipeline`: model_name, model_dir, device, workers, ...

        Raises:
            ConfigError: an argument is invalid.
            SegrtError: the model can't be loaded; see `create_pipeline`.
        """
        if labels not in ("png", "rle"):
            raise ConfigError(f"labels {labels!r} is not valid: use png or rle")
        self._path, self._image, self._labels = path, image, labels
        self._color: Color = color
        self.reading = Reading(exif=exif, pdf_scale=pdf_scale, max_pixels=max_pixels)
        self.pipeline = create_pipeline(**options)
        self.request = self.pipeline.request(target_size, batch_size=batch_size, slide=slide)
        self._predict = {
            "target_size": target_size,
            "batch_size": batch_size,
            "slide": slide,
            "on_error": "yield",
        }

    def __call__(self, batch: Mapping[str, np.ndarray[Any, Any]]) -> pyarrow.Table:
        """Segment a batch of Ray Data, in the format "numpy".

        Raises:
            ConfigError: it has no column of the given name.
        """
        for name in [self._image or self._path]:
            if name not in batch:
                raise ConfigError(
                    f"the dataset has no column {name!r}: choose one of {', '.join(batch)} with "
                    "path= or image="
                )
        images = batch[self._image or self._path]
        names = batch[self._path] if self._path in batch else [""] * len(images)
        return table(self.rows(zip(map(str, names), images, strict=True)))

    def rows(self, items: Iterable[tuple[str, object]]) -> Iterator[Labelled]:
        """Segment images, each with a name; an image that is text is a path or a URL.

        Example:
            >>> rows = segmenter.rows([("a", "photos/a.jpg"), ("b", png_bytes)])
        """
        results = self.pipeline.predict(self._frames(items), **self._predict)  # type: ignore[call-overload]
        for result, last in _with_last(results):
            yield Row.of(result, last=last), self._encoded(result)

    def _frames(self, items: Iterable[tuple[str, object]]) -> Iterator[Frame | SegFailure]:
        for given, image in items:
            name = given or (image if isinstance(image, str) else "")
            try:
                source = self._source(image)
            except Exception as error:  # each store has exceptions of its own
                yield SegFailure(name, None, InputError(_named(name, error)))
                continue
            for item in frames(source, self.reading, self._color, self.pipeline.session.meta.bands):
                if isinstance(item, Frame):
                    yield replace(item, input_path=name)
                else:
                    failure = type(item.error)(_named(name, item.error))
                    yield SegFailure(name, item.page_index, failure)

    def _source(self, image: object) -> object:
        """What `frames` reads for an image."""
        if isinstance(image, Exception):
            raise image
        if isinstance(image, str) and stores.is_remote(image):
            try:
                return stores.read(image)
            except FileNotFoundError:
                raise InputError("it does not exist") from None
        return image

    def _encoded(self, result: SegResult | SegFailure) -> bytes | None:
        if isinstance(result, SegFailure):
            return None
        if self._labels == "rle":
            return orjson.dumps(result.to_coco_rle())
        return encode.label_png(result.labels, result.palette, len(result.class_names))


def schema(settings: manifest.Settings | None = None) -> pyarrow.Schema:
    """The columns of `Segmenter`, with the header of a manifest if there are settings."""
    import pyarrow as pa

    return manifest.schema(settings).append(pa.field("labels", pa.binary()))


def table(rows: Iterable[Labelled], settings: manifest.Settings | None = None) -> pyarrow.Table:
    """Rows and labels as a table with the columns of `schema`."""
    import pyarrow as pa

    rows = list(rows)
    made = manifest.to_table((row for row, _ in rows), settings)
    labels = pa.array([data for _, data in rows], pa.binary())
    return made.append_column("labels", labels).cast(schema(settings))


def _named(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if not name or name in text else f"{name}: {text}"


def _with_last(
    results: Iterator[SegResult | SegFailure],
) -> Iterator[tuple[SegResult | SegFailure, bool]]:
    """Each result, and whether it is the last of its input."""
    held = next(results, None)
    while held is not None:
        following = next(results, None)
        pages = held.page_index is not None and following is not None
        same = pages and following is not None and following.input_path == held.input_path
        yield held, not same
        held = following
