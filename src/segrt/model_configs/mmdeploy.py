"""`pipeline.json` and `deploy.json` of mmdeploy, for networks of mmsegmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segrt.errors import ModelError
from segrt.model_configs.stated import Lenient, Stated, parse, read_mapping
from segrt.preprocess import Flag, Number, Side

_INTERP = {"bilinear": "LINEAR", "nearest": "NEAREST", "bicubic": "CUBIC", "area": "AREA"}
# They load images or arrange tensors, and change no values.
_NEUTRAL = {
    "LoadImageFromFile",
    "DefaultFormatBundle",
    "ImageToTensor",
    "Collect",
    "PackSegInputs",
    "LoadAnnotations",
}


class _Resize(Lenient):
    size: Side | tuple[Side, Side]
    keep_ratio: Flag
    interpolation: str = "bilinear"


class _Normalize(Lenient):
    mean: list[Number]
    std: list[Number]
    to_rgb: Flag


class _Task(Lenient):
    transforms: list[dict[str, Any]] | None = None


class _Tasks(Lenient):
    tasks: list[_Task]


class _Pipeline(Lenient):
    pipeline: _Tasks


class _Net(Lenient):
    name: str | None = None


class _Deploy(Lenient):
    task: str
    models: tuple[_Net, ...] = ()


def pipeline_json(path: Path) -> Stated:
    """Read the preprocessing; it states nothing if the file is not from mmdeploy.

    Raises:
        ModelError: a value is invalid, or a step is required that segrt does not have.
    """
    data = read_mapping(path)
    if "pipeline" not in data:
        return Stated(path.name)
    tasks = parse(data, _Pipeline, path).pipeline.tasks
    listed = next((task.transforms for task in tasks if task.transforms is not None), None)
    if listed is None:
        raise ModelError(f"{path}: no task has a list of transforms")
    transforms = [step for entry in listed if (step := _step(entry, path)) is not None]
    if not any(step["type"] == "Normalize" for step in transforms):
        transforms.append({"type": "Normalize", "scale": 1.0, "mean": 0.0, "std": 1.0})
    return Stated(path.name, {"transforms": tuple(transforms), "resize_in": "uint8"})


def deploy_json(path: Path) -> Stated:
    """Check that mmdeploy exported a segmentation network; the name is that of its architecture."""
    data = read_mapping(path)
    if "task" not in data:
        return Stated(path.name)
    config = parse(data, _Deploy, path)
    if config.task != "Segmentor":
        raise ModelError(f"{path}: the task is {config.task}, not Segmentor")
    names = [net.name for net in config.models if net.name]
    return Stated(path.name, {"name": names[0]} if names else {})


def _height_first(pipeline: Path) -> bool:
    """Whether sizes are (height, width), as before mmdeploy 1.0, and not mmcv's (width, height).

    Raises:
        ModelError: the version of mmdeploy is unknown.
    """
    path = pipeline.with_name("deploy.json")
    version = read_mapping(path).get("version") if path.is_file() else None
    major = str(version).partition(".")[0]
    if not major.isdecimal():
        raise ModelError(
            f"{pipeline}: whether the size of Resize is (height, width) or (width, height) depends "
            "on the version of mmdeploy, which deploy.json next to it must state"
        )
    return int(major) < 1


def _step(entry: dict[str, Any], path: Path) -> dict[str, Any] | None:
    kind = str(entry.get("type"))
    key = f"transforms.{kind}"
    if kind in _NEUTRAL:
        return None
    if kind == "Resize":
        resize = parse(entry, _Resize, path, key)
        if resize.interpolation not in _INTERP:
            raise ModelError(f"{path}: {key}: interpolation {resize.interpolation!r} is not known")
        pair = resize.size if isinstance(resize.size, tuple) else (resize.size, resize.size)
        if pair[0] != pair[1] and not resize.keep_ratio and _height_first(path):
            pair = pair[::-1]  # `target_size` is (width, height)
        size = {"target_size": list(pair), "keep_ratio": resize.keep_ratio, "size_divisor": None}
        return {"type": "Resize", **size, "interp": _INTERP[resize.interpolation]}
    if kind == "Normalize":
        normalize = parse(entry, _Normalize, path, key)
        return {"type": "Normalize", "scale": 1.0, **normalize.model_dump()}
    raise ModelError(f"{path}: the transform {kind!r} is required, which segrt does not have")
