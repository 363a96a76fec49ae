"""From a scene to a label raster: window by window, strip by strip."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

import segrt
from segrt.backends.session import Session
from segrt.errors import ConfigError, InputError
from segrt.files import sha256
from segrt.geo.area import Area
from segrt.geo.library import files_of, refuse_source
from segrt.geo.output import (
    Layer,
    Parts,
    as_tags,
    label_type,
    not_written,
    read_tags,
)
from segrt.geo.raster import Raster
from segrt.geo.rows import Rows
from segrt.geo.scale import PERCENTILES, ScaleLike
from segrt.journal import check_settings
from segrt.pipeline import Pipeline
from segrt.postprocess import Upsampled
from segrt.request import Request
from segrt.slide import Box, Crops, Progress, SlideLike, Strip, Window, run_window, starts

WINDOW = Window((1024, 1024), (768, 768))
"""The sliding window, unless the caller, the pipeline or the model has another one."""


@dataclass(frozen=True)
class LabelMap:
    """A finished label raster.

    Attributes:
        path: a cloud-optimised GeoTIFF of class ids, on the grid of the scene.
        scores: likewise, of the softmax probability of each pixel's class; None unless requested.
        areas: the share of the pixels with data that each class present covers, by name, largest
            first.
        covered: the share of the pixels that have data, and are in the area of interest.
    """

    path: Path
    scores: Path | None
    areas: dict[str, float]
    covered: float


def segment(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    bands: Sequence[int] | str | None = None,
    scale: ScaleLike = None,
    nodata: float | None = None,
    resolution: float | None = None,
    aoi: str | os.PathLike[str] | None = None,
    slide: SlideLike = None,
    scores: bool = False,
    batch_size: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> LabelMap:
    """Segment a georeferenced scene of any size, by windows, into a label raster.

    The memory needed depends on the width of the scene and the rows of a window, not on its height.
    The labels are those of `pipeline.predict` with the same sliding window on the same pixels.
    Windows in which no pixel has data, or is in the area of interest, are not run.

    Example:
        >>> labels = segrt.geo.segment(pipeline, "scene.tif", "labels.tif", aoi="area.geojson")
        >>> labels.areas
        {'grass': 0.52, 'building': 0.31, 'road': 0.17}

    Args:
        pipeline: the model.
        source: what rasterio opens: a file, a VRT, or a remote one (`/vsicurl/https://...`).
        target: the label raster, a `.tif`: a cloud-optimised GeoTIFF with the grid and coordinate
            system of the scene, the colours of the pipeline's palette and the names of the classes.
            Pixels without data are nodata: 255, or 65535 for more than 255 classes.
        bands: as in `Raster`, like the next three.
        scale: the values that become 0 and 255.
        nodata: the value of pixels without data.
        resolution: the size of a pixel.
        aoi: a vector file with polygons, in any coordinate system; pixels outside are nodata.
        slide: the sliding window, as in `Pipeline.predict`, in pixels of the grid; None for that of
            the pipeline, the only size that the model takes, or crops of 1024 every 768 pixels.
        scores: also write the scores, float32, to `labels_scores.tif` next to `labels.tif`.
        batch_size: windows that run together; None for the pipeline's setting.
        resume: go on where a call with the same arguments was stopped, even if it was killed; the
            file is the same, byte for byte, as without the interruption. If the target is there
            and complete, nothing is done.
        progress: called with the windows done and their total.

    Raises:
        ConfigError: an argument is invalid, or contradicts the call that is resumed.
        InputError: the scene can't be read, or the target can't be written; the rows that are done
            remain, for `resume`.
        MissingExtraError: a package of `segrt[geo]` is not installed.
        ModelError: the model can't run on it.
    """
    file = Path(target)
    if file.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{file} is not valid as a label raster: use a name that ends in .tif")
    scene = files_of(source)
    for written in (file, _scores_of(file)) if scores else (file,):
        refuse_source(written, scene)
    request = _request(pipeline, slide, scores, batch_size)
    with ExitStack() as stack:
        raster = stack.enter_context(
            Raster(
                source,
                bands=bands,
                scale=scale,
                nodata=nodata,
                resolution=resolution,
                channels=pipeline.transforms.channels,
                takes=pipeline.session.meta.bands,
            )
        )
        takes = pipeline.session.description.input.dtype
        if pipeline.session.meta.bands and takes == np.uint8 != raster.dtype:
            raise InputError(
                f"{raster.path} has bands of {raster.dtype}, and {pipeline.model_name} takes uint8"
            )
        area = None if aoi is None else Area(aoi, raster.crs, raster.transform, raster.size)
        settings = _settings(pipeline, request, raster, scene, area, scale, nodata, resolution)
        layers = _layers(pipeline, raster, file, scores)
        if resume and _is_complete(layers, settings):
            return _label_map(pipeline, layers, read_tags(file))
        parts = stack.enter_context(Parts(file, settings, resume=resume))
        job = _Job(pipeline, request, raster, area, layers, parts)
        try:
            job.run(progress)
            tags = job.finish(settings)
        except OSError as error:
            raise not_written(file, error) from None
    return _label_map(pipeline, layers, tags)


class _Job:
    def __init__(
        self,
        pipeline: Pipeline,
        request: Request,
        raster: Raster,
        area: Area | None,
        layers: list[Layer],
        parts: Parts,
    ) -> None:
        assert request.window
        self._pipeline, self._request, self._window = pipeline, request, request.window
        self._raster, self._layers, self._parts = raster, layers, parts
        # A network of one input size gets crops of it, even from a smaller scene.
        least = self._window.crop if any(pipeline.transforms.fixed) else (1, 1)
        self._rows = Rows(raster, area, least)
        self._tops = starts(self._rows.size[0], self._window.crop[0], self._window.stride[0])

    def run(self, progress: Progress | None) -> None:
        """Segment and save the strips that are not there yet."""
        done = self._parts.done(self._layers, self._tops)
        session, meta = self._pipeline.session, self._pipeline.session.meta
        height, width = self._rows.size
        crop = min(self._window.crop[0], height), min(self._window.crop[1], width)
        channels = self._pipeline.transforms.channels
        pixel = channels * self._raster.dtype.itemsize + 2
        rest = width * (pixel * (crop[0] + 1024) + 16 * self._window.stride[0])
        count = session.fits(crop, self._request.batch_size, rest)
        with session.reserve((count, channels, *crop), rest):
            if done < len(self._tops):
                session.warm_up(crop)  # so that a resumed run computes in the same way
            strips = run_window(
                self._rows.size,
                self._window,
                self._infer(session),
                batch_size=count,
                with_scores=self._request.scores,
                probabilities=meta.output == "probabilities",
                progress=progress,
                done=done,
            )
            for strip in strips:
                self._save(strip)

    def finish(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Put the strips together; returns what the tags say."""
        labels, folder, session = self._layers[0], self._parts.folder, self._pipeline.session
        tops = [read_tags(labels.part(folder, top))["counts"] for top in self._tops]
        tags = {
            "version": segrt.__version__,
            "model": self._pipeline.model_name,
            "provider": session.provider,
            "precision": session.precision,
            "bands": self._raster.bands,
            "scale": settings["scale"],
            "classes": self._pipeline.class_names,
            "counts": np.sum(tops, axis=0).tolist(),
            "settings": settings,
        }
        for layer in reversed(self._layers):
            layer.finish(folder, self._tops, as_tags(tags))
        self._parts.remove()
        return tags

    def _infer(self, session: Session) -> Any:
        transforms, rows = self._pipeline.transforms, self._rows
        crops = Crops(rows, transforms, session.run, session.meta.align_corners)

        def infer(boxes: list[Box]) -> Iterator[Upsampled | None]:
            wanted = [bool(rows.wanted(box).any()) for box in boxes]
            found = crops.infer([*compress(boxes, wanted)]) if any(wanted) else iter(())
            for is_wanted in wanted:
                yield next(found) if is_wanted else None

        return infer

    def _save(self, strip: Strip) -> None:
        height, width = self._raster.size
        rows, columns = slice(strip.top, min(strip.rows.stop, height)), slice(0, width)
        wanted = self._rows.wanted((rows, columns))
        within = slice(0, len(wanted)), columns
        labels = strip.labels[within]
        counts = np.bincount(labels[wanted], minlength=len(self._pipeline.class_names))
        tags = as_tags({"counts": counts.tolist()})
        values = [labels] if strip.scores is None else [labels, strip.scores[within]]
        # The labels last: they stand for the whole strip.
        for layer, value in reversed([*zip(self._layers, values, strict=True)]):
            masked = np.where(wanted, value, layer.nodata).astype(layer.dtype)
            layer.write(self._parts.folder, strip.top, masked, tags)


def _request(pipeline: Pipeline, slide: SlideLike, scores: bool, batch_size: int | None) -> Request:
    if not slide and not pipeline.slide:
        slide = WINDOW
        if any(pipeline.transforms.fixed):
            crop = tuple(
                own or default
                for own, default in zip(pipeline.transforms.fixed, WINDOW.crop, strict=True)
            )
            slide = Window((crop[0], crop[1]), (-(-3 * crop[0] // 4), -(-3 * crop[1] // 4)))
    return pipeline.request(-1, batch_size=batch_size, scores=scores, slide=slide or None)


def _layers(pipeline: Pipeline, raster: Raster, target: Path, scores: bool) -> list[Layer]:
    dtype, nodata = label_type(len(pipeline.class_names))
    height, width = raster.size
    grid = {"width": width, "height": height, "transform": raster.transform, "crs": raster.crs}
    if raster.crs is None and raster.transform.is_identity:
        grid["transform"] = None
    palette = pipeline.palette[: len(pipeline.class_names)] if dtype == np.uint8 else None
    profile = {**grid, "dtype": dtype.name, "nodata": nodata}
    layers = [Layer("labels", target, profile, palette, pipeline.class_names)]
    if scores:
        profile = {**grid, "dtype": "float32", "nodata": float("nan")}
        layers.append(Layer("scores", _scores_of(target), profile))
    return layers


def _scores_of(target: Path) -> Path:
    return target.with_name(f"{target.stem}_scores{target.suffix}")


def _settings(
    pipeline: Pipeline,
    request: Request,
    raster: Raster,
    scene: Sequence[Path],
    area: Area | None,
    scale: ScaleLike,
    nodata: float | None,
    resolution: float | None,
) -> dict[str, Any]:
    """What decides a byte of the output, as JSON values."""
    low, high = PERCENTILES
    rule = f"percentile {low} to {high} of each band" if scale == "percentile" else "limits"
    session = pipeline.session
    # Programs that show a scene write statistics and overviews next to it.
    states = [file.stat() for file in scene if not file.name.endswith((".aux.xml", ".ovr"))]
    return {
        "scene": raster.path,
        "scene_bytes": [state.st_size for state in states],
        "scene_modified": [state.st_mtime_ns for state in states],
        "size": raster.size,
        "bands": raster.bands,
        "scale": raster.scale and {"rule": rule, "limits": raster.scale},
        "nodata": None if nodata is None else str(nodata),
        "resolution": resolution,
        "aoi_sha256": area and area.digest,
        "slide": request.window and asdict(request.window),
        "scores": request.scores,
        "batch_size": request.batch_size,
        **{f"model's {name}": value for name, (value, _) in pipeline.describe().items()},
        "model_sha256": sha256(session.file),
        "palette": hashlib.sha256(pipeline.palette.tobytes()).hexdigest(),
        "provider": session.provider,
        "precision": session.precision,
        "version": segrt.__version__,
    }


def _is_complete(layers: list[Layer], settings: dict[str, Any]) -> bool:
    """Whether an earlier call has finished.

    Raises:
        ConfigError: it had other settings.
        InputError: the target is not from segrt.
    """
    target = layers[0].target
    if Parts.are_there(target) or not all(layer.target.is_file() for layer in layers):
        return False
    before = read_tags(target).get("settings")
    if before is None:
        raise InputError(f"{target} exists and is not a label raster of segrt: use another name")
    check_settings(before, settings, f"{target} was", "name")
    return True


def _label_map(pipeline: Pipeline, layers: list[Layer], tags: dict[str, Any]) -> LabelMap:
    counts, (height, width) = np.array(tags["counts"]), tags["settings"]["size"]
    total = int(counts.sum())
    areas: dict[str, float] = {}
    for label in np.argsort(-counts, kind="stable"):
        if counts[label]:
            name = pipeline.class_names[label]
            areas[name] = areas.get(name, 0) + int(counts[label]) / total
    return LabelMap(
        path=layers[0].target,
        scores=layers[1].target if len(layers) > 1 else None,
        areas=areas,
        covered=total / (height * width),
    )
