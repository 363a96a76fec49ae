"""Segmentation on a Ray cluster: jobs of Ray Data that can be resumed, and a service of Ray Serve.

Example:
    >>> import segrt.ray
    >>> job = segrt.ray.segment("s3://photos/", "s3://labels/", model="PP-LiteSeg-T_camvid")
    >>> print(job.done, job.failed)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segrt import lazy

if TYPE_CHECKING:
    from segrt.ray.job import segment
    from segrt.ray.segmenter import Segmenter
    from segrt.ray.service import app
    from segrt.ray.shards import unpack

_MODULES = {"app": "service", "Segmenter": "segmenter", "segment": "job", "unpack": "shards"}

__all__ = ["Segmenter", "app", "segment", "unpack"]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
