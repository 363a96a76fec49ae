"""The libraries of OpenVINO's plugin, which it opens by name, next to each other."""

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

_LIBRARIES = ["*.dll", "*.so", "*.so.*"]

binaries = collect_dynamic_libs("onnxruntime_ep_openvino", search_patterns=_LIBRARIES)
datas = collect_data_files("onnxruntime_ep_openvino", excludes=_LIBRARIES)
