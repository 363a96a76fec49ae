"""`segrt geo`: from georeferenced scenes to label rasters, window by window."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segrt.cli import interrupts, shares
from segrt.cli.console import complain, progress_bar, say
from segrt.cli.options import INFERENCE, INPUTS, OUTPUT, PipelineOptions
from segrt.cli.polygons import PolygonOptions
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.geo import job
from segrt.geo.job import LabelMap
from segrt.geo.library import files_of, refuse_source
from segrt.names import Stems
from segrt.slide import Progress

SUFFIXES = frozenset((".img", ".jp2", ".tif", ".tiff", ".vrt"))
"""Suffixes of the scenes in a folder."""


def geo(
    scene: Annotated[list[str] | None, Parameter(negative="", group=INPUTS)] = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], group=OUTPUT)] = None,
    model: PipelineOptions = PipelineOptions(),
    bands: Annotated[str | None, Parameter(group=INPUTS)] = None,
    scale: Annotated[str | None, Parameter(group=INPUTS, allow_leading_hyphen=True)] = None,
    nodata: Annotated[float | None, Parameter(group=INPUTS, allow_leading_hyphen=True)] = None,
    resolution: Annotated[float | None, Parameter(group=INPUTS)] = None,
    aoi: Annotated[Path | None, Parameter(group=INPUTS)] = None,
    slide: Annotated[str | None, Parameter(group=INFERENCE)] = None,
    batch_size: Annotated[int | None, Parameter(group=INFERENCE)] = None,
    scores: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    resume: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    polygons: PolygonOptions = PolygonOptions(),
) -> int:
    """Segment georeferenced scenes of any size; write label rasters on their grids.

    Args:
        scene: GeoTIFFs, VRTs, folders of them, or remote files (/vsicurl/https://...).
        out: The label raster, a .tif; or a folder, where scene.tif becomes scene_labels.tif.
        bands: Numbers of the red, green and blue band, as in 4,3,2; default: as the file says.
        scale: LOW,HIGH, the values that become 0 and 255, or percentile (2 to 98 of each band).
        nodata: Value of pixels without data; default: as the file says.
        resolution: Size of a pixel in units of the coordinate system; default: the scene's.
        aoi: A vector file with polygons, the area of interest; pixels outside become nodata.
        slide: Sliding window: CROP,STRIDE; HEIGHT,WIDTH,DOWN,RIGHT; default: the model's or
            1024,768.
        batch_size: Windows that run together.
        scores: Also write the probability of each pixel's class, to ..._scores.tif.
        resume: Go on where an interrupted call was; what is complete is left alone.
        polygons: Polygons of the regions.

    Returns:
        int: exit status; 1 if a scene failed.
    """
    if not scene:
        raise ConfigError("geo needs a scene: a GeoTIFF, a VRT, or a folder of them")
    if out is None:
        raise ConfigError("geo needs -o: the label raster to write, a .tif, or a folder")
    targets = _targets(scene, out)
    files = polygons.files(targets.values(), [*targets, *([aoi] if aoi else [])])
    pipeline = model.create()
    failed = 0
    for source, target in targets.items():

        def segment(show: Progress, source: str = source, target: Path = target) -> LabelMap:
            return job.segment(
                pipeline,
                source,
                target,
                bands=bands,
                scale=scale,
                nodata=nodata,
                resolution=resolution,
                aoi=aoi,
                slide=slide,
                scores=scores,
                batch_size=batch_size,
                resume=resume,
                progress=show,
            )

        try:
            if target in files:
                refuse_source(files[target], files_of(source))
            labels = _shown(os.path.basename(source), segment)
            if target in files:
                polygons.write(labels, files[target])
        except (SegrtError, OSError, MemoryError) as error:
            if isinstance(error, ConfigError) and len(targets) == 1:
                raise
            failed += 1
            complain(str(error) or f"{source}: out of memory")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command with --resume goes on") from None
        else:
            print(f"{labels.path}: {shares.line(labels.areas)}", flush=True)
            if labels.covered < 1:
                say(f"{labels.path}: {labels.covered:.1%} of the pixels have a class")
    session, done = pipeline.session, len(targets) - failed
    ran = f"{pipeline.model_name} on {session.provider} {session.precision}"
    say(f"{done} segmented, {failed} failed ({ran})")
    return 1 if failed else 0


def _shown(name: str, segment: Callable[[Progress], LabelMap]) -> LabelMap:
    """Segment with a progress bar."""
    with progress_bar() as progress:
        bar = progress.add_task(name, total=None)

        def show(done: int, total: int) -> None:
            interrupts.check()
            text = f"{name}: {'windows' if done < total else 'overviews'}"
            progress.update(bar, completed=done, total=total, description=text)

        return segment(show)


def _targets(scenes: list[str], out: Path) -> dict[str, Path]:
    """The label raster of each scene.

    Raises:
        ConfigError: there are several, and `out` is one file.
        InputError: a folder holds no scene, or can't be read.
    """
    found = [file for scene in scenes for file in _listed(scene, out)]
    is_file = out.suffix.lower() in (".tif", ".tiff") and not out.is_dir()
    if is_file and len(found) == 1 and not os.path.isdir(scenes[0]):
        return {found[0]: out}
    if is_file:
        raise ConfigError(f"{out} is one file, but there are {len(found)} scenes: give a folder")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: use a name that ends in .tif, or a folder")
    stems = Stems()
    return {scene: out / f"{stems.assign(scene)}_labels.tif" for scene in dict.fromkeys(found)}


def _listed(scene: str, out: Path) -> list[str]:
    """The scenes of a folder and its subfolders, except hidden ones and those in `out`."""
    if not os.path.isdir(scene):
        return [scene]
    if out.is_dir() and out.samefile(scene):
        raise InputError(f"the scenes are in {out}, where the labels would be: give another folder")
    found = []
    for parent, folders, files in os.walk(scene):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not (out.is_dir() and out.samefile(os.path.join(parent, name)))
        )
        found += [
            os.path.join(parent, name)
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise InputError(
            f"the folder {scene} holds no scene: a file that ends in {', '.join(sorted(SUFFIXES))}"
        )
    return found
