"""The contents of `model_zoo.yaml`, validated and frozen: the models that segrt knows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from segrt import checked_yaml, package_data
from segrt.errors import ModelError
from segrt.validation import did_you_mean

DEFAULT_MODEL = "PP-LiteSeg-T_camvid"

Byte = Annotated[int, Field(ge=0, le=255)]
Rgb = tuple[Byte, Byte, Byte]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
# A path relative to a base URL, of plain names: it can leave neither the base nor a cache folder.
RelativePath = Annotated[str, Field(pattern=r"^[\w-][\w .()+-]*(/[\w-][\w .()+-]*)*$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Entry):
    """The data set a model was trained on.

    Attributes:
        name: its name in `model_zoo.yaml`.
        ignore_index: label of the pixels that annotations leave out.
        classes: name to (R, G, B), in class id order.
    """

    name: str
    ignore_index: Byte
    classes: dict[str, Rgb] = Field(min_length=1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class id."""
        return tuple(self.classes)

    @property
    def palette(self) -> tuple[Rgb, ...]:
        """(R, G, B) of each class id, 0 to 255."""
        return tuple(self.classes.values())


class Timing(_Entry):
    """Published milliseconds per image in the two modes that `Published` describes."""

    normal: Positive
    high_performance: Positive


class Slide(_Entry):
    """A sliding window.

    Attributes:
        crop_size: (height, width) of the window in pixels.
        stride: (down, right) from one window to the next, in pixels.
    """

    crop_size: Size
    stride: Size


class Archive(_Entry):
    """A Paddle model to download.

    Attributes:
        path: relative to the base URL.
        sha256: SHA-256 of the file, lower-case hexadecimal; None if unknown.
    """

    path: RelativePath
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")

    @property
    def file(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Published(_Entry):
    """Source of the published figures, and the hardware it states."""

    source: str
    gpu: str
    cpu: str
    normal: str
    high_performance: str


def _dataset(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    known = cast("dict[str, Dataset]", info.context)
    if value not in known:
        raise ValueError(f"unknown dataset {value!r}: use one of {', '.join(known)}")
    return known[value]


class ModelSpec(_Entry):
    """One model.

    Attributes:
        name: full name, with the suffix "(slice)" where the published name has it.
        dataset: the data set it was trained on.
        miou: mean intersection over union on that data set, in %.
        size_mb: published size; None for models that are not published elsewhere.
        gpu_ms: published time per image; a single number if the mode is not stated.
        cpu_ms: likewise.
        slide: the sliding window of the published mIoU; None for whole images.
        archives: candidates for the Paddle model, tried in this order; empty for a bundled model.
        bundled: path of the ONNX file within the installed package, for a bundled model.
        plans: plan names that high-performance mode tries for this model, best first, such as
            "openvino fp32"; empty for the general list in `segrt.backends.plan`.
        licence: what to know before using the weights; None if the publisher's licence says it all.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w .()+-]*$")
    dataset: Annotated[Dataset, BeforeValidator(_dataset)]
    miou: float = Field(gt=0, le=100)
    size_mb: Positive | None = None
    gpu_ms: Timing | Positive | None = None
    cpu_ms: Timing | Positive | None = None
    slide: Slide | None = None
    archives: tuple[Archive, ...] = ()
    bundled: RelativePath | None = None
    plans: tuple[str, ...] = ()
    licence: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class id."""
        return self.dataset.class_names

    @property
    def palette(self) -> tuple[Rgb, ...]:
        """(R, G, B) of each class id, 0 to 255."""
        return self.dataset.palette

    @property
    def aliases(self) -> set[str]:
        """The keys of this model: its name with and without "(slice)"."""
        return {_key(self.name), _key(self.name.replace("(slice)", ""))}

    def answers_to(self, name: str) -> bool:
        """Whether `name` refers to this model, as in `get`."""
        return _key(name) in self.aliases

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSpec:
        if bool(self.archives) == bool(self.bundled):
            raise ValueError(f"{self.name} needs one of archives and bundled")
        return self


class Zoo(_Entry):
    """The contents of `model_zoo.yaml`.

    Attributes:
        base_url: base of the archive paths.
        published: the source of the published figures.
        datasets: the data sets of the models.
        models: all models.
        unsupported: names of models that PaddleX has and segrt can't run, with the reason.
    """

    base_url: str = Field(pattern="^https://")
    published: Published
    datasets: tuple[Dataset, ...]
    models: tuple[ModelSpec, ...]
    unsupported: dict[str, str] = {}

    @field_validator("datasets")
    @classmethod
    def _share(cls, datasets: tuple[Dataset, ...], info: ValidationInfo) -> tuple[Dataset, ...]:
        """Let the models, which are validated next, refer to a data set by name."""
        known = cast("dict[str, Dataset]", info.context)
        for dataset in datasets:
            if dataset.name in known:
                raise ValueError(f"two datasets are named {dataset.name!r}")
            known[dataset.name] = dataset
        return datasets

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        seen: dict[str, str] = {}
        for spec in models:
            for alias in spec.aliases:
                if alias in seen:
                    raise ValueError(f"{spec.name!r} and {seen[alias]!r} answer to one name")
                seen[alias] = spec.name
        return models


def load(path: Path | None = None) -> Zoo:
    """Read the model zoo; each file is read once.

    Args:
        path: the YAML file; None for the one included in segrt.

    Raises:
        ConfigError: the file can't be read or is invalid; the message names file, line and key.
    """
    if path is None:
        path = package_data.path("model_zoo.yaml")
        if not path.exists():  # in a source checkout it is at the top level
            path = path.parents[2] / "model_zoo.yaml"
    return _load(path)


def get(name: str) -> ModelSpec:
    """Find a model by name.

    Case and blanks are ignored, and the suffix "(slice)" is optional.

    Example:
        >>> get("segformer-b0").name
        'SegFormer-B0 (slice)'

    Raises:
        ModelError: there is no such model, or it is one of PaddleX's that segrt can't run; the
            message lists the models.
    """
    models = load().models
    by_alias = {alias: spec for spec in models for alias in spec.aliases}
    if spec := by_alias.get(_key(name)):
        return spec
    names = [spec.name for spec in models]
    for other, reason in load().unsupported.items():
        if _key(name) == _key(other):
            raise ModelError(f"segrt can't run {other}: {reason}; use one of {', '.join(names)}")
    raise ModelError(
        f"unknown model {name!r}{did_you_mean(name, names)}: use one of {', '.join(names)}"
    )


def _key(name: str) -> str:
    return "".join(name.split()).casefold()


@cache
def _load(path: Path) -> Zoo:
    return checked_yaml.load(path, Zoo, context={})
