"""The label raster of a scene, written strip by strip, and finished as a cloud-optimised GeoTIFF.

Next to `labels.tif`, the folder `labels.tif.part` holds what a killed job leaves: its settings, and
a small GeoTIFF for each strip of rows, which appears whole or not at all. In the end a VRT puts
them together, GDAL's COG driver copies that to a temporary file with overviews, which is renamed,
and the folder is deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError, InputError
from segrt.files import replacing, write_atomic
from segrt.geo.library import calls
from segrt.journal import check_settings

if TYPE_CHECKING:
    from filelock import BaseFileLock

PREFIX = "SEGRT_"
"""Of the tags of a label raster; their values are JSON."""

_SETTINGS = "settings.json"
_BLOCK = 512


class Layer:
    """One raster of the output: labels or scores.

    Attributes:
        target: the file.
        nodata: value of pixels without data.
        dtype: type of the values.
    """

    def __init__(
        self,
        kind: Literal["labels", "scores"],
        target: Path,
        profile: Mapping[str, Any],
        palette: npt.NDArray[np.uint8] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Describe it.

        Args:
            kind: what its values are.
            target: the file.
            profile: `width`, `height`, `dtype`, `nodata`, `transform` and `crs`, as for
                `rasterio.open`.
            palette: uint8 (K, 3), RGB: the colour of each label; None for none.
            names: the name of each label.
        """
        self._profile = {key: value for key, value in profile.items() if value is not None}
        self._kind, self.target, self._palette, self._names = kind, target, palette, names
        self.nodata, self.dtype = profile["nodata"], profile["dtype"]

    def part(self, folder: Path, top: int) -> Path:
        """The file of the strip that begins at a row."""
        return folder / f"{self._kind}-{top:09}.tif"

    def write(
        self, folder: Path, top: int, values: npt.NDArray[Any], tags: Mapping[str, str]
    ) -> None:
        """Write a strip (rows, W).

        Raises:
            OSError: the disk is full, or the folder can't be written.
        """
        height, width = values.shape
        options = {"width": width, "height": height, "count": 1, "dtype": values.dtype.name}
        options |= {"compress": "deflate", "zlevel": 1, "tiled": True}
        options |= {"blockxsize": _BLOCK, "blockysize": _BLOCK}
        with calls(str(self.target)):
            from rasterio.io import MemoryFile

            # In memory first: GDAL does not report all errors of the disk.
            with MemoryFile() as memory:
                with memory.open(driver="GTiff", **options) as part:
                    part.write(values, 1)
                    part.update_tags(**tags)
                content = bytes(memory.getbuffer())
        write_atomic(self.part(folder, top), content)

    def finish(self, folder: Path, tops: Sequence[int], tags: Mapping[str, str]) -> None:
        """Put the strips together, with overviews, and let the file appear.

        Raises:
            InputError: GDAL can't write it.
            OSError: the disk is full, or the folder can't be written.
        """
        width, height = self._profile["width"], self._profile["height"]
        mosaic = folder / f"{self._kind}.vrt"
        with calls(f"{self.target} can't be written (is the disk full?)") as rasterio:
            with rasterio.open(mosaic, "w", driver="VRT", count=1, **self._profile) as vrt:
                vrt.update_tags(**tags)
                if self._palette is not None:
                    colours = {i: (*map(int, rgb), 255) for i, rgb in enumerate(self._palette)}
                    vrt.write_colormap(1, {**colours, int(self.nodata): (0, 0, 0, 0)})
            sources = "".join(
                _source(self.part(folder, top).name, width, top, bottom)
                for top, bottom in zip(tops, [*tops[1:], height], strict=True)
            )
            text = mosaic.read_text("utf-8")
            mosaic.write_text(
                text.replace("</VRTRasterBand>", f"{sources}</VRTRasterBand>"), "utf-8"
            )
            predictor = {"predictor": "yes"} if self._kind == "scores" else {}
            with replacing(self.target, ".tif") as temporary:
                from rasterio.shutil import copy

                copy(
                    mosaic,
                    temporary,
                    driver="COG",
                    compress="deflate",
                    blocksize=_BLOCK,
                    overview_resampling="mode" if self._kind == "labels" else "average",
                    bigtiff="if_safer",
                    **predictor,
                )
                self._save_aside(temporary)

    def _save_aside(self, temporary: Path) -> None:
        """Write what GeoTIFF can't hold to `labels.tif.aux.xml`, where GDAL and QGIS look for it.

        That is the names of the labels, and coordinate systems unknown to GeoTIFF. Other files
        next to the target belong to a raster that was there before.
        """
        made = temporary.with_name(f"{temporary.name}.aux.xml")
        root = ElementTree.parse(made).getroot() if made.exists() else Element("PAMDataset")
        made.unlink(missing_ok=True)
        if self._names:
            band = root.find("PAMRasterBand")
            if band is None:
                band = SubElement(root, "PAMRasterBand", band="1")
            names = SubElement(band, "CategoryNames")
            for name in self._names:
                text = "".join(c for c in name if c.isprintable())
                SubElement(names, "Category").text = text
        for ending in (".aux.xml", ".msk", ".msk.ovr", ".ovr"):
            self.target.with_name(f"{self.target.name}{ending}").unlink(missing_ok=True)
        if len(root):
            file = self.target.with_name(f"{self.target.name}.aux.xml")
            write_atomic(file, ElementTree.tostring(root, "utf-8") + b"\n")


def _source(name: str, width: int, top: int, bottom: int) -> str:
    """A strip in a VRT."""
    rows = bottom - top
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>'
        "<SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{rows}"/>'
        f'<DstRect xOff="0" yOff="{top}" xSize="{width}" ySize="{rows}"/></SimpleSource>'
    )


class Parts:
    """The folder of the finished strips, which one process at a time may fill.

    Example:
        >>> with Parts(Path("labels.tif"), settings, resume=True) as parts:
        ...     done = parts.done(layer, tops)
    """

    def __init__(self, target: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a job, or resume it.

        Args:
            target: the file that the job makes.
            settings: JSON values; strips that were made with other ones are refused.
            resume: go on with the strips that are there.

        Raises:
            ConfigError: the settings are others.
            InputError: there are strips and `resume` is false, another process is writing them, or
                the folder can't be written.
        """
        self.folder = _folder(target)
        self._target = target
        try:
            self._begin(settings, resume)
        except OSError as error:
            raise not_written(target, error) from None

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @staticmethod
    def are_there(target: Path) -> bool:
        """Whether a job has left strips."""
        return (_folder(target) / _SETTINGS).is_file()

    def done(self, layers: Sequence[Layer], tops: Sequence[int]) -> int:
        """The number of strips, from the top, that are complete."""
        for index, top in enumerate(tops):
            if not all(layer.part(self.folder, top).is_file() for layer in layers):
                return index
        return len(tops)

    def remove(self) -> None:
        """Delete the folder, once the target is there."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        file = self.folder / _SETTINGS
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            if not any(self.folder.glob("*.tif")):
                write_atomic(file, json.dumps(settings, indent=1).encode())
            elif not resume:
                raise InputError(
                    f"{self.folder} holds strips of an earlier run: --resume goes on with them; "
                    "delete the folder to begin again"
                )
            else:
                check_settings(
                    json.loads(file.read_bytes()), settings, f"{self._target} was", "name"
                )
        except BaseException:
            self._lock.release()
            raise


def _folder(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def not_written(target: Path, error: OSError) -> InputError:
    """The error for a file or folder that can't be written."""
    return InputError(f"{target} can't be written: {error.strerror or error}")


def _locked(folder: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing to {folder}: wait until it has ended"
        ) from None
    return lock


def label_type(classes: int) -> tuple[np.dtype[Any], int]:
    """The type of labels and their nodata value.

    Raises:
        ConfigError: there is no value left.
    """
    for dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
        nodata = int(np.iinfo(dtype).max)
        if classes <= nodata:
            return dtype, nodata
    raise ConfigError(f"{classes} classes leave no value for pixels without data: at most 65535")


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as the tags of a raster."""
    return {
        f"{PREFIX}{key.upper()}": json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
    }


def read_tags(file: Path) -> dict[str, Any]:
    """What segrt has noted in a raster; empty for one from elsewhere.

    Raises:
        InputError: it can't be read.
    """
    with calls(str(file)) as rasterio, rasterio.open(file) as opened:
        tags = opened.tags()
    return {
        key.removeprefix(PREFIX).lower(): json.loads(value)
        for key, value in tags.items()
        if key.startswith(PREFIX)
    }
