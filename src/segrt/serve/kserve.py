"""The Open Inference Protocol (KServe v2, Triton) in front of the same service.

The model has one input, `image`: BYTES of shape [N] or [N, 1], each element an image file. Its
outputs are `labels`, INT32 [N, H, W], and, if requested, `scores`, FP32 [N, H, W]. The images of a
request have the same size, since the labels are one tensor.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from segrt import __version__
from segrt.errors import ConfigError
from segrt.result import SegResult
from segrt.serve import schema
from segrt.serve.admission import Admission
from segrt.serve.errors import ApiError
from segrt.serve.responses import SegmentationResponse
from segrt.serve.routes import authorize, in_time, service_of
from segrt.serve.service import Service

VERSION = "1"
"""The version of the only model."""

HEADER = "inference-header-content-length"
"""The header with the bytes of JSON at the beginning of a body with binary tensors."""

_INPUT, _LABELS, _SCORES = "image", "labels", "scores"
# Parameters, and their names in the API.
_OPTIONS = {"target_size": "targetSize", "slide": "slide", "page": "page"}
_IGNORED = {"priority", "timeout"}  # scheduling hints of Triton
_BINARY, _BINARY_SIZE, _ALL_BINARY = "binary_data", "binary_data_size", "binary_data_output"

# As Python objects, a body of many small values would take a hundred times its bytes. Base64 has
# neither colons nor commas, so this is far more than a request needs.
_MAX_MARKS = 2000

# As `_BYTES_PER_PIXEL` of the service, with numbers as text: up to 6 bytes for a label, 13 for a
# score, and both twice while the answer is put together.
_BYTES_PER_PIXEL = 52

_Value = StrictBool | StrictInt | StrictFloat | str
_Parameters = dict[str, _Value]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Input(_Model):
    name: str
    shape: list[StrictInt]
    datatype: str
    parameters: _Parameters = Field(default_factory=dict)
    data: list[Any] | None = None  # checked after the datatype, which says why it is not text


class _Output(_Model):
    name: str
    parameters: _Parameters = Field(default_factory=dict)


class _Inference(_Model):
    id: str | None = None
    parameters: _Parameters = Field(default_factory=dict)
    inputs: list[_Input]
    outputs: list[_Output] | None = None


@dataclass(frozen=True)
class Inference:
    """An inference request.

    Attributes:
        id: the client's id of the request.
        images: image files; as text, base64.
        options: how to segment them.
        outputs: whether each requested output is binary, by name.
    """

    id: str | None
    images: list[bytes | str]
    options: schema.Options
    outputs: dict[str, bool]


def add_routes(app: FastAPI, name: str, *, with_token: bool) -> None:
    """Add the endpoints under /v2; they expect a Service and an Admission in `app.state`.

    Args:
        app: the application.
        name: name of the model.
        with_token: whether the endpoints require the token, apart from those for the health of
            the server.

    Raises:
        ConfigError: the name can't be part of a path.
    """
    if not name or "/" in name:
        raise ConfigError(
            f"the model's name {name!r} can't be part of a URL: serve it without --kserve, or set "
            "Global.model_name in its configuration to a name without a slash"
        )
    guarded = [Depends(authorize)] if with_token else []
    add = partial(app.add_api_route, include_in_schema=False)
    add("/v2/health/live", live)
    add("/v2/health/ready", ready)
    add("/v2", server_metadata, dependencies=guarded)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        add(path, model_metadata, dependencies=guarded)
        add(f"{path}/ready", model_ready, dependencies=guarded)
        add(f"{path}/infer", infer, methods=["POST"], dependencies=guarded)


async def live(request: Request) -> Response:
    """Respond while the process runs."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Respond with 200 while the server accepts requests, with 400 while it shuts down."""
    is_ready = not service_of(request).draining
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 400)


async def server_metadata(request: Request) -> Response:
    """Describe the server."""
    return JSONResponse(
        {"name": "segrt", "version": __version__, "extensions": ["binary_tensor_data"]}
    )


async def model_metadata(request: Request) -> Response:
    """Describe the inputs and outputs of the model."""
    name = _check_model(request)
    return JSONResponse(
        {
            "name": name,
            "versions": [VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": _LABELS, "datatype": "INT32", "shape": [-1, -1, -1]},
                {"name": _SCORES, "datatype": "FP32", "shape": [-1, -1, -1]},
            ],
        }
    )


async def model_ready(request: Request) -> Response:
    """Respond like `ready`, for the model."""
    name = _check_model(request)
    is_ready = not service_of(request).draining
    return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 400)


async def infer(request: Request) -> Response:
    """Segment a batch of images of the same size."""
    service, name = service_of(request), _check_model(request)
    admission: Admission = request.app.state.admission
    deadline = anyio.current_time() + service.settings.timeout
    schema.read_head(request.headers)  # refuses compression other than gzip
    header = request.headers.get(HEADER)
    async with AsyncExitStack() as held:
        body = await held.enter_async_context(admission.admit(request))
        work = _infer(service, name, body, header, held)
        content, json_bytes = await in_time(request, work, deadline)
        response = SegmentationResponse(
            content, seconds=service.settings.timeout, held=held.pop_all()
        )
    if json_bytes is not None:
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers["Inference-Header-Content-Length"] = str(json_bytes)
    return response


async def _infer(
    service: Service, name: str, body: bytes, header: str | None, held: AsyncExitStack
) -> tuple[bytes, int | None]:
    most = service.settings.max_queue
    inference = await anyio.to_thread.run_sync(partial(read, body, header, max_images=most))
    try:
        results, _, memory = await service.label(
            inference.images, inference.options, held, bytes_per_pixel=_BYTES_PER_PIXEL
        )
    except ApiError as error:
        # The protocol has one status for all that is wrong with a request.
        status = 400 if error.status in (415, 422) else error.status
        raise ApiError(status, error.message, error.headers) from None
    with service.metrics.encoding.time():
        content, json_bytes = await anyio.to_thread.run_sync(encode, results, inference, name)
    memory.shrink(len(content))
    return content, json_bytes


def _check_model(request: Request) -> str:
    """The name of the model.

    Raises:
        ApiError: 404, the path has another name or version.
    """
    name = service_of(request).pipeline.model_name
    asked, version = request.path_params["name"], request.path_params.get("version", VERSION)
    if asked != name:
        raise ApiError(404, f"There is no model {asked[:60]!r}: the only one is {name!r}.")
    if version != VERSION:
        raise ApiError(404, f"There is no version {version[:20]!r}: the only one is {VERSION!r}.")
    return name


def read(body: bytes, header: str | None, *, max_images: int) -> Inference:
    """Read an inference request.

    Example:
        >>> read(body, "143", max_images=64).outputs
        {'labels': True}

    Args:
        body: JSON, and binary tensors after it.
        header: the value of Inference-Header-Content-Length; None if the body is only JSON.
        max_images: maximum number of images.

    Raises:
        ApiError: 400, it is invalid.
    """
    size = len(body) if header is None else _header_size(header, len(body))
    text = body[:size]
    if text.count(b":") + text.count(b",") > _MAX_MARKS:
        raise ApiError(400, f"The JSON has more than {_MAX_MARKS} values: send fewer images.")
    try:
        request = _Inference.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(error) from None
    if [one.name for one in request.inputs] != [_INPUT]:
        names = ", ".join(repr(one.name[:60]) for one in request.inputs[:5]) or "none"
        raise ApiError(400, f"The inputs are {names}: send one, {_INPUT!r}.")
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise ApiError(
            400,
            f"The datatype of {_INPUT!r} is {tensor.datatype[:20]!r}: send 'BYTES', each element "
            "an image file.",
        )
    count = tensor.shape[0] if tensor.shape else 0
    if tensor.shape not in ([count], [count, 1]) or not 1 <= count <= max_images:
        raise ApiError(
            400,
            f"The shape of {_INPUT!r} is {str(tensor.shape)[:60]}: send [N] or [N, 1], with N from "
            f"1 to {max_images}.",
        )
    outputs = _outputs(request)
    return Inference(
        request.id,
        _images(tensor, count, memoryview(body)[size:]),
        _options(request.parameters, scores=_SCORES in outputs),
        outputs,
    )


def _header_size(header: str, length: int) -> int:
    digits = header.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise ApiError(400, f"Inference-Header-Content-Length is {header[:20]!r}: send a number.")
    if int(digits) > length:
        raise ApiError(
            400, f"Inference-Header-Content-Length is {digits}, but the body has {length} bytes."
        )
    return int(digits)


def _images(tensor: _Input, count: int, binary: memoryview) -> list[bytes | str]:
    size = tensor.parameters.get(_BINARY_SIZE)
    if size is None:
        if binary:
            raise ApiError(
                400,
                f"{len(binary)} bytes follow the JSON, but no input has the parameter "
                f"{_BINARY_SIZE!r}.",
            )
        data = tensor.data or []
        flat = [one for row in data for one in (row if isinstance(row, list) else [row])]
        if not all(isinstance(one, str) for one in flat):
            raise ApiError(400, f"{_INPUT!r} has 'data' that is not text: send base64.")
        if len(flat) != count:
            raise ApiError(
                400, f"{_INPUT!r} has {len(flat)} elements in 'data', but its shape says {count}."
            )
        return flat
    if tensor.data is not None:
        raise ApiError(400, f"{_INPUT!r} has both 'data' and {_BINARY_SIZE!r}: send one of them.")
    if type(size) is not int or size != len(binary):
        raise ApiError(
            400, f"{_BINARY_SIZE!r} is {size!r:.40}, but {len(binary)} bytes follow the JSON."
        )
    images: list[bytes | str] = []
    begin = 0
    while begin < size and len(images) <= count:
        end = begin + 4 + int.from_bytes(binary[begin : begin + 4], "little")
        if end > size:
            raise ApiError(
                400,
                f"Element {len(images)} of {_INPUT!r} is longer than the bytes sent: send each "
                "file after its length, 4 bytes, little-endian.",
            )
        images.append(bytes(binary[begin + 4 : end]))
        begin = end
    if len(images) != count:
        found = "more" if len(images) > count else str(len(images))
        raise ApiError(400, f"{_INPUT!r} has {found} elements, but its shape says {count}.")
    return images


def _outputs(request: _Inference) -> dict[str, bool]:
    """Whether each requested output is binary."""
    by_default = _flag(request.parameters, _ALL_BINARY, default=False)
    wanted = request.outputs or [_Output(name=_LABELS)]
    outputs = {one.name: _flag(one.parameters, _BINARY, default=by_default) for one in wanted}
    if unknown := outputs.keys() - {_LABELS, _SCORES}:
        raise ApiError(
            400, f"There is no output {min(unknown)[:60]!r}: use {_LABELS!r} or {_SCORES!r}."
        )
    if len(outputs) != len(wanted):
        raise ApiError(400, "An output is requested twice.")
    if others := {name for one in wanted for name in one.parameters} - {_BINARY}:
        raise ApiError(
            400, f"There is no parameter {min(others)[:60]!r} of outputs: use {_BINARY!r}."
        )
    return outputs


def _flag(parameters: _Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ApiError(400, f"The parameter {name!r} is {value!r:.40}: use true or false.")
    return value


def _options(parameters: _Parameters, *, scores: bool) -> schema.Options:
    values: dict[str, Any] = {"scores": scores}
    for name, value in parameters.items():
        if name in _OPTIONS:
            values[_OPTIONS[name]] = value
        elif name not in {_ALL_BINARY, *_IGNORED}:
            known = ", ".join([*_OPTIONS, _ALL_BINARY])
            raise ApiError(400, f"There is no parameter {name[:60]!r}: use {known}.")
    try:
        return schema.Options.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        names = {own: name for name, own in _OPTIONS.items()}
        name = names[str(first["loc"][0])]
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise ApiError(400, f"The parameter {name!r} is not valid: {message[:200]}.") from None


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"][:4])
    message = first["msg"].rstrip(".")[:200]
    if first["type"] == "json_invalid" or not where:
        return ApiError(400, f"The body is not an inference request: {message}.")
    return ApiError(400, f"{where!r} is not valid: {message}.")


def encode(results: list[SegResult], inference: Inference, name: str) -> tuple[bytes, int | None]:
    """The response: JSON, and the requested binary tensors after it.

    Args:
        results: of images of the same size.
        inference: the request.
        name: name of the model.

    Returns:
        tuple: the body, and the bytes of JSON at its beginning; None if it is only JSON.
    """
    outputs, binary = [], []
    for output, is_binary in inference.outputs.items():
        tensor, datatype = _tensor(results, output)
        entry: dict[str, Any] = {"name": output, "datatype": datatype, "shape": tensor.shape}
        if is_binary:
            entry["parameters"] = {_BINARY_SIZE: tensor.nbytes}
            binary.append(tensor.data.cast("B"))
        else:
            entry["data"] = tensor.ravel()
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    if inference.id is not None:
        document["id"] = inference.id
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([header, *binary]), len(header)) if binary else (header, None)


def _tensor(results: list[SegResult], output: str) -> tuple[npt.NDArray[Any], str]:
    if output == _LABELS:
        return np.stack([result.labels for result in results]).astype("<i4", copy=False), "INT32"
    scores = [result.scores for result in results if result.scores is not None]
    # As in the API: JSON has no NaN.
    return np.nan_to_num(np.stack(scores)).astype("<f4", copy=False), "FP32"
