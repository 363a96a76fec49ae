"""What PyInstaller adds to programs that import segrt."""

import importlib.metadata
from pathlib import Path

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

import segrt

_PACKAGE = Path(segrt.__file__).parent
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-ep-openvino")


def _is_used(module: str) -> bool:
    return not module.startswith(("segrt.bench", "segrt._pyinstaller"))


# Public names and commands are imported when they are used, by name.
hiddenimports = [
    *collect_submodules("segrt", _is_used),
    *collect_submodules("segrt_export", on_error="ignore"),
]

# Frozen programs don't convert Paddle models: Paddle alone is a gigabyte.
excludedimports = ["paddle", "paddle2onnx", "paddleseg", "onnxslim", "matplotlib"]

# The model zoo, the bundled model with its licence, and the pages of the server.
datas = collect_data_files("segrt", excludes=["_pyinstaller", "**/__pycache__"])
if not (_PACKAGE / "model_zoo.yaml").exists():  # in a source checkout it is at the top level
    datas.append((str(_PACKAGE.parents[1] / "model_zoo.yaml"), "segrt"))
    datas.append((str(_PACKAGE.parents[1] / "packages" / "web" / "src"), "segrt/web/module"))

# `segrt doctor` tells which ONNX Runtime and OpenCV are installed.
_installed = {
    str(dist.name).lower().replace("_", "-") for dist in importlib.metadata.distributions()
}
for _name in sorted(_installed):
    if _name in ("segrt", *_RUNTIMES) or _name.startswith("opencv-"):
        datas += copy_metadata(_name)

# The plugin is imported by the name that its wheel has. Its hook collects the libraries.
if "onnxruntime-ep-openvino" in _installed:
    hiddenimports.append("onnxruntime_ep_openvino")

# Numba keeps machine code for the next start only of functions whose source is a file.
module_collection_mode = {"segrt.label_loop": "py"}
