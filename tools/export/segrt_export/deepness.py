"""Writes a model for Deepness, a plugin of QGIS: https://github.com/PUTvision/qgis-plugin-deepness.

The plugin cuts a raster into square tiles and feeds `(pixel / 255 - mean) / std`, RGB, with the
mean and standard deviation in the file's metadata. It takes a channel of probabilities per class at
the size of the tile, sets those below a threshold to zero, and chooses the largest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from segrt.description import Description
from segrt.errors import ConfigError, ExportError
from segrt.files import sha256, write_atomic
from segrt.metadata import KEY
from segrt.network import first_line
from segrt.preprocess import Normalize
from segrt_export.device import DeviceFile, Weights, prepare
from segrt_export.onnx_model import load_session, open_exported
from segrt_export.parity import THRESHOLD, cases_for, labels_of, summary
from segrt_export.requirements import EDGE, require

SIZE = 512
"""Pixels of a side of a tile, for models that take any size."""

_OVERLAP = 25  # percent of a tile, as `segrt geo` has it by default
_BGR, _OUTPUT = "segrt.bgr", "probabilities"


def to_deepness(
    file: Path,
    target: Path,
    *,
    size: int | None = None,
    resolution: float | None = None,
    weights: Weights = "float32",
    images: Sequence[Path] = (),
) -> DeviceFile:
    """Write an exported model for Deepness, if the plugin's labels are those of segrt.

    The file has one input size and a batch size of 1. It includes upsampling and softmax, and the
    order of the channels, if the network takes BGR. Deepness shows the classes by their names, with
    its threshold and its removal of small segments off. Tiles are used as they are, like the
    windows of `segrt geo`: steps of the model that resize don't apply. Written next to it, as
    `TARGET.parity.json`: the report.

    Example:
        >>> done = to_deepness(Path("roads.onnx"), Path("roads.deepness.onnx"), resolution=10)
        >>> done.report["parity"]["agreement"]
        1.0

    Args:
        file: a model exported by segrt-export.
        target: path of the result; missing folders are created.
        size: side of a tile; by default that of the model, or 512.
        resolution: centimetres of a pixel that Deepness suggests; None for none.
        weights: type in which large weights are stored.
        images: photos to compare on, resized to a tile; by default the sample image of the package.

    Returns:
        DeviceFile: the paths of the file and of its report, and the report.

    Raises:
        ConfigError: the model has another fixed size, or one that is no square.
        ExportError: the model does not come from segrt-export or ends in labels, or more labels
            differ than `segrt_export.parity.THRESHOLD` allows. Nothing is written in that case.
        MissingExtraError: onnxruntime is not installed.
    """
    require("onnxruntime", extra=EDGE)
    description = open_exported(file)
    meta = description.meta
    if meta.output == "labels":
        raise ExportError(
            f"{meta.name} gives labels: Deepness takes a probability for each class; export a"
            " network that ends in logits or probabilities"
        )
    side = size or _own_side(description)
    model = onnx.load(str(file))
    prepare(model, description, weights, (side, side))
    session = load_session(file)
    blank = np.zeros((1, 3, side, side), np.float32)
    shape = _run(session, description, blank, f"a tile of {side}").shape
    mean, std = _standardisation(description.transforms.normalize)
    if not description.transforms.normalize.to_rgb:
        _take_rgb(model, description.input.name)
    _give_probabilities(model, description, side, shape)
    helper.set_model_props(model, _properties(description, side, resolution, mean, std))
    onnx.checker.check_model(model)
    with tempfile.TemporaryDirectory(prefix="segrt-export-") as folder:
        made = Path(folder) / target.name
        onnx.save(model, str(made))
        parity = _compare(session, load_session(made), description, images, side, (mean, std))
        data = made.read_bytes()
    report = {
        "model": meta.name,
        "source": {file.name: sha256(file)},
        "tools": {"segrt": version("segrt"), "onnx": onnx.__version__},
        "weights": weights,
        "size": [side, side],
        "bytes": len(data),
        "parity": {"reference": file.name, **parity},
    }
    report_file = target.with_name(f"{target.name}.parity.json")
    write_atomic(report_file, (json.dumps(report, indent=2) + "\n").encode())
    write_atomic(target, data)
    return DeviceFile(target, report_file, report)


def _own_side(description: Description) -> int:
    """The side of the tiles that a model takes."""
    height, width = description.input.dims[1:]
    if height and width and height != width:
        raise ConfigError(
            f"{description.meta.name} takes {height} x {width} only: Deepness has square tiles"
        )
    return height or width or SIZE


def _standardisation(normalize: Normalize) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of R, G and B from 0 to 1."""
    order = 1 if normalize.to_rgb else -1
    unit = 255 * normalize.scale
    mean, std = ([value / unit for value in of[::order]] for of in (normalize.mean, normalize.std))
    return mean, std


def _properties(
    description: Description,
    side: int,
    resolution: float | None,
    mean: list[float],
    std: list[float],
) -> dict[str, str]:
    """What Deepness reads, and segrt's own description of the new file."""
    meta = description.meta
    normalize = {"type": "Normalize", "mean": mean, "std": std}
    others = [step for step in meta.transforms if step["type"] != "Normalize"]
    own = {"transforms": (*others, normalize), "output": "probabilities", "upsample": None}
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(meta.class_names)),
        "tile_size": side,
        "tiles_overlap": _OVERLAP,
        "standardization_mean": mean,
        "standardization_std": std,
        "seg_thresh": 0.0,  # a threshold would turn unsure pixels into class 0
        "seg_small_segment": 0,
    }
    if resolution is not None:
        values["resolution"] = resolution
    texts = {key: json.dumps(value) for key, value in values.items()}
    return {KEY: meta.model_copy(update=own).model_dump_json(), **texts}


def _take_rgb(model: ModelProto, name: str) -> None:
    """Reverse the channels of the input, in place."""
    for node in model.graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = _BGR
    order = numpy_helper.from_array(np.array([2, 1, 0]), f"{_BGR}.order")
    model.graph.initializer.append(order)
    node = helper.make_node("Gather", [name, order.name], [_BGR], name=_BGR, axis=1)
    model.graph.node.insert(0, node)


def _give_probabilities(
    model: ModelProto, description: Description, side: int, shape: tuple[int, ...]
) -> None:
    """Append what leads from the output to the probability of each class and pixel, in place.

    Args:
        model: the model.
        description: what is known of it.
        side: of a tile.
        shape: of the model's output for a tile.
    """
    graph, meta = model.graph, description.meta

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"segrt.{kind}"
        graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"segrt.{name}"))
        return f"segrt.{name}"

    name = description.output.name
    if shape[2:] != (side, side):
        sizes = constant("sizes", np.array([1, shape[1], side, side]))
        where = "align_corners" if meta.align_corners else "half_pixel"
        name = add(
            "Resize", name, "", "", sizes, mode="linear", coordinate_transformation_mode=where
        )
    if shape[1] == 1:
        name = add("Sigmoid", name) if meta.output == "logits" else name
        rest = add("Sub", constant("one", np.ones(1, np.float32)), name)
        name = add("Concat", rest, name, axis=1)
    elif meta.output == "logits":
        name = add("Softmax", name, axis=1)
    graph.node.append(helper.make_node("Identity", [name], [_OUTPUT], name=_OUTPUT))
    del graph.output[:]
    sides = [1, len(meta.class_names), side, side]
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, sides))
    model.ir_version = min(model.ir_version, 8)  # for the ONNX Runtime of older installations


def _compare(
    reference: Any,
    session: Any,
    description: Description,
    images: Sequence[Path],
    side: int,
    standard: tuple[list[float], list[float]],
) -> dict[str, Any]:
    """Compare labels with those of the model itself.

    Raises:
        ExportError: those of a photo differ too much.
    """
    meta, found = description.meta, []
    mean, std = (np.array(values, np.float32) for values in standard)
    for case in cases_for(list(images), (), [1, 3, side, side]):
        output = _run(reference, description, case.batch(description.transforms), case.name)
        expected = labels_of(output, meta, (side, side))[0]
        pixels = np.float32(case.photos[0][None, :, :, ::-1] * 1.0 / 255.0)
        tile = np.moveaxis((pixels - mean) / std, 3, 1)
        labels = session.run([_OUTPUT], {description.input.name: tile})[0][0].argmax(axis=0)
        different = int(np.count_nonzero(labels != expected))
        if different > (1 - THRESHOLD) * labels.size:
            raise ExportError(
                f"{meta.name}: {different:,} of {labels.size:,} labels of {case.name} in Deepness"
                f" are not those of segrt, more than {1 - THRESHOLD:.1%}; nothing was written"
            )
        agreement = 1 - different / labels.size
        shape = [1, 3, side, side]
        found.append(
            {"case": case.name, "shape": shape, "pixels": labels.size, "agreement": agreement}
        )
    return summary(found)


def _run(
    session: Any, description: Description, batch: npt.NDArray[np.float32], name: str
) -> npt.NDArray[Any]:
    try:
        return np.asarray(
            session.run([description.output.name], {description.input.name: batch})[0]
        )
    except Exception as error:  # onnxruntime has its own class per status code
        what = f"{description.meta.name} can't run {name}"
        raise ExportError(f"{what}: {first_line(error)}") from None
