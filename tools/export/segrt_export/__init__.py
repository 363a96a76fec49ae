"""segrt-export: convert models to fast ONNX files and compare them with the original.

Importing this package is cheap: onnx and Paddle are loaded when a name that needs them is used.

Example:
    >>> import segrt_export
    >>> model = segrt_export.PaddleModel.open(Path("my_model"))
    >>> segrt_export.export(model, Path("my_model.onnx")).report["parity"]["agreement"]
    1.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from segrt_export.requirements import missing

if TYPE_CHECKING:
    from segrt_export.cached import export_folder
    from segrt_export.deepness import to_deepness
    from segrt_export.device import DeviceFile, to_device
    from segrt_export.exporter import Exported, export, export_stock
    from segrt_export.onnx_model import OnnxModel
    from segrt_export.parity import SAMPLE, PaddleReference
    from segrt_export.passes import check_names
    from segrt_export.program import PaddleModel
    from segrt_export.quantization import Limit, Quantised, quantize
    from segrt_export.requirements import require
    from segrt_export.seaformer import build_seaformer
    from segrt_export.untrained import build_untrained

_MODULES = {
    "DeviceFile": "device",
    "Exported": "exporter",
    "Limit": "quantization",
    "OnnxModel": "onnx_model",
    "PaddleModel": "program",
    "PaddleReference": "parity",
    "Quantised": "quantization",
    "SAMPLE": "parity",
    "build_seaformer": "seaformer",
    "build_untrained": "untrained",
    "check_names": "passes",
    "export": "exporter",
    "export_folder": "cached",
    "export_stock": "exporter",
    "quantize": "quantization",
    "require": "requirements",
    "to_deepness": "deepness",
    "to_device": "device",
}

_EXTRAS = {"deepness": "edge", "device": "edge", "quantization": "quantize"}
"""The extra that a module needs, if it is not "export"."""

__all__ = [
    "SAMPLE",
    "DeviceFile",
    "Exported",
    "Limit",
    "OnnxModel",
    "PaddleModel",
    "PaddleReference",
    "Quantised",
    "build_seaformer",
    "build_untrained",
    "check_names",
    "export",
    "export_folder",
    "export_stock",
    "quantize",
    "require",
    "to_deepness",
    "to_device",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'segrt_export' has no attribute {name!r}")
    try:
        module = import_module(f"segrt_export.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(_MODULES[name], "export")
        raise missing(error.name, extra=f"pip install 'segrt[{extra}]'") from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
