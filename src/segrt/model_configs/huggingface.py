"""`config.json` and `preprocessor_config.json` of transformers, as optimum exports them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from segrt.errors import ModelError
from segrt.metadata import MAX_CLASSES
from segrt.model_configs.stated import Lenient, Stated, parse, read_mapping
from segrt.preprocess import Flag, Number, Side

# Pillow's numbers (`PIL.Image.Resampling`), which transformers stores.
_RESAMPLE = {
    0: "PILLOW_NEAREST",
    1: "PILLOW_LANCZOS",
    2: "PILLOW_BILINEAR",
    3: "PILLOW_BICUBIC",
    4: "PILLOW_BOX",
    5: "PILLOW_HAMMING",
}

# Keys of steps that segrt does not take, if they are true.
_REFUSED = (
    "crop_pct",
    "do_center_crop",
    "do_convert_grayscale",
    "do_flip_channel_order",
    "do_pad",
    "keep_aspect_ratio",
    "size_divisor",
)


class _Config(Lenient):
    id2label: dict[str, str | int] | None = Field(None, max_length=MAX_CLASSES)
    semantic_loss_ignore_index: int | None = None
    architectures: list[str] | None = None


class _Size(Lenient):
    height: Side | None = None
    width: Side | None = None
    shortest_edge: Side | None = None
    longest_edge: Side | None = None


class _Processor(Lenient):
    do_resize: Flag
    size: _Size | Side | tuple[Side, Side] | None = None
    resample: Annotated[int, Field(strict=True)] | None = None
    do_rescale: Flag | None = None
    rescale_factor: Number | None = None
    do_normalize: Flag
    image_mean: Number | list[Number] | None = None
    image_std: Number | list[Number] | None = None
    do_reduce_labels: Flag | None = None
    reduce_labels: Flag | None = None


def model_config(path: Path) -> Stated:
    """Read the class names of `config.json`; it states nothing if it is not from transformers."""
    data = read_mapping(path)
    if not {"id2label", "model_type", "architectures"} & data.keys():
        return Stated(path.name)
    config = parse(data, _Config, path)
    kinds = config.architectures or []
    for kind in kinds:
        if "MaskFormer" in kind or "Mask2Former" in kind or "OneFormer" in kind:
            raise ModelError(
                f"{path}: {kind} predicts masks and their classes, not a class for each pixel, "
                "which segrt can't run"
            )
    values: dict[str, Any] = {"interpolate_to": "source"}
    if config.id2label:
        names = {key: str(name) for key, name in config.id2label.items()}
        order = [str(index) for index in range(len(names))]
        if set(order) != names.keys():
            raise ModelError(
                f"{path}: id2label must name the classes 0 to {len(names) - 1}, but has the keys "
                f"{', '.join(sorted(names))[:100]}"
            )
        values["class_names"] = tuple(names[key] for key in order)
    if config.semantic_loss_ignore_index is not None:
        values["ignore_index"] = config.semantic_loss_ignore_index
    return Stated(path.name, values)


def preprocessor_config(path: Path) -> Stated:
    """Read the preprocessing of `preprocessor_config.json`.

    Raises:
        ModelError: a value is invalid, or a step is required that segrt does not have.
    """
    data = read_mapping(path)
    for key in _REFUSED:
        if data.get(key):
            raise ModelError(f"{path}: {key} is set, a step that segrt does not have")
    if data.get("ensure_multiple_of") not in (None, 1):
        raise ModelError(f"{path}: ensure_multiple_of is set, a step that segrt does not have")
    config = parse(data, _Processor, path)
    transforms: list[dict[str, Any]] = []
    if config.do_resize:
        transforms.append(_resize(config, path))
    scale = 1.0
    if config.do_rescale or (config.do_rescale is None and config.do_normalize):
        # Feature extractors before transformers 4.26 always divide by 255 where they normalise.
        scale = 1 / 255 if config.rescale_factor is None else config.rescale_factor
    entry: dict[str, Any] = {"type": "Normalize", "scale": scale, "mean": 0.0, "std": 1.0}
    if config.do_normalize:
        if config.image_mean is None or config.image_std is None:
            raise ModelError(f"{path}: do_normalize is set without image_mean and image_std")
        entry |= {"mean": config.image_mean, "std": config.image_std}
    transforms.append(entry)
    values: dict[str, Any] = {"transforms": tuple(transforms), "resize_in": "uint8"}
    flags = [flag for flag in (config.do_reduce_labels, config.reduce_labels) if flag is not None]
    if flags:
        values["reduce_labels"] = flags[0]
    return Stated(path.name, values)


def _resize(config: _Processor, path: Path) -> dict[str, Any]:
    resample = config.resample
    if resample not in _RESAMPLE:
        raise ModelError(f"{path}: resample {resample} is not one of Pillow's filters, 0 to 5")
    common = {"interp": _RESAMPLE[resample]}
    size = config.size
    if isinstance(size, int):
        size = (size, size)
    if isinstance(size, tuple):
        size = _Size(height=size[0], width=size[1])
    if size and size.height and size.width and not size.shortest_edge and not size.longest_edge:
        pair = [size.width, size.height]
        exact = {"keep_ratio": False, "size_divisor": None}
        return {"type": "Resize", "target_size": pair, **exact, **common}
    if size and not size.height and not size.width and size.shortest_edge:
        limit = {"max_size": size.longest_edge} if size.longest_edge else {}
        short = {"type": "ResizeByShort", "short_size": size.shortest_edge, "rounding": "down"}
        return {**short, **limit, **common}
    raise ModelError(
        f"{path}: do_resize is set, and size must be a height and a width, or a shortest_edge"
    )
