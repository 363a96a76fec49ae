"""Segmentation on a Ray cluster: jobs of Ray Data that can be resumed, and a service of Ray Serve.

Example:
    >>> import segrt.ray
    >>> job = segrt.ray.segment("s3://photos/", "s3://labels/", model="PP-LiteSeg-T_camvid")
    >>> print(job.done, job.failed)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segrt.ray.job import segment
    from segrt.ray.segmenter import Segmenter
    from segrt.ray.service import app
    from segrt.ray.shards import unpack

_MODULES = {"app": "service", "Segmenter": "segmenter", "segment": "job", "unpack": "shards"}

__all__ = ["Segmenter", "app", "segment", "unpack"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'segrt.ray' has no attribute {name!r}")
    value = getattr(import_module(f"segrt.ray.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
