"""segrt: semantic segmentation with the PaddleSeg models, on ONNX Runtime.

Importing this package is cheap: NumPy, OpenCV, pydantic and ONNX Runtime are loaded when the first name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segrt.errors import (
        ConfigError,
        DeviceError,
        DownloadError,
        ExportError,
        InputError,
        MissingExtraError,
        ModelError,
        SegrtError,
    )
    from segrt.pipeline import Pipeline, create_pipeline
    from segrt.result import SegFailure, SegResult
    from segrt.video import save_overlay_video

__version__ = "0.1.0"

_HOMES = {
    "ConfigError": "errors",
    "DeviceError": "errors",
    "DownloadError": "errors",
    "ExportError": "errors",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "Pipeline": "pipeline",
    "SegFailure": "result",
    "SegResult": "result",
    "SegrtError": "errors",
    "create_pipeline": "pipeline",
    "save_overlay_video": "video",
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
    "SegFailure",
    "SegResult",
    "SegrtError",
    "__version__",
    "create_pipeline",
    "save_overlay_video",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'segrt' has no attribute {name!r}")
    value = getattr(import_module(f"segrt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
