"""The messages of the API: what clients send, and what the server responds."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import numpy as np
import orjson
from PIL import Image
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from segrt import shapes
from segrt.encode import pillow
from segrt.result import SegResult
from segrt.serve.errors import ApiError
from segrt.slide import parse_window
from segrt.types import LabelFormat, parse_target_size

JSON, FORM = "application/json", "multipart/form-data"
GZIP = ("gzip", "x-gzip")
"""The values of Content-Encoding that mean gzip."""

MAX_LOG_ID = 100
"""Maximum characters of the id that a client gives a request."""

_BOM = b"\xef\xbb\xbf"
_IMAGES = ("application/octet-stream", "application/pdf")  # and image/*

# As Python objects, a body of many small values would take a hundred times its bytes. Base64 has
# neither colons nor commas, so this is far more than a request needs.
_MAX_MARKS = 10_000
_SIMILAR = 0.8  # from here on, an unknown key is a misspelt option


def _whole(value: object) -> object:
    """256 for 256.0: JSON has one type for numbers, and PaddleX accepts both."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: object) -> object:
    if isinstance(value, bool):  # which pydantic takes for 0 and 1
        raise ValueError("it must be a whole number from 0")
    return _whole(value)


_Int = Annotated[StrictInt, BeforeValidator(_whole)]
_Page = Annotated[Annotated[int, Field(ge=0, lt=1 << 31)], BeforeValidator(_number)]
_Pair = Annotated[list[_Int], Field(min_length=2, max_length=2)]


class Options(BaseModel):
    """How to segment an image. In forms and query strings each value is text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targetSize: _Int | _Pair | str | None = Field(
        None,
        description="Inference size: -1, the size of the image; N, fit inside N x N; "
        "[height, width], exactly that size. As text, `512` or `512,1024`. "
        "Defaults to the server's setting.",
    )
    visualize: bool | None = Field(
        None,
        description="Whether to include `image` in the result. Defaults to the server's setting, "
        "true if it has none.",
    )
    labelFormat: LabelFormat = Field(
        "list",
        description="Format of `labelMap`: `list`, the class ids row by row; `png`, a base64 PNG "
        "whose pixel values are the class ids; `rle`, COCO annotations with compressed run "
        "lengths.",
    )
    scores: bool = Field(
        False, description="Whether to include the softmax probability of each pixel's class."
    )
    slide: dict[Literal["crop", "stride"], _Int | _Pair] | bool | str | None = Field(
        None,
        description='Sliding window: {"crop": 1024, "stride": 768}, each a number or '
        "[height, width]; true, the model's own window; false, whole images. As text, "
        "`CROP,STRIDE`. Defaults to the server's setting.",
    )

    page: _Page | None = Field(
        None,
        description="The page of a PDF or TIFF, or the frame of an animation, to segment, from 0; "
        "the result then has `pages`. Other images have one page. Without it, the file must "
        "contain exactly one image.",
    )
    inputImage: bool = Field(
        False,
        description="Whether to include the image as it was decoded, for programs that can't "
        "decode it themselves.",
    )

    @field_validator("targetSize")
    @classmethod
    def _target_size(cls, value: Any) -> Any:
        parse_target_size(value)
        return value

    @field_validator("slide", mode="before")
    @classmethod
    def _slide(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() in ("true", "false"):  # in a form or query
            value = value.lower() == "true"
        value = _whole(value)
        parse_window(value)
        return value


class SegmentRequest(Options):
    """An image, and how to segment it. Unknown keys are ignored, unless they are misspelt."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: str = Field(
        description="An image file (JPEG, PNG, WebP, GIF, AVIF, BMP, TIFF, ...) as base64 or as a "
        "`data:` URI; or its http(s) URL, if the server allows URLs."
    )
    logId: Any = Field(
        None, description="The client's id of the request, text, returned if the request fails."
    )


@dataclass(frozen=True)
class Head:
    """The headers and the query string of a segmentation request.

    Attributes:
        content_type: the Content-Type header.
        media_type: its media type, in lower case.
        query: the query string.
        options: the options in the query string.
    """

    content_type: str
    media_type: str
    query: dict[str, str]
    options: Options


class ClassShare(BaseModel):
    """A class present in the image."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="Red, green and blue of overlays, 0 to 255.")
    share: float = Field(description="The share of the image it covers, 0 to 1.")


class Result(BaseModel):
    """The labels of one image."""

    labelMap: list[int] | str | list[dict[str, Any]] = Field(
        description="The class ids, in the format requested by `labelFormat`."
    )
    size: tuple[int, int] = Field(description="Height and width of the image.")
    image: str | None = Field(
        description="The label picture, in the colours of PaddleX: a base64 JPEG."
    )
    pages: int | None = Field(
        None, description="Only if `page` was sent: the number of pages of the file."
    )
    inputImage: str | None = Field(
        None, description="Only if requested: the decoded image, a base64 JPEG."
    )
    classes: list[ClassShare] = Field(description="The classes present, largest first.")
    scores: str | None = Field(
        None,
        description="Only if requested: a base64 8-bit grey PNG of the size of the image; "
        "value / 255 is the score.",
    )


class Answer(BaseModel):
    """The response to a segmentation request."""

    logId: str = Field(description="The id of this request, also in the server's log.")
    errorCode: Literal[0] = 0
    errorMsg: Literal["Success"] = "Success"
    result: Result


class Failure(BaseModel):
    """The response to a request that failed."""

    logId: str = Field(description="The id of this request, also in the server's log.")
    errorCode: int = Field(description="The HTTP status.")
    errorMsg: str = Field(description="What is wrong, and how to fix it.")


class Healthy(BaseModel):
    """The response of `/health`, as in PaddleX."""

    logId: str
    errorCode: Literal[0] = 0
    errorMsg: Literal["Healthy"] = "Healthy"


class Limits(BaseModel):
    """The limits of the server."""

    maxBody: int = Field(description="Maximum bytes of a request body.")
    maxPixels: int = Field(description="Maximum pixels of an image, and of its inference size.")
    timeoutSeconds: float = Field(description="Seconds until a request is answered with 504.")
    maxQueue: int = Field(description="Maximum requests waiting or running.")
    maxBatch: int = Field(description="Maximum images that run together.")
    allowUrls: bool = Field(description="Whether `image` may be a URL.")


class Info(BaseModel):
    """The model, how it runs, and the limits."""

    version: str
    model: str
    classes: list[str]
    palette: list[tuple[int, int, int]] = Field(
        description="Red, green and blue of each class, 0 to 255."
    )
    provider: str = Field(description="The ONNX Runtime execution provider that runs the model.")
    precision: str
    device: str
    mode: str
    limits: Limits


class State(BaseModel):
    """Whether the server accepts requests."""

    status: Literal["ready", "draining"]


def read_head(headers: Mapping[str, str], query: Iterable[tuple[str, str]] = ()) -> Head:
    """Read the headers and the query string of a segmentation request.

    Example:
        >>> read_head({"content-type": "image/png"}, [("labelFormat", "png")]).options.labelFormat
        'png'

    Args:
        headers: with names in lower case.
        query: the names and values in the query string.

    Raises:
        ApiError: 415 for a compression other than gzip, 422 for an option that is invalid or
            repeated.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", *GZIP):
        raise ApiError(
            415,
            f"The Content-Encoding {encoding[:100]} is not supported: send the body uncompressed, "
            "or with gzip.",
            {"Accept-Encoding": "gzip, identity"},
        )
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    options: dict[str, str] = {}
    for name, value in query:
        _refuse_repeated(name, options)
        options[name] = value
    return Head(content_type, kind, options, _read_options(options))


def read_body(body: bytes, head: Head) -> tuple[Options, bytes | str]:
    """Read the options, and the image: the bytes of a file, or base64 text, or a URL.

    Apart from forms, a body that begins like a JSON object is one, whatever its Content-Type: many
    clients send none, or that of a web form.

    Raises:
        ApiError: 400 if the body can't be parsed, 415 for a media type that can't contain an image,
            422 if its content is invalid.
    """
    kind = head.media_type
    if kind == FORM:
        return _read_form(body, head)
    if is_json(body, head):
        if head.query:
            raise ApiError(
                422, "A JSON request has its options in the body: remove the query string."
            )
        return _read_json(body)
    if kind not in _IMAGES and not kind.startswith("image/"):
        raise ApiError(
            415,
            f"The Content-Type {kind[:100] or '(none)'} is not supported: send {JSON}, {FORM}, or "
            f"an image file as image/*, {' or '.join(_IMAGES[::-1])}.",
        )
    return head.options, body


def is_json(body: bytes, head: Head) -> bool:
    """Whether a body is JSON, by its Content-Type or by its first character."""
    kind = head.media_type
    declared = kind in (JSON, "text/json") or kind.endswith("+json")
    start = body[:64].removeprefix(_BOM).lstrip()
    return kind != FORM and (declared or start[:1] == b"{")


def client_log_id(body: bytes, head: Head) -> str | None:
    """The id that a client gives a JSON request, for the response to a request that failed."""
    try:
        data = _parse_json(body) if is_json(body, head) else None
    except ApiError:
        return None
    found = data.get("logId") if isinstance(data, dict) else None
    fits = isinstance(found, str) and 0 < len(found) <= MAX_LOG_ID and found.isprintable()
    return found if fits else None


def _read_json(body: bytes) -> tuple[SegmentRequest, str]:
    data = _parse_json(body)
    if isinstance(data, dict):
        _refuse_misspelt(data)  # which may be why another key is missing
    try:
        request = SegmentRequest.model_validate(data)
    except ValidationError as error:
        raise _invalid(error) from None
    return request, request.image


def _parse_json(body: bytes) -> Any:
    text = body.removeprefix(_BOM)
    if text.count(b":") + text.count(b",") > _MAX_MARKS:
        raise ApiError(
            422, f"The JSON has more than {_MAX_MARKS:,} values: send only the image and options."
        )
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {_sentence(error)}") from None


def _refuse_misspelt(data: dict[str, Any]) -> None:
    """Refuse an unknown key that is similar to an option that the JSON object does not have.

    Raises:
        ApiError: 422, there is one.
    """
    known = SegmentRequest.model_fields.keys()
    options = {name.lower(): name for name in known - {"logId"} if name not in data}
    for key in data.keys() - known:
        plain = key[:60].lower().replace("_", "").replace("-", "")
        if close := get_close_matches(plain, options, n=1, cutoff=_SIMILAR):
            raise ApiError(422, f"There is no option {key[:60]!r}: use {options[close[0]]!r}.")


def _refuse_repeated(name: str, known: Mapping[str, object]) -> None:
    """Refuse a second value of an option, since clients and proxies differ in which one counts.

    Raises:
        ApiError: 422, there is one.
    """
    if name in known:
        raise ApiError(422, f"{name[:60]!r} is sent more than once: send it once.")


def _read_form(body: bytes, head: Head) -> tuple[Options, bytes | str]:
    """Read a multipart body: the file (or text) `image`, and the options as fields."""
    parts = _parse_form(body, head.content_type)
    files = {name for name, content in parts.items() if isinstance(content, bytes)}
    if unexpected := files - {"image"}:
        raise ApiError(
            422,
            f"The form has an unexpected file {min(unexpected)!r:.60}: send the image in the field "
            "'image'.",
        )
    if "image" not in parts:
        raise ApiError(
            422,
            "The form has no field 'image': send the image file there, as with "
            "curl -F image=@photo.jpg.",
        )
    content = parts.pop("image")
    for name in head.query:
        _refuse_repeated(name, parts)
    return _read_options({**head.query, **parts}), content


def _parse_form(body: bytes, content_type: str) -> dict[str, bytes | str]:
    """The parts of a multipart body: files are bytes, other fields text."""
    parts: dict[str, bytes | str] = {}
    ends: list[bool] = []

    def add(name: bytes | None, content: bytes | str) -> None:
        text = (name or b"").decode("utf-8", "replace")
        _refuse_repeated(text, parts)
        parts[text] = content

    def on_field(field: Any) -> None:
        add(field.field_name, (field.value or b"").decode("utf-8", "replace"))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        add(file.field_name, file.file_object.read())

    kind, parameters = parse_options_header(content_type)
    try:
        parser = FormParser(
            kind.decode("latin-1"),
            on_field,
            on_file,
            lambda: ends.append(True),
            boundary=parameters.get(b"boundary"),
            # No file is larger than the body, so none is written to the disk.
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_HEADER_COUNT": 8},
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ApiError(400, f"The multipart body can't be read: {_sentence(error)}") from None
    if not ends:
        raise ApiError(
            400,
            "The multipart body is incomplete: end it with its boundary, followed by two hyphens.",
        )
    return parts


def _read_options(options: Mapping[str, object]) -> Options:
    try:
        return Options.model_validate(options)
    except ValidationError as error:
        raise _invalid(error) from None


def from_base64(text: str) -> bytes:
    """Decode base64, also in a `data:` URI.

    Line breaks may be anywhere, the padding may be missing, and the alphabet may be the one for
    URLs (`-` and `_`).

    Example:
        >>> from_base64("data:image/png;base64,iVBORw==")
        b'\x89PNG'

    Raises:
        ApiError: 400, it is not base64.
    """
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError(
                400, "The data: URI in 'image' is not base64: it must be data:image/...;base64,...."
            )
        if "%" in text:
            text = unquote(text)
    elif scheme := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", text):
        raise ApiError(
            400, f"'image' is a {scheme[1][:20]}: URL, which is not fetched: send base64."
        )
    text = "".join(text.split())
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise ApiError(400, f"'image' is not valid base64: {_sentence(error)}") from None


def encode(result: SegResult, options: Options, log_id: str, pages: int) -> bytes:
    """The JSON of an `Answer`."""
    content: dict[str, Any] = {
        "labelMap": _label_map(result, options.labelFormat),
        "size": result.labels.shape,
        "image": None if options.visualize is False else _base64_image(result.img["res"], "JPEG"),
        "classes": [
            {
                "id": c,
                "name": result.class_names[c],
                "color": result.palette[c].tolist(),
                "share": share,
            }
            for c, share in shapes.shares(result.labels).items()
        ],
    }
    if options.page is not None:
        content["pages"] = pages
    if options.inputImage:
        photo = Image.fromarray(result.image[:, :, ::-1])
        content["inputImage"] = _base64_image(photo, "JPEG")
    if result.scores is not None:
        grey = np.rint(np.nan_to_num(result.scores) * 255).astype(np.uint8)
        content["scores"] = _base64_image(Image.fromarray(grey), "PNG")
    answer = {"logId": log_id, "errorCode": 0, "errorMsg": "Success", "result": content}
    return orjson.dumps(answer)


def _label_map(result: SegResult, label_format: LabelFormat) -> Any:
    if label_format == "list":
        return orjson.Fragment(result.flat_json())
    if label_format == "png":
        return base64.b64encode(result.label_png()).decode()
    return result.to_coco_rle()


def _base64_image(picture: Image.Image, form: str) -> str:
    return base64.b64encode(pillow(picture, form)).decode()


def _sentence(problem: object) -> str:
    text = " ".join(str(problem).split())[:200]
    return text if text.endswith(".") else f"{text}."


def _invalid(error: ValidationError) -> ApiError:
    """Describe the first problem in a sentence."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    if not first["loc"]:
        return ApiError(422, "The body must be a JSON object with the key 'image'.")
    name = str(first["loc"][0])[:60]
    if first["type"] == "extra_forbidden":
        return ApiError(422, f"There is no option {name!r}: use {', '.join(Options.model_fields)}.")
    if first["type"] == "missing":
        return ApiError(422, f"{name!r} is missing: send the image as base64.")
    messages = dict.fromkeys(
        problem["msg"].removeprefix("Value error, ")
        for problem in problems
        if problem["loc"][:1] == first["loc"][:1]
    )
    return ApiError(422, f"{name!r} is not valid: {_sentence('; or '.join(messages))}")
