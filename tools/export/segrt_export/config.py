"""The configuration of a Paddle program: `inference.yml` of PaddleX, `deploy.yaml` of PaddleSeg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segrt.description import merge
from segrt.model_configs import paddle
from segrt.model_configs.paddle import OutputOp
from segrt.model_configs.stated import Stated

DEFAULT_TRANSFORMS: tuple[dict[str, Any], ...] = ({"type": "Normalize"},)
"""What is assumed if no transforms are configured: mean 0.5 and standard deviation 0.5."""


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
        bands: `Deploy.bands`, segrt's own key: the names of the input's channels.
    """

    files: tuple[Path, ...] = ()
    model_name: str = ""
    class_names: tuple[str, ...] = ()
    transforms: tuple[dict[str, Any], ...] | None = None
    resize_in: Literal["uint8", "float32"] = "uint8"
    output_op: OutputOp | None = None
    bands: tuple[str, ...] = ()


def read_config(folder: Path, stem: str, bands: tuple[str, ...] | None = None) -> Config:
    """Read the configuration of the program `stem` in a folder.

    Example:
        >>> read_config(Path("my_model"), "inference").class_names
        ('background', 'road')

    Args:
        folder: may contain `<stem>.yml` or `inference.yml`, and `deploy.yaml`.
        stem: file name of the program, without its suffix.
        bands: the names of the input's channels, instead of those that a file states.

    Raises:
        ModelError: a file is invalid, or `inference.yml` and `deploy.yaml` contradict each other.
    """
    candidates = (folder / f"{stem}.yml", folder / "inference.yml")
    yml = next((file for file in candidates if file.is_file()), None)
    stated: dict[Path, Stated] = {yml: paddle.inference_yml(yml)} if yml else {}
    if (deploy := folder / "deploy.yaml").is_file():
        stated[deploy] = paddle.deploy_yaml(deploy)
    given = () if bands is None else ("bands",)
    values, _ = merge([*stated.values()], folder, given, bands)
    return Config(
        tuple(stated),
        values.get("name", ""),
        values.get("class_names", ()),
        values.get("transforms"),
        values.get("resize_in", "uint8"),
        values.get("output_op"),
        values.get("bands", ()) if bands is None else bands,
    )


def program_name(folder: Path) -> str | None:
    """`Deploy.model` of a folder's `deploy.yaml`: the file name of the program, if stated.

    Raises:
        ModelError: the file is invalid.
    """
    file = folder / "deploy.yaml"
    return paddle.deploy_yaml(file).values.get("program") if file.is_file() else None
