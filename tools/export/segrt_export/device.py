"""Writes a model for phones and other devices, as an `.ort` file of ONNX Runtime or for MNN.

What is written has run here, in the runtime of its format, and its labels were those of the ONNX
model.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, helper

from segrt.description import Description
from segrt.errors import ConfigError, ExportError, SegrtError
from segrt.files import sha256, write_atomic
from segrt.metadata import KEY
from segrt.network import first_line
from segrt_export.convert import run_child
from segrt_export.onnx_model import load_session, open_exported
from segrt_export.parity import AWKWARD_SIZES, THRESHOLD, cases_for, labels_of, summary
from segrt_export.passes.half_weights import half_weights, unfold
from segrt_export.passes.int8_weights import int8_weights
from segrt_export.requirements import EDGE, require

Weights: TypeAlias = Literal["float32", "float16", "int8"]

_RUNTIMES = {".ort": "onnxruntime", ".mnn": "MNN"}


@dataclass(frozen=True)
class DeviceFile:
    """A model for a device.

    Attributes:
        file: the file.
        report_file: what was measured, JSON.
        report: the content of the report.
    """

    file: Path
    report_file: Path
    report: dict[str, Any]


def to_device(
    file: Path,
    target: Path,
    *,
    weights: Weights = "float32",
    size: tuple[int, int] | None = None,
    images: Sequence[Path] = (),
) -> DeviceFile:
    """Convert an exported model to the format of a device, and write it if its labels are the same.

    Written next to `target`, as `TARGET.parity.json`: the report. For `.ort`, `TARGET.config`: the
    operators and types that it needs, for a reduced build of ONNX Runtime. For `.mnn`,
    `TARGET.json`: segrt's metadata, which an `.ort` file contains.

    Example:
        >>> done = to_device(Path("roads.onnx"), Path("roads.ort"), weights="float16")
        >>> done.report["parity"]["agreement"]
        1.0

    Args:
        file: a model exported by segrt-export.
        target: path of the result, which ends in `.ort` or `.mnn`; missing folders are created.
        weights: type in which large weights are stored. Arithmetic is float32 with all of them.
        size: the only (height, width) that the result takes, with a batch size of 1; by default it
            takes what the model takes.
        images: photos to compare on; by default the sample image of the package.

    Returns:
        DeviceFile: the paths of the file and of its report, and the report.

    Raises:
        ConfigError: `target` has another suffix, or the model has another fixed size.
        ExportError: the model does not come from segrt-export, the converter or runtime fails, or
            more labels differ than `segrt_export.parity.THRESHOLD` allows. Nothing is written in
            that case.
        MissingExtraError: onnxruntime or MNN is not installed.
    """
    if target.suffix not in _RUNTIMES:
        raise ConfigError(f"{target} does not end in .ort or .mnn: its suffix selects the format")
    runtime = _RUNTIMES[target.suffix]
    require("onnxruntime", runtime, extra=EDGE)
    description = open_exported(file)
    model = onnx.load(str(file))
    prepare(model, description, weights if runtime == "onnxruntime" else "float32", size)
    with tempfile.TemporaryDirectory(prefix="segrt-export-") as folder:
        source, made = Path(folder) / file.name, Path(folder) / target.name
        onnx.save(model, str(source))
        run_child("segrt_export.device_child", runtime, "convert", source, made, weights)
        if not made.is_file():
            raise ExportError(f"{runtime} could not convert {file}: it wrote no file")
        parity = _compare(file, made, description, list(images), size)
        report = {
            "model": description.meta.name,
            "source": {file.name: sha256(file)},
            "tools": {
                "segrt": version("segrt"),
                "onnx": onnx.__version__,
                runtime: _version(runtime),
            },
            "weights": weights,
            "size": size,
            "bytes": made.stat().st_size,
            "parity": parity,
        }
        beside = {".parity.json": (json.dumps(report, indent=2) + "\n").encode()}
        if runtime == "MNN":
            beside[".json"] = _metadata(model)[KEY].encode()
        else:
            beside[".config"] = made.with_name(f"{made.name}.config").read_bytes()
        data = made.read_bytes()
    for suffix, content in beside.items():
        write_atomic(target.with_name(target.name + suffix), content)
    write_atomic(target, data)
    return DeviceFile(target, target.with_name(f"{target.name}.parity.json"), report)


def prepare(
    model: ModelProto, description: Description, weights: Weights, size: tuple[int, int] | None
) -> None:
    """Fix the input size and store weights in another type, in place."""
    # The second graph is for segrt's own plans.
    helper.set_model_props(model, {KEY: _metadata(model)[KEY]})
    unfold(model)
    if size:
        own = description.input.dims
        if any(side not in (None, want) for side, want in zip(own, (1, *size), strict=True)):
            raise ConfigError(
                f"{description.meta.name} takes {' x '.join(str(side or 'any') for side in own)}"
                f" (batch, height, width) only, not 1 x {size[0]} x {size[1]}: leave out the size"
            )
        require("onnxslim", extra=EDGE)
        import onnxslim
        from onnxruntime.tools import onnx_model_utils

        name = description.input.name
        onnx_model_utils.make_input_shape_fixed(
            model.graph, name, [1, description.input.channels, *size]
        )
        onnx_model_utils.fix_output_shapes(model)
        # What is computed from sizes becomes constant, and its operators are no longer needed.
        model.CopyFrom(onnxslim.slim(model))
    if weights != "float32":
        (half_weights if weights == "float16" else int8_weights)(model)


def _metadata(model: ModelProto) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


def _version(runtime: str) -> str:
    if runtime == "MNN":
        return version(runtime)
    import onnxruntime as ort  # of whichever wheel

    return str(ort.__version__)


def _compare(
    file: Path,
    made: Path,
    description: Description,
    images: list[Path],
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """The report on the labels of both files.

    Raises:
        ExportError: the labels of a case differ too much, or one of the files can't run it.
    """
    session, meta = load_session(file), description.meta
    run = _runner(made, description)
    own = description.input.dims
    batch, height, width = (1, *size) if size else own
    found = []
    shape = [batch or "N", description.input.channels, height or "H", width or "W"]
    for case in cases_for(images, AWKWARD_SIZES, shape, meta.bands):
        inputs = case.batch(description.transforms)
        try:
            expected = session.run([description.output.name], {description.input.name: inputs})[0]
        except Exception as error:  # onnxruntime has its own class per status code
            raise ExportError(f"{file} can't run {case.name}: {first_line(error)}") from None
        try:
            result = run(inputs)
        except SegrtError as error:
            raise ExportError(f"{error}; nothing was written") from None
        if result.shape != expected.shape:
            raise ExportError(
                f"{meta.name}: {made.suffix} gives {result.shape} for {case.name}, not"
                f" {expected.shape}; nothing was written"
            )
        labels = labels_of(result, meta, inputs.shape[2:])
        theirs = labels_of(expected, meta, inputs.shape[2:])
        different = int(np.count_nonzero(labels != theirs))
        if different > (1 - THRESHOLD) * labels.size:
            raise ExportError(
                f"{meta.name}: {different:,} of {labels.size:,} labels of {case.name}"
                f" ({different / labels.size:.2%}) in {made.suffix} are not those of {file.name},"
                f" more than {1 - THRESHOLD:.1%}; nothing was written"
            )
        found.append(
            {
                "case": case.name,
                "shape": list(inputs.shape),
                "pixels": labels.size,
                "agreement": 1 - different / labels.size,
                "max_logit_diff": float(np.abs(result - expected).max()),
            }
        )
    return {"reference": f"{file.name} on ONNX Runtime {_version('onnxruntime')}", **summary(found)}


def _runner(
    made: Path, description: Description
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]:
    """A function that runs a device file on a batch."""
    names = description.input.name, description.output.name
    if made.suffix == ".ort":
        session = load_session(made)

        def run(batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            try:
                return np.asarray(session.run([names[1]], {names[0]: batch})[0])
            except Exception as error:  # onnxruntime has its own class per status code
                raise ExportError(f"{made.name} can't run: {first_line(error)}") from None

        return run

    def run_in_child(batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        source, target = made.with_suffix(".in.npy"), made.with_suffix(".out.npy")
        target.unlink(missing_ok=True)
        np.save(source, batch)
        run_child("segrt_export.device_child", "MNN", "run", made, *names, source, target)
        return np.asarray(np.load(target))

    return run_in_child
