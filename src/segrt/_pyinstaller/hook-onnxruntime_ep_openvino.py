"""OpenVINO's plugin, with libraries that it opens by name."""

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

_LIBRARIES = ["*.dll", "*.so", "*.so.*"]

binaries = collect_dynamic_libs("onnxruntime_ep_openvino", search_patterns=_LIBRARIES)
datas = collect_data_files("onnxruntime_ep_openvino", excludes=_LIBRARIES)

# OpenVINO looks for its devices next to the path through which it was loaded. Through a link to
# libopenvino.so in another folder it would find none.
bindepend_symlink_suppression = [f"**/onnxruntime_ep_openvino/{name}" for name in _LIBRARIES]
