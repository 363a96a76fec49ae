"""The metadata of an exported `.onnx` file: the contract between `segrt-export` and the runtime.

It is a JSON object under the key `segrt` of the ONNX metadata, so the runtime needs no other file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from segrt.errors import ModelError
from segrt.validation import first_problem

KEY = "segrt"
"""Key of the JSON text in the ONNX metadata."""

MAX_CLASSES = 65_536
"""Maximum number of classes: a label PNG has 16 bits per pixel."""

MAX_BANDS = 512
"""Maximum number of bands: more than hyperspectral cameras have."""

_Byte = Annotated[int, Field(ge=0, le=255)]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the band {name!r} is named twice")
    return names


Bands: TypeAlias = Annotated[
    tuple[Annotated[str, Field(strict=True, min_length=1, max_length=200)], ...],
    Field(max_length=MAX_BANDS),
    AfterValidator(_different),
]
"""The names of the channels of an input, in order; empty for pictures."""


class Upsample(BaseModel):
    """The bilinear upsampling of the logits to the inference size, which the graph leaves to segrt.

    Attributes:
        stride: the network's output stride, input pixels per logit; 4 or 8 for the known models.
        align_corners: convention of the interpolation; false means half-pixel centres.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stride: int = Field(ge=1)
    align_corners: bool = False


class ModelMeta(BaseModel):
    """The metadata of an exported model.

    Example:
        >>> meta = ModelMeta(name="roads", class_names=("background", "road"))
        >>> text = meta.model_dump_json()

    Attributes:
        name: the model's name, as in `model_zoo.yaml` or `inference.yml`.
        class_names: in the order of the class ids; empty if unknown.
        palette: (R, G, B) of each class, 0 to 255; empty for the default.
        transforms: from an image to the input, as in `inference.yml`; see
            `segrt.preprocess.Transforms.parse`.
        resize_in: type of the image while it is resized and padded: uint8 in PaddleX and Pillow,
            float32 in PaddleSeg, which does not round between two steps.
        bands: the names of the input's channels, in order, of a network that takes bands rather
            than pictures: ("red", "green", "blue", "nir"); empty for one that takes pictures. See
            `segrt.preprocess.Transforms`.
        output: "logits" or "probabilities" (float, N x C x h x w), or "labels" (integers,
            N x H x W). With C = 1 they are those of class 1, the foreground of two classes.
        upsample: upsampling of the logits; None if they already have the inference size.
        interpolate_to: size to which logits are upsampled before the argmax: that of the "input",
            after which labels go to the source image by nearest neighbour (PaddleX), or that of the
            "source" image itself (transformers).
        ignore_index: label of pixels that annotations leave out; None if unknown.
        reduce_labels: whether annotations count the classes from 1, with 0 to be ignored.
        source: SHA-256 of each file the model was converted from, by file name.
        tools: version of each tool used for the conversion, by name.
        passes: the graph passes that were applied, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    class_names: tuple[str, ...] = Field((), max_length=MAX_CLASSES)
    palette: tuple[tuple[_Byte, _Byte, _Byte], ...] = Field((), max_length=MAX_CLASSES)
    transforms: tuple[dict[str, Any], ...] = ({"type": "Normalize"},)
    resize_in: Literal["uint8", "float32"] = "uint8"
    bands: Bands = ()
    output: Literal["logits", "probabilities", "labels"] = "logits"
    upsample: Upsample | None = None
    interpolate_to: Literal["input", "source"] = "input"
    ignore_index: int | None = None
    reduce_labels: bool = False
    source: dict[str, str] = {}
    tools: dict[str, str] = {}
    passes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _colour_for_each_class(self) -> ModelMeta:
        if 0 < len(self.palette) < len(self.class_names):
            raise ValueError(
                f"there are {len(self.palette)} colours for {len(self.class_names)} classes"
            )
        return self

    @property
    def align_corners(self) -> bool:
        """The convention of the upsampling; false if nothing is upsampled."""
        return self.upsample is not None and self.upsample.align_corners

    @classmethod
    def loads(cls, text: str, *, file: str) -> ModelMeta:
        """Parse the JSON text found in `file`.

        Raises:
            ModelError: the text is not valid metadata.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(
                f"{file}: its segrt metadata is damaged ({first_problem(error)}); export it again"
            ) from None
