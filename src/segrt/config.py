"""Pipeline YAML, in the form that PaddleX reads, with some more keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from segrt import checked_yaml
from segrt.errors import ConfigError, ModelError
from segrt.files import write_atomic
from segrt.metadata import MAX_CLASSES, Bands
from segrt.preprocess import Transforms
from segrt.slide import Window, parse_window
from segrt.types import Mode, TargetSize, parse_target_size, shown

PIPELINE = "semantic_segmentation"
_SUFFIXES = (".yaml", ".yml")

TEMPLATE = """\
pipeline_name: semantic_segmentation

# device: gpu:0            # cpu, gpu:0, ...: runs there or fails; by default, the best available
# mode: high-performance   # normal: FP32; high-performance: the fastest plan on this machine
# hpi_config: {}           # settings of high-performance mode that override the chosen plan

SubModules:
  SemanticSegmentation:
    module_name: semantic_segmentation
    model_name: PP-LiteSeg-T_camvid   # one of `segrt models`; PP-LiteSeg-T_camvid comes with segrt
    model_dir: null          # an .onnx file, or a folder with one or with a Paddle model
    batch_size: 1
    target_size: None        # -1: original size; N: fit inside N x N; [height, width]: exactly
    # slide: {crop: 1024, stride: 768}   # sliding window; true: the model's own
    # palette: cityscapes    # voc, distinct, cityscapes, ade20k, camvid, or [[R, G, B], ...]
    # class_names: [road, ...]        # these override what the model says itself
    # transforms: [{type: Normalize, mean: 0.5, std: 0.5}]
    # bands: [red, green, blue, nir]  # of a network that takes bands, not pictures
    # output: logits                  # of a network with several outputs
"""
"""The pipeline YAML that `segrt config` writes."""


def parse_transforms(value: object) -> tuple[dict[str, Any], ...] | None:
    """Check a list of transforms; see `segrt.preprocess.Transforms.parse`.

    Raises:
        ConfigError: it is not one.
    """
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(t, Mapping) for t in value):
        raise ConfigError(
            f"transforms {shown(value)} is not valid: give a list of mappings, such as "
            '[{"type": "Normalize", "mean": 0.5, "std": 0.5}]'
        )
    listed = tuple(dict(entry) for entry in value)
    try:
        Transforms.parse(listed, bands=None)
    except ModelError as error:
        text = str(error).replace("the model requires", "transforms lists")
        raise ConfigError(text.replace("the model's transform", "the transform")) from None
    return listed


def parse_class_names(value: object) -> tuple[str, ...] | None:
    """Check a list of class names.

    Raises:
        ConfigError: it is not one.
    """
    if value is None:
        return None
    names = value if isinstance(value, (list, tuple)) else ()
    if not 0 < len(names) <= MAX_CLASSES or not all(isinstance(n, (str, int)) for n in names):
        raise ConfigError(
            f"class_names {shown(value)} is not valid: give a list with the name of each class"
        )
    return tuple(map(str, names))


def parse_bands(value: object) -> tuple[str, ...] | None:
    """Check a list with the names of the bands that a network takes.

    Raises:
        ConfigError: it is not one.
    """
    if value is None:
        return None
    try:
        names: tuple[str, ...] = TypeAdapter(Bands).validate_python(value)
    except ValidationError:
        names = ()
    if not names:
        raise ConfigError(
            f"bands {shown(value)} is not valid: give a list with a different name for each channel"
            " of the network's input, such as ['red', 'green', 'blue', 'nir']"
        )
    return names


def _null(value: object) -> object:
    """None for the text "None", which PaddleX's YAML files use."""
    is_null = isinstance(value, str) and value.strip().lower() in ("none", "null", "")
    return None if is_null else value


class Module(BaseModel):
    """`SubModules.SemanticSegmentation`.

    Attributes:
        model_name: a name in the model zoo; None for the bundled model.
        model_dir: an `.onnx` file, or a folder that contains one, instead of a zoo model.
        batch_size: images that run together.
        target_size: inference size; see `segrt.types.parse_target_size`.
        slide: sliding window; see `segrt.slide.parse_window`.
        palette: class colours; see `segrt.palette.parse_palette`; None for the model's own.
        transforms: how images are prepared; None for the model's own, like the next three.
        bands: the names of the input's channels, for a network that takes bands, not pictures.
        class_names: the name of each class.
        output: name of the output to use.
        use_hpip: as at the top of the file, which it overrides, like the next three.
        hpi_config: its keys override single ones at the top of the file.
        engine: see `segrt.paddle_settings`.
        engine_config: its keys override single ones at the top of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    module_name: str = PIPELINE
    model_name: str | None = None
    model_dir: Path | None = None
    batch_size: int = Field(1, ge=1, le=4096)
    target_size: Any = None
    palette: str | tuple[tuple[int, int, int], ...] | None = None
    slide: Any = None
    transforms: tuple[dict[str, Any], ...] | None = None
    bands: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    output: str | None = None
    use_hpip: bool | None = None
    hpi_config: dict[str, Any] | None = None
    engine: str | None = None
    engine_config: dict[str, Any] | None = None

    @field_validator("transforms", mode="before")
    @classmethod
    def _transforms(cls, value: object) -> object:
        return parse_transforms(value)

    @field_validator("bands", mode="before")
    @classmethod
    def _bands(cls, value: object) -> object:
        return parse_bands(value)

    @field_validator("class_names", mode="before")
    @classmethod
    def _class_names(cls, value: object) -> object:
        return parse_class_names(value)

    @field_validator(
        *("model_name", "model_dir", "use_hpip", "hpi_config", "engine", "engine_config"),
        mode="before",
    )
    @classmethod
    def _none(cls, value: object) -> object:
        return _null(value)

    @field_validator("target_size")
    @classmethod
    def _target_size(cls, value: object) -> TargetSize:
        return parse_target_size(value)

    @field_validator("slide")
    @classmethod
    def _slide(cls, value: object) -> Window | bool:
        return parse_window(value)


class SubModules(BaseModel):
    """The only module of the pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    semantic_segmentation: Module = Field(Module(), alias="SemanticSegmentation")


class Serving(BaseModel):
    """`Serving`: defaults of the server.

    Attributes:
        visualize: whether responses contain a picture, unless the request says.
        return_urls: PaddleX's setting for servers that store pictures; without effect.
        extra: PaddleX's settings for other pipelines; without effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    visualize: bool = True
    return_urls: bool | None = None
    extra: dict[str, Any] | None = None


class PipelineConfig(BaseModel):
    """A whole pipeline YAML.

    Attributes:
        device: see `segrt.types.Device.parse`; None for the best available.
        mode: "normal" or "high-performance"; None leaves it to `use_hpip`.
        use_hpip: PaddleX's spelling of mode: high-performance.
        hpi_config: settings of high-performance mode; see `segrt.paddle_settings.parse_hpi`.
        engine: PaddleX's name of what runs the model; see `segrt.paddle_settings`.
        engine_config: settings of the engine.
        serving: defaults of the server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    pipeline_name: str = PIPELINE
    sub_modules: SubModules = Field(SubModules(), alias="SubModules")
    device: str | None = None
    mode: Mode | None = None
    use_hpip: bool | None = None
    hpi_config: dict[str, Any] | None = None
    engine: str | None = None
    engine_config: dict[str, Any] | None = None
    serving: Serving = Field(Serving(), alias="Serving")

    @field_validator("use_hpip", "hpi_config", "engine", "engine_config", "device", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return _null(value)

    @field_validator("serving", mode="before")
    @classmethod
    def _no_serving(cls, value: object) -> object:
        return Serving() if _null(value) is None else value

    @field_validator("pipeline_name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != PIPELINE:
            raise ValueError(f"unknown pipeline {value!r}: segrt has one, {PIPELINE}")
        return value

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, value: object) -> Mode | None:
        return None if value is None else Mode.parse(str(value))

    @property
    def module(self) -> Module:
        """The segmentation module."""
        return self.sub_modules.semantic_segmentation


def load(pipeline: str | Path | None, config: dict[str, Any] | None) -> PipelineConfig:
    """Read the configuration of a pipeline.

    Args:
        pipeline: "semantic_segmentation", or the path of a YAML file; None only with `config`.
        config: the content of such a file; wins over `pipeline`, and must name the same pipeline.

    Raises:
        ConfigError: both are missing, they disagree, the file can't be read, or a key or value is
            invalid.
    """
    if config is not None:
        parsed = checked_yaml.check(config, PipelineConfig, "config")
        if pipeline is not None and str(pipeline) != parsed.pipeline_name:
            raise ConfigError(
                f"pipeline {str(pipeline)!r} and config, which names {parsed.pipeline_name!r}, "
                "disagree"
            )
        return parsed
    if pipeline is None:
        raise ConfigError(f"name a pipeline: {PIPELINE}, or the path of a pipeline YAML")
    if str(pipeline) == PIPELINE:
        return PipelineConfig()
    path = Path(pipeline)
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(
            f"unknown pipeline {str(pipeline)!r}: use {PIPELINE}, or the path of a .yaml file"
        )
    return checked_yaml.load(path, PipelineConfig)


def write_template(name: str, save_path: Path | None) -> Path | None:
    """Write, or print, a pipeline YAML to start from.

    Args:
        name: the pipeline, "semantic_segmentation".
        save_path: a folder, created if missing, or the name of a .yaml file; None to print.

    Returns:
        Path: the file written; None if it was printed.

    Raises:
        ConfigError: the pipeline is unknown, or the file exists.
        OSError: it can't be written.
    """
    if name != PIPELINE:
        raise ConfigError(f"unknown pipeline {name!r}: segrt has one, {PIPELINE}")
    if save_path is None:
        print(TEMPLATE, end="")
        return None
    file = save_path if save_path.suffix.lower() in _SUFFIXES else save_path / f"{PIPELINE}.yaml"
    if file.exists():
        raise ConfigError(f"{file} exists: delete it first, or name another --save_path")
    write_atomic(file, TEMPLATE.encode())
    return file
