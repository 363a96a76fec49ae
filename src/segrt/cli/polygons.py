"""The options of `segrt geo` for polygons."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from segrt.cli import interrupts
from segrt.cli.console import progress_bar, say
from segrt.errors import ConfigError
from segrt.files import is_same_file
from segrt.geo import vectors
from segrt.geo.job import LabelMap


@Parameter(name="*", group=Group("Polygons"))
@dataclass(frozen=True, kw_only=True)
class PolygonOptions:
    """Which polygons are written."""

    polygons: Annotated[str | None, Parameter(metavar="FILE")] = None
    """Also write each region as a polygon: .gpkg, .geojson or .parquet; a suffix alone for a file
    next to each label raster."""

    min_area: float | None = None
    """Leave out regions below so many square metres."""

    wgs84: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Write longitude and latitude (RFC 7946), not the scene's coordinates."""

    def files(self, rasters: Collection[Path], inputs: Collection[str | Path]) -> dict[Path, Path]:
        """The file for each label raster; none if there are to be no polygons.

        Raises:
            ConfigError: an option is invalid, a file is one of the inputs, or one file is given for
                several rasters.
            MissingExtraError: a package for them is not installed.
        """
        if self.polygons is None:
            if self.min_area is not None or self.wgs84:
                raise ConfigError("--min-area and --wgs84 are for --polygons: give a file")
            return {}
        suffix = f".{self.polygons.lstrip('.').lower()}"
        if suffix in vectors.SUFFIXES:
            found = {raster: raster.with_suffix(suffix) for raster in rasters}
        elif len(rasters) > 1:
            raise ConfigError(
                f"{self.polygons} is one file, but there are {len(rasters)} scenes: give only a "
                f"suffix, as in --polygons gpkg"
            )
        else:
            found = dict.fromkeys(rasters, Path(self.polygons))
        for file in found.values():
            vectors.check_output(file, self.min_area or 0)
            if any(is_same_file(one, file) for one in inputs):
                raise ConfigError(f"{file} is an input itself: give another name for the polygons")
        return found

    def write(self, labels: LabelMap, file: Path) -> None:
        """Write the polygons of a label raster, with a progress bar."""
        with progress_bar() as progress:
            bar = progress.add_task(f"{file.name}: rows", total=None)

            def show(done: int, total: int) -> None:
                interrupts.check()
                progress.update(bar, completed=done, total=total)

            count = vectors.polygons(
                labels.path,
                file,
                scores=labels.scores,
                min_area=self.min_area or 0,
                wgs84=self.wgs84,
                progress=show,
            )
        say(f"{file}: {count:,} polygons")
