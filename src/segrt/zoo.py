"""What `model_zoo.yaml` says: the models that segrt knows, checked and frozen."""

from __future__ import annotations

from difflib import get_close_matches
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

from segrt import checked_yaml
from segrt.backends.plan import check_names
from segrt.errors import ModelError

DEFAULT_MODEL = "PP-LiteSeg-T_camvid"

Byte = Annotated[int, Field(ge=0, le=255)]
Rgb = tuple[Byte, Byte, Byte]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
# A path below a base URL, of plain folder names: nothing in it can leave the base or a folder of the cache.
RelativePath = Annotated[str, Field(pattern=r"^[\w-][\w .()+-]*(/[\w-][\w .()+-]*)*$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Entry):
    """What a model was trained on.

    Attributes:
        name: as `ModelSpec` names it.
        ignore_index: the label that annotation files give to pixels that don't count.
        classes: name to (R, G, B), in the order of the class ids.
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
    """Published milliseconds an image, in the two modes that `Published` describes."""

    normal: Positive
    high_performance: Positive


class Slide(_Entry):
    """A sliding window.

    Attributes:
        crop_size: (height, width) of the window in pixels.
        stride: (down, right) from one window to the next in pixels.
    """

    crop_size: Size
    stride: Size


class Archive(_Entry):
    """A Paddle model to download.

    Attributes:
        path: below the base URL.
        sha256: of the file, lower-case hexadecimal; None where it is not known beforehand.
    """

    path: RelativePath
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")

    @property
    def file(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Published(_Entry):
    """Where the published figures come from, and what they were measured on, as stated there."""

    source: str
    gpu: str
    cpu: str
    cpu_in_note: str
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
        name: its full name, with the suffix "(slice)" where the published one has it.
        dataset: what it was trained on.
        miou: mean intersection over union on that dataset, in %.
        logits_stride: input pixels to one logit.
        size_mb: published size; None for a model that is not published elsewhere.
        gpu_ms: published time an image; one number where the mode is not stated.
        cpu_ms: likewise.
        slide: the window that the mIoU was measured with; None for whole images.
        archives: where the Paddle model may lie, to be tried in this order; empty for a bundled model.
        pretrained: path of the training weights below the base URL.
        bundled: path of the ONNX file within the installed package, for a model that comes with it.
        plans: what high-performance mode tries for this model, best first, such as "openvino fp32"; empty for the
            general list of `segrt.backends.plan`.
        licence: what to know before using the weights; None where there is nothing beyond the publisher's licence.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w .()+-]*$")
    dataset: Annotated[Dataset, BeforeValidator(_dataset)]
    miou: float = Field(gt=0, le=100)
    logits_stride: int = Field(ge=1)
    size_mb: Positive | None = None
    gpu_ms: Timing | Positive | None = None
    cpu_ms: Timing | Positive | None = None
    slide: Slide | None = None
    archives: tuple[Archive, ...] = ()
    pretrained: RelativePath | None = None
    bundled: RelativePath | None = None
    plans: tuple[str, ...] = ()
    licence: str | None = None

    @field_validator("plans")
    @classmethod
    def _known_plans(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_names(value)
        return value

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
        """The keys that stand for this model: its name with and without "(slice)"."""
        return {_key(self.name), _key(self.name.replace("(slice)", ""))}

    def answers_to(self, name: str) -> bool:
        """Whether `name` stands for this model, as in `get`."""
        return _key(name) in self.aliases

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSpec:
        if bool(self.archives) == bool(self.bundled):
            raise ValueError(f"{self.name} needs one of archives and bundled")
        return self


class Zoo(_Entry):
    """The whole of `model_zoo.yaml`.

    Attributes:
        base_url: what the paths of archives and training weights are relative to.
        published: the source of the published figures.
        datasets: those that models name.
        models: all of them.
    """

    base_url: str = Field(pattern="^https://")
    published: Published
    datasets: tuple[Dataset, ...]
    models: tuple[ModelSpec, ...]

    @field_validator("datasets")
    @classmethod
    def _share(cls, datasets: tuple[Dataset, ...], info: ValidationInfo) -> tuple[Dataset, ...]:
        """Let the models, which are validated next, name a dataset."""
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
    """Read the model zoo; a file is read once.

    Args:
        path: the YAML file; None for the one that comes with segrt.

    Raises:
        ConfigError: the file can't be read, or is wrong: the message names file, line and key.
    """
    if path is None:
        path = Path(__file__).with_name("model_zoo.yaml")
        if not path.exists():  # a source checkout has it at the top
            path = Path(__file__).parents[2] / "model_zoo.yaml"
    return _load(path)


def get(name: str) -> ModelSpec:
    """Find a model by name.

    Case and blanks don't matter, and the suffix "(slice)" may be left out: `segformer-b0` is `SegFormer-B0 (slice)`.

    Raises:
        ModelError: there is no such model.
    """
    models = load().models
    by_alias = {alias: spec for spec in models for alias in spec.aliases}
    if spec := by_alias.get(_key(name)):
        return spec
    close = get_close_matches(_key(name), by_alias, n=1)
    hint = f" (did you mean {by_alias[close[0]].name!r}?)" if close else ""
    raise ModelError(
        f"unknown model {name!r}{hint}: use one of {', '.join(spec.name for spec in models)}"
    )


def _key(name: str) -> str:
    return "".join(name.split()).casefold()


@cache
def _load(path: Path) -> Zoo:
    return checked_yaml.load(path, Zoo, context={})
