"""Calls the converters and runtimes of device files, in a process of its own, as they can abort.

`python -m segrt_export.device_child convert MODEL.onnx TARGET WEIGHTS` writes an `.ort` or
`.mnn` file, and the list of operators next to an `.ort` file. WEIGHTS is the type in which they
are stored, which MODEL.onnx has already if TARGET is an `.ort` file.

`python -m segrt_export.device_child run MODEL.mnn INPUT OUTPUT BATCH.npy RESULT.npy` runs an
`.mnn` file; INPUT and OUTPUT are the names of its tensors.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def _convert_ort(source: Path, target: Path, weights: str) -> None:
    import onnxruntime as ort
    from onnxruntime.tools.ort_format_model import create_config_from_models

    # As onnxruntime.tools.convert_onnx_models_to_ort, which has no option for the optimisers.
    # Beyond "extended" they are specific to the CPU that converts.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(
        str(source),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ConstantFolding"] if weights != "float32" else [],
    )
    os.chdir(target.parent)  # its comment names the file, without the folder
    create_config_from_models([Path(target.name)], Path(f"{target.name}.config"), True)


def _convert_mnn(source: Path, target: Path, weights: str) -> None:
    # The command mnnconvert sends what it did to a server, and installs a package for that.
    import _tools

    extra = {"float32": [], "float16": ["--fp16"], "int8": ["--weightQuantBits", "8"]}[weights]
    files = ["--modelFile", str(source), "--MNNModel", str(target)]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--bizCode", "segrt", *files, *extra])


def _run_mnn(
    file: Path, name: str, output: str, batch: npt.NDArray[np.float32]
) -> npt.NDArray[Any]:
    import MNN
    from MNN import expr

    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high"},))
    network = MNN.nn.load_module_from_file(str(file), [name], [output], runtime_manager=manager)
    results = network.forward([expr.const(batch, list(batch.shape), expr.NCHW)])
    if not results:
        sys.exit(
            "Error: the network gives no output, perhaps because MNN lacks one of its operators"
        )
    return np.array(expr.convert(results[0], expr.NCHW).read())


def _main(task: str, file: str, *arguments: str) -> None:
    if task == "convert":
        target, weights = Path(arguments[0]), arguments[1]
        (_convert_mnn if target.suffix == ".mnn" else _convert_ort)(Path(file), target, weights)
        return
    name, output, batch, result = arguments
    np.save(result, _run_mnn(Path(file), name, output, np.load(batch)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
