"""Georeferenced rasters: a scene in, a map out, by windows, in memory that does not grow with it.

Example:
    >>> import segrt.geo
    >>> pipeline = segrt.create_pipeline("semantic_segmentation")
    >>> labels = segrt.geo.segment(pipeline, "scene.tif", "labels.tif", slide="1024,768")
    >>> print(labels.path, labels.areas)
    >>> segrt.geo.polygons(labels.path, "labels.gpkg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segrt import lazy

if TYPE_CHECKING:
    from segrt.geo.job import LabelMap, segment
    from segrt.geo.raster import Raster
    from segrt.geo.vectors import polygons

_MODULES = {"LabelMap": "job", "Raster": "raster", "polygons": "vectors", "segment": "job"}

__all__ = ["LabelMap", "Raster", "polygons", "segment"]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
