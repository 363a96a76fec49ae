"""rasterio, and its errors and warnings in words of segrt."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segrt.errors import ConfigError, InputError, MissingExtraError
from segrt.files import is_same_file

CACHE_BYTES = 256 << 20
"""GDAL's cache of decoded blocks; its default is 5% of the machine's memory."""


def rasterio() -> Any:
    """The module rasterio.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import rasterio
    except ImportError:
        raise MissingExtraError(
            "georeferenced rasters need rasterio: run  pip install 'segrt[geo]'"
        ) from None
    return rasterio


def name_of(path: str | os.PathLike[str]) -> str:
    """A name that GDAL takes.

    Raises:
        InputError: it is not in UTF-8.
    """
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name!a} is not a name in UTF-8, as GDAL requires: rename it") from None
    return name


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The local files that a raster consists of, with those that a VRT refers to.

    Raises:
        InputError: it can't be read.
        MissingExtraError: rasterio is not installed.
    """
    found, waiting = dict[str, None](), [name_of(path)]
    while waiting:
        name = waiting.pop()
        with calls(name) as module, module.open(name) as opened:
            new = [file for file in opened.files if file not in found and os.path.isfile(file)]
        found |= dict.fromkeys(new)
        waiting += [file for file in new if file != name and file.lower().endswith(".vrt")]
    return [Path(file) for file in found]


def refuse_source(target: Path, files: Sequence[Path]) -> None:
    """Refuse to write one of the files that a raster is read from, or a name GDAL does not take.

    Raises:
        ConfigError: it is one of them.
        InputError: the name is not in UTF-8.
    """
    name_of(target)
    if any(is_same_file(file, target) for file in files):
        raise ConfigError(f"{target} is an input itself, or part of one: use another name")


@contextmanager
def calls(what: str) -> Iterator[Any]:
    """Use rasterio; what it raises becomes an InputError about `what`.

    Raises:
        InputError: GDAL can't do it.
        MissingExtraError: rasterio is not installed.
    """
    module = rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", module.errors.NotGeoreferencedWarning)
        try:
            with module.Env(GDAL_CACHEMAX=CACHE_BYTES):
                yield module
        except (module.errors.RasterioError, module._err.CPLE_BaseError) as error:
            reason = error.__cause__ or error  # rasterio says "Read failed. See previous exception"
            text = " ".join(str(reason).split())
            raise InputError(text if what in text else f"{what}: {text}") from None
