"""What a client sends, and what it gets."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from segrt.errors import ConfigError
from segrt.result import SegResult
from segrt.slide import parse_window
from segrt.types import LabelFormat, parse_target_size

JSON, FORM = "application/json", "multipart/form-data"

_Pair = Annotated[list[StrictInt], Field(min_length=2, max_length=2)]


class ApiError(Exception):
    """Becomes an answer.

    Attributes:
        status: of HTTP, and the `errorCode`.
        message: one sentence, the `errorMsg`.
        headers: further headers.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Options(BaseModel):
    """How an image is segmented. In forms and query strings each value is its text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targetSize: StrictInt | _Pair | str | None = Field(
        None,
        description="Size of inference: -1, the image's own; N, inside N x N; [height, width], exactly that; as text, "
        "`512` or `512,1024`. Without it, as the server is set.",
    )
    visualize: bool | None = Field(
        None, description="Whether `image` of the answer is made; it is unless this is false."
    )
    labelFormat: LabelFormat = Field(
        "list",
        description="What `labelMap` is: `list`, the class ids row by row; `png`, a PNG whose pixel values are the "
        "class ids, base64; `rle`, COCO annotations with compressed run lengths.",
    )
    scores: bool = Field(
        False, description="Whether the softmax probability of each pixel's class is given too."
    )
    slide: dict[Literal["crop", "stride"], StrictInt | _Pair] | bool | str | None = Field(
        None,
        description='Sliding window: {"crop": 1024, "stride": 768}, each a number or [height, width]; as text, '
        "`CROP,STRIDE`; true, that of the model; false, whole images. Without it, as the server is set.",
    )

    @field_validator("targetSize")
    @classmethod
    def _target_size(cls, value: Any) -> Any:
        try:
            parse_target_size(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("slide", mode="before")
    @classmethod
    def _slide(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() in ("true", "false"):  # in a form or query
            value = value.lower() == "true"
        try:
            parse_window(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class SegmentRequest(Options):
    """An image, and how it is segmented."""

    image: str = Field(
        description="An image file (JPEG, PNG, WebP, BMP, TIFF, PNM, Sun raster) as base64 or as a `data:` URI; or its "
        "http(s) URL, where the server allows that."
    )


class ClassShare(BaseModel):
    """A class that occurs in the image."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="Red, green and blue, 0 to 255.")
    share: float = Field(description="The part of the image that it covers, 0 to 1.")


class Result(BaseModel):
    """The labels of one image."""

    labelMap: list[int] | str | list[dict[str, Any]] = Field(
        description="In the form that `labelFormat` asked for."
    )
    size: tuple[int, int] = Field(description="Height and width of the image.")
    image: str | None = Field(
        description="The labels in the colours of the classes: a JPEG, base64."
    )
    classes: list[ClassShare] = Field(description="The classes that occur, largest first.")
    scores: str | None = Field(
        None,
        description="Only where asked for: an 8-bit grey PNG of the image's size, base64; value / 255 is the score.",
    )


class Answer(BaseModel):
    """What a request for a segmentation gets."""

    logId: str = Field(description="The id of this request; it is in the server's log too.")
    errorCode: Literal[0] = 0
    errorMsg: Literal["Success"] = "Success"
    result: Result


class Failure(BaseModel):
    """What a request gets that can't be answered."""

    logId: str = Field(description="The id of this request; it is in the server's log too.")
    errorCode: int = Field(description="The HTTP status.")
    errorMsg: str = Field(description="What is wrong, in one sentence.")


class Healthy(BaseModel):
    """What `/health` answers, as PaddleX does."""

    logId: str
    errorCode: Literal[0] = 0
    errorMsg: Literal["Healthy"] = "Healthy"


class Limits(BaseModel):
    """What the server refuses or does not do."""

    maxBody: int = Field(description="Bytes of a request.")
    maxPixels: int = Field(
        description="Pixels of an image, and of the size at which it is inferred."
    )
    timeoutSeconds: float
    maxQueue: int = Field(description="Requests that wait or run.")
    maxBatch: int
    allowUrls: bool


class Info(BaseModel):
    """What the server runs."""

    version: str
    model: str
    classes: list[str]
    palette: list[tuple[int, int, int]] = Field(
        description="Red, green and blue of each class, 0 to 255."
    )
    provider: str = Field(
        description="The execution provider of ONNX Runtime that really runs the model."
    )
    precision: str
    device: str
    mode: str
    limits: Limits


class State(BaseModel):
    """Whether requests are welcome."""

    status: Literal["ready", "draining"]


def media_type(content_type: str) -> str:
    """The media type of a Content-Type header, if it is one that images may come in.

    Raises:
        ApiError: 415.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in (JSON, FORM, "application/octet-stream") or kind.startswith("image/"):
        return kind
    raise ApiError(
        415,
        f"The Content-Type {kind[:100] or '(none)'} is not one that this server reads: send {JSON}, {FORM}, or an "
        "image file as image/* or application/octet-stream.",
    )


def read_json(body: bytes) -> SegmentRequest:
    """Read a JSON body.

    Raises:
        ApiError: 400 or 422.
    """
    try:
        return SegmentRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def read_form(body: bytes, content_type: str, query: dict[str, str]) -> tuple[Options, bytes | str]:
    """Read a multipart body: the file (or text) `image`, and the options as fields.

    Raises:
        ApiError: 400 or 422.
    """
    fields: dict[str, bytes] = {}
    kind, parameters = parse_options_header(content_type)
    files: dict[str, bytes] = {}

    def on_field(field: Any) -> None:
        fields[field.field_name.decode("utf-8", "replace")] = field.value or b""

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        files[(file.field_name or b"").decode("utf-8", "replace")] = file.file_object.read()

    try:
        config = {
            "MAX_MEMORY_FILE_SIZE": len(body) + 1,
            "MAX_HEADER_COUNT": 8,
        }  # nothing goes to the disk
        parser = FormParser(
            kind.decode("latin-1"),
            on_field,
            on_file,
            boundary=parameters.get(b"boundary"),
            config=config,
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ApiError(400, f"The multipart body can't be read: {_sentence(error)}") from None
    if unknown := set(files) - {"image"}:
        raise ApiError(
            422,
            f"The form holds the file {min(unknown)!r:.60}: the image must be the field 'image'.",
        )
    options = {
        **query,
        **{name: value.decode("utf-8", "replace") for name, value in fields.items()},
    }
    text = options.pop("image", None)
    content = files.get("image", text)
    if content is None:
        raise ApiError(
            422,
            "The form has no field 'image': put the image file there, as with curl -F image=@photo.jpg.",
        )
    return read_options(options), content


def read_options(options: dict[str, str]) -> Options:
    """Read options that are text.

    Raises:
        ApiError: 422.
    """
    try:
        return Options.model_validate(options)
    except ValidationError as error:
        raise _invalid(error) from None


def from_base64(text: str) -> bytes:
    """Decode base64, with or without line breaks, also in a `data:` URI.

    Raises:
        ApiError: 400.
    """
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError(
                400, "The data: URI in 'image' is not base64: it must be data:image/...;base64,...."
            )
    elif scheme := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", text):
        raise ApiError(
            400,
            f"'image' is a URL that begins with {scheme[1][:20]}:, which is not fetched: send base64.",
        )
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError) as error:  # not ASCII is a ValueError
        raise ApiError(400, f"'image' is not valid base64: {_sentence(error)}") from None


def encode(result: SegResult, options: Options, log_id: str) -> bytes:
    """Write the JSON of an `Answer`."""
    classes, shares = result.shares()
    rest: dict[str, Any] = {
        "size": result.labels.shape,
        "image": None if options.visualize is False else _base64_image(result.img["res"], "JPEG"),
        "classes": [
            {
                "id": c,
                "name": result.class_names[c],
                "color": result.palette[c].tolist(),
                "share": share,
            }
            for c, share in zip(classes, shares, strict=True)
        ],
    }
    if result.scores is not None:
        grey = np.rint(np.nan_to_num(result.scores) * 255).astype(np.uint8)
        rest["scores"] = _base64_image(Image.fromarray(grey), "PNG")
    if options.labelFormat == "list":
        labels = result.flat_json()
    elif options.labelFormat == "png":
        labels = b'"' + base64.b64encode(result.label_png()) + b'"'
    else:
        labels = _dumps(result.to_coco_rle())
    head = _dumps({"logId": log_id, "errorCode": 0, "errorMsg": "Success"})
    return b'%b,"result":{"labelMap":%b,%b}' % (head[:-1], labels, _dumps(rest)[1:])


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _base64_image(picture: Any, form: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return base64.b64encode(buffer.getbuffer()).decode()


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if text.endswith(".") else f"{text}."


def _invalid(error: ValidationError) -> ApiError:
    """The first thing that is wrong, in a sentence."""
    found = error.errors(include_url=False, include_input=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"The body is not valid JSON: {_sentence(Exception(first['ctx']['error']))}"
        )
    if not first["loc"]:
        return ApiError(422, "The body must be a JSON object with the key 'image'.")
    name = str(first["loc"][0])[:60]
    if first["type"] == "extra_forbidden":
        return ApiError(
            422, f"There is no option {name!r}: use {', '.join(SegmentRequest.model_fields)}."
        )
    if first["type"] == "missing":
        return ApiError(422, f"{name!r} is missing: send the image as base64.")
    messages = dict.fromkeys(
        e["msg"].removeprefix("Value error, ") for e in found if e["loc"][:1] == first["loc"][:1]
    )
    return ApiError(422, f"{name!r} is not valid: {_sentence(Exception('; or '.join(messages)))}")
