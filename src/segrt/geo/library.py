"""rasterio, and its errors and warnings in words of segrt."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segrt.errors import InputError, MissingExtraError

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
