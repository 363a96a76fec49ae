"""segrt: semantic segmentation with the PaddleSeg models, on ONNX Runtime.

Importing this package is cheap: NumPy, OpenCV, pydantic and ONNX Runtime are loaded when the first
name is used. It switches off the telemetry of ONNX Runtime, unless the environment sets
ORT_DISABLE_TELEMETRY=0.

Example:
    >>> import segrt
    >>> pipeline = segrt.create_pipeline("semantic_segmentation")
    >>> for result in pipeline.predict("road.png"):
    ...     result.save_to_img("./output/")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from segrt import lazy

# Since 1.29, ONNX Runtime reports sessions to Microsoft. It reads this once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from segrt.backends.memory import limit_memory
    from segrt.coco import to_coco
    from segrt.create import create_pipeline
    from segrt.errors import (
        ConfigError,
        DeviceError,
        DownloadError,
        ExportError,
        InputError,
        MissingExtraError,
        ModelError,
        SegrtError,
        TooLargeError,
    )
    from segrt.frame import SegFailure
    from segrt.overlay_video import save_overlay_video
    from segrt.pipeline import Pipeline
    from segrt.result import SegResult, Timings
    from segrt.shapes import Polygon

__version__ = "0.1.0"

_MODULES = {
    "ConfigError": "errors",
    "DeviceError": "errors",
    "DownloadError": "errors",
    "ExportError": "errors",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "Pipeline": "pipeline",
    "Polygon": "shapes",
    "SegFailure": "frame",
    "SegResult": "result",
    "SegrtError": "errors",
    "Timings": "result",
    "TooLargeError": "errors",
    "create_pipeline": "create",
    "limit_memory": "backends.memory",
    "save_overlay_video": "overlay_video",
    "to_coco": "coco",
}

__all__ = [
    "ConfigError",
    "DeviceError",
    "DownloadError",
    "ExportError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "Pipeline",
    "Polygon",
    "SegFailure",
    "SegResult",
    "SegrtError",
    "Timings",
    "TooLargeError",
    "__version__",
    "create_pipeline",
    "limit_memory",
    "save_overlay_video",
    "to_coco",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
