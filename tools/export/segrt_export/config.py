"""The configuration of a Paddle program: `inference.yml` of PaddleX, `deploy.yaml` of PaddleSeg.

The defaults of a Resize differ: PaddleX keeps the ratio and rounds up to multiples of 32, PaddleSeg
does neither. `Config.transforms` has PaddleSeg's spelled out, and leaves those of PaddleX to segrt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segrt import checked_yaml
from segrt.errors import ConfigError, ExportError
from segrt.metadata import MAX_CLASSES
from segrt.validation import first_problem

Transform = dict[str, Any]
OutputOp = Literal["argmax", "softmax", "none"]

DEFAULT_TRANSFORMS: tuple[Transform, ...] = ({"type": "Normalize"},)
"""What is assumed if no transforms are configured: mean 0.5 and standard deviation 0.5."""

_PADDLESEG: Mapping[str, Transform] = {
    "Resize": {
        "target_size": [512, 512],
        "keep_ratio": False,
        "size_divisor": None,
        "interp": "LINEAR",
    }
}
_PADDLEX: Mapping[str, Transform] = {
    "Resize": {"target_size": -1, "keep_ratio": True, "size_divisor": 32, "interp": "LINEAR"},
    "Normalize": {"mean": 0.5, "std": 0.5},
}


@dataclass(frozen=True)
class Config:
    """The configuration of a model; fields that no file sets are empty.

    Attributes:
        files: the files that were read.
        model_name: `Global.model_name`.
        class_names: `PostProcess.label_list`.
        transforms: `Deploy.transforms`, or `PreProcess.transform_ops` in some exports; None if
            missing.
        resize_in: type of the image while it is resized: float32 in PaddleSeg.
        output_op: `Deploy.output_op`, the operator that the export appended to the network.
    """

    files: tuple[Path, ...] = ()
    model_name: str = ""
    class_names: tuple[str, ...] = ()
    transforms: tuple[Transform, ...] | None = None
    resize_in: Literal["uint8", "float32"] = "uint8"
    output_op: OutputOp | None = None


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Transform(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: str


class _Global(_Lenient):
    model_name: str | None = None


class _Deploy(_Lenient):
    model: str | None = None
    transforms: list[_Transform] | None = None
    output_op: OutputOp | None = None

    @field_validator("output_op", mode="before")
    @classmethod
    def _none_is_a_name(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class _PreProcess(_Lenient):
    transform_ops: list[_Transform] | None = None


class _PostProcess(_Lenient):
    label_list: list[str | int | float] | None = Field(None, max_length=MAX_CLASSES)

    @field_validator("label_list", mode="before")
    @classmethod
    def _no_flags(cls, value: object) -> object:
        if isinstance(value, list) and any(isinstance(name, bool) for name in value):
            raise ValueError("a name is read as true or false: put it in quotes")
        return value


class _File(_Lenient):
    general: _Global | None = Field(None, alias="Global")
    deploy: _Deploy | None = Field(None, alias="Deploy")
    before: _PreProcess | None = Field(None, alias="PreProcess")
    after: _PostProcess | None = Field(None, alias="PostProcess")


def read_config(folder: Path, stem: str) -> Config:
    """Read the configuration of the program `stem` in a folder.

    Example:
        >>> read_config(Path("my_model"), "inference").class_names
        ('background', 'road')

    Args:
        folder: may contain `<stem>.yml` or `inference.yml`, and `deploy.yaml`.
        stem: file name of the program, without its suffix.

    Raises:
        ExportError: a file is invalid, or `inference.yml` and `deploy.yaml` contradict each other.
    """
    candidates = (folder / f"{stem}.yml", folder / "inference.yml")
    yml = next((file for file in candidates if file.is_file()), None)
    deploy = folder / "deploy.yaml"
    paddlex = None if yml is None else _config(yml, paddleseg=False)
    paddleseg = _config(deploy, paddleseg=True) if deploy.is_file() else None
    if paddlex is None or paddleseg is None:
        return paddlex or paddleseg or Config()
    _check_agreement(paddlex, paddleseg)
    first = paddleseg if paddlex.transforms is None else paddlex
    return replace(
        first,
        files=(*paddlex.files, *paddleseg.files),
        model_name=paddlex.model_name or paddleseg.model_name,
        class_names=paddlex.class_names or paddleseg.class_names,
        output_op=paddlex.output_op or paddleseg.output_op,
    )


def program_name(folder: Path) -> str | None:
    """`Deploy.model` of a folder's `deploy.yaml`: the file name of the program, if stated.

    Raises:
        ExportError: the file is invalid.
    """
    file = folder / "deploy.yaml"
    parsed = _parse(file) if file.is_file() else _File()
    return parsed.deploy.model if parsed.deploy else None


def _parse(file: Path) -> _File:
    try:
        return _File.model_validate(checked_yaml.read(file) or {})
    except ConfigError as error:
        raise ExportError(str(error)) from None
    except ValidationError as error:
        if not error.errors(include_url=False)[0]["loc"]:
            raise ExportError(
                f"{file} must be a mapping with the keys Deploy and PostProcess"
            ) from None
        raise ExportError(f"{file}: {first_problem(error)}") from None


def _config(file: Path, *, paddleseg: bool) -> Config:
    parsed = _parse(file)
    listed = parsed.deploy.transforms if parsed.deploy else None
    if listed is None and parsed.before:
        listed = parsed.before.transform_ops
    transforms = None if listed is None else tuple(entry.model_dump() for entry in listed)
    if transforms is not None and paddleseg:
        transforms = tuple(_spelled_out(entry, _PADDLESEG) for entry in transforms)
    return Config(
        (file,),
        (parsed.general and parsed.general.model_name) or "",
        tuple(str(name) for name in (parsed.after and parsed.after.label_list) or ()),
        transforms,
        "float32" if paddleseg else "uint8",
        parsed.deploy.output_op if parsed.deploy else None,
    )


def _spelled_out(entry: Transform, defaults: Mapping[str, Transform]) -> Transform:
    return {"type": entry["type"], **defaults.get(entry["type"], {}), **entry}


def _check_agreement(paddlex: Config, paddleseg: Config) -> None:
    """Refuse two files that disagree about what decides a label."""
    for what, one, other in (
        ("transforms", _comparable(paddlex.transforms), _comparable(paddleseg.transforms)),
        ("label_list", paddlex.class_names or None, paddleseg.class_names or None),
        ("output_op", paddlex.output_op, paddleseg.output_op),
    ):
        if one is not None and other is not None and one != other:
            raise ExportError(
                f"{paddlex.files[0]} and {paddleseg.files[0]} contradict each other: their {what}"
                " differ; correct one of them, or remove it"
            )


def _comparable(transforms: tuple[Transform, ...] | None) -> list[Transform] | None:
    """Transforms with all defaults, and lists in place of numbers that apply to each element."""
    if transforms is None:
        return None
    spelled = [_spelled_out(entry, _PADDLEX) for entry in transforms]
    lengths = {"mean": 3, "std": 3, "target_size": 2}
    for entry in spelled:
        for key, length in lengths.items():
            value = entry.get(key)
            if isinstance(value, (int, float)):
                entry[key] = [value] * length
            elif isinstance(value, (list, tuple)):
                entry[key] = list(value) * length if len(value) == 1 else list(value)
    return spelled
