"""What an exported `.onnx` file says of itself: the contract between `segrt-export` and the runtime.

It is one JSON text under the key `segrt` of the ONNX file's metadata, so that the one file is all the runtime needs.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segrt.errors import ModelError
from segrt.validation import first_problem

KEY = "segrt"


class Upsample(BaseModel):
    """The bilinear upsampling from the logits to the network's input size, which the exported graph leaves to segrt.

    Attributes:
        stride: input pixels to one logit, as a network names its output stride (4 or 8 here).
        align_corners: the convention of the interpolation; false means half-pixel centres.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stride: int = Field(ge=1)
    align_corners: bool = False


class ModelMeta(BaseModel):
    """One exported model.

    Attributes:
        name: the model's name, as in `model_zoo.yaml` or `inference.yml`.
        class_names: in the order of the class ids; empty where the source names none.
        palette: (R, G, B) of each class, 0 to 255; empty for the default.
        transforms: the `transforms` list of `inference.yml`.
        output: "logits" (float32, N x C x h x w) or "labels" (integers, N x H x W).
        upsample: what follows logits; None where the graph's logits already have the input's size.
        source: sha256 of each file that the model was made from, by file name.
        tools: version of each tool that made it, by name.
        passes: the graph rewrites that were applied, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    transforms: tuple[dict[str, Any], ...] = ({"type": "Normalize"},)
    output: Literal["logits", "labels"] = "logits"
    upsample: Upsample | None = None
    source: dict[str, str] = {}
    tools: dict[str, str] = {}
    passes: tuple[str, ...] = ()

    @classmethod
    def loads(cls, text: str, *, file: str) -> ModelMeta:
        """Read the JSON text found in `file`.

        Raises:
            ModelError: the text is not what `segrt-export` writes.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(
                f"{file}: its segrt metadata is damaged ({first_problem(error)}); export it again"
            ) from None
