"""Georeferenced rasters: a scene in, a map out, by windows, in memory that does not grow with it.

Example:
    >>> import segrt.geo
    >>> pipeline = segrt.create_pipeline("semantic_segmentation")
    >>> labels = segrt.geo.segment(pipeline, "scene.tif", "labels.tif", slide="1024,768")
    >>> print(labels.path, labels.areas)
    >>> segrt.geo.polygons(labels.path, "labels.gpkg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segrt.geo.job import LabelMap, segment
    from segrt.geo.raster import Raster
    from segrt.geo.vectors import polygons

_MODULES = {"LabelMap": "job", "Raster": "raster", "polygons": "vectors", "segment": "job"}

__all__ = ["LabelMap", "Raster", "polygons", "segment"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'segrt.geo' has no attribute {name!r}")
    value = getattr(import_module(f"segrt.geo.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
