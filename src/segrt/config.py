"""Pipeline YAML: the form that PaddleX reads is accepted unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segrt.errors import ConfigError
from segrt.slide import Window, parse_window
from segrt.types import Mode, TargetSize, parse_target_size

PIPELINE = "semantic_segmentation"


class Module(BaseModel):
    """`SubModules.SemanticSegmentation`.

    Attributes:
        model_name: a name of the model zoo; None for the bundled model.
        model_dir: a `.onnx` file, or a folder with one, in place of the zoo's.
        batch_size: images that run together.
        target_size: size of inference, as `segrt.types.parse_target_size` reads it.
        slide: sliding window, as `segrt.slide.parse_window` reads it.
        palette: the colours of the classes, as `segrt.render.parse_palette` reads them; None for the model's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    module_name: str = PIPELINE
    model_name: str | None = None
    model_dir: Path | None = None
    batch_size: int = Field(1, ge=1, le=4096)
    target_size: Any = None
    palette: str | tuple[tuple[int, int, int], ...] | None = None
    slide: Any = None

    @field_validator("model_name", "model_dir", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in ("none", "null", "") else value

    @field_validator("target_size")
    @classmethod
    def _target_size(cls, value: object) -> TargetSize:
        try:
            return parse_target_size(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("slide")
    @classmethod
    def _slide(cls, value: object) -> Window | bool:
        try:
            return parse_window(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None


class SubModules(BaseModel):
    """The modules of the pipeline: one."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    semantic_segmentation: Module = Field(Module(), alias="SemanticSegmentation")


class PipelineConfig(BaseModel):
    """A whole pipeline YAML.

    Attributes:
        device: as `segrt.types.Device.parse` reads it; None for what is best here.
        mode: "normal" or "high-performance"; None leaves it to `use_hpip`.
        use_hpip: PaddleX's way to say mode: high-performance.
        hpi_config: settings of high-performance mode, as `segrt.backends.plan.HpiConfig.parse` reads them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    pipeline_name: str = PIPELINE
    sub_modules: SubModules = Field(SubModules(), alias="SubModules")
    device: str | None = None
    mode: Mode | None = None
    use_hpip: bool = False
    hpi_config: dict[str, Any] | None = None

    @field_validator("pipeline_name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != PIPELINE:
            raise ValueError(f"unknown pipeline {value!r}: segrt has one, {PIPELINE}")
        return value

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, value: object) -> Mode | None:
        try:
            return None if value is None else Mode.parse(str(value))
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @property
    def module(self) -> Module:
        """The segmentation module."""
        return self.sub_modules.semantic_segmentation


def load(pipeline: str | Path | None, config: dict[str, Any] | None) -> PipelineConfig:
    """Read the configuration of a pipeline.

    Args:
        pipeline: "semantic_segmentation", or the path of a YAML file; None only with `config`.
        config: the content of such a file; wins over `pipeline`, and must name the same one where both name one.

    Raises:
        ConfigError: neither is given, they disagree, the file can't be read, or a key or value is not allowed.
    """
    if config is not None:
        parsed = _parse(config, "config")
        if pipeline is not None and str(pipeline) != parsed.pipeline_name:
            raise ConfigError(f"pipeline {str(pipeline)!r} and config, which names {parsed.pipeline_name!r}, disagree")
        return parsed
    if pipeline is None:
        raise ConfigError(f"name a pipeline: {PIPELINE}, or the path of a pipeline YAML")
    if str(pipeline) == PIPELINE:
        return PipelineConfig()
    path = Path(pipeline)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"unknown pipeline {str(pipeline)!r}: use {PIPELINE}, or the path of a .yaml file")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    return _parse(content, str(path))


def _parse(content: object, where: str) -> PipelineConfig:
    try:
        return PipelineConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}") from None
