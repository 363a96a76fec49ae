"""`inference.yml` of PaddleX and `deploy.yaml` of PaddleSeg."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from segrt.metadata import MAX_CLASSES, Bands
from segrt.model_configs.stated import Lenient, Stated, parse, read_mapping

# PaddleSeg's defaults of Resize (paddleseg/transforms/transforms.py) differ from PaddleX's.
_RESIZE = {"target_size": [512, 512], "keep_ratio": False, "size_divisor": None, "interp": "LINEAR"}

OutputOp = Literal["argmax", "softmax", "none"]


class _Deploy(Lenient):
    transforms: list[dict[str, Any]] | None = Field(None, max_length=100)
    bands: Bands = ()
    model: str | None = None
    output_op: OutputOp | None = None

    @field_validator("output_op", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class _PreProcess(Lenient):
    transform_ops: list[dict[str, Any]] | None = Field(None, max_length=100)


class _PostProcess(Lenient):
    label_list: list[str | int | float] | None = Field(None, max_length=MAX_CLASSES)

    @field_validator("label_list", mode="before")
    @classmethod
    def _no_flags(cls, value: object) -> object:
        if isinstance(value, list) and any(isinstance(name, bool) for name in value):
            raise ValueError("a name is read as true or false: put it in quotes")
        return value


class _Global(Lenient):
    model_name: str | None = None


class _Config(Lenient):
    general: _Global | None = Field(None, alias="Global")
    deploy: _Deploy | None = Field(None, alias="Deploy")
    pre: _PreProcess | None = Field(None, alias="PreProcess")
    post: _PostProcess | None = Field(None, alias="PostProcess")


def inference_yml(path: Path) -> Stated:
    """Read the configuration that PaddleX writes."""
    return _stated(path, paddleseg=False)


def deploy_yaml(path: Path) -> Stated:
    """Read the configuration that PaddleSeg 2 and 3 write."""
    return _stated(path, paddleseg=True)


def from_mapping(data: object, path: Path, *, paddleseg: bool) -> Stated:
    """Like `inference_yml` or `deploy_yaml`, for a file that has been read."""
    config = parse(data, _Config, path)
    values: dict[str, Any] = {}
    transforms = config.deploy.transforms if config.deploy else None
    if transforms is None and config.pre:  # in some exports
        transforms = config.pre.transform_ops
    if transforms is not None:
        if paddleseg:
            transforms = [_RESIZE | t if t.get("type") == "Resize" else t for t in transforms]
            values["resize_in"] = "float32"
        values["transforms"] = tuple(transforms)
    if config.deploy and config.deploy.bands:  # segrt's own key
        values["bands"] = config.deploy.bands
    if config.post and config.post.label_list:
        values["class_names"] = tuple(str(label) for label in config.post.label_list)
    if config.general and config.general.model_name:
        values["name"] = config.general.model_name
    if config.deploy and config.deploy.output_op:
        values["output_op"] = config.deploy.output_op
    if config.deploy and config.deploy.model:
        values["program"] = config.deploy.model
    return Stated(path.name, values)


def _stated(path: Path, *, paddleseg: bool) -> Stated:
    return from_mapping(read_mapping(path), path, paddleseg=paddleseg)
