"""The Open Inference Protocol, on the application with a tiny model."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve.conftest import Gate, b64, png
from starlette.testclient import TestClient

from segrt import ConfigError, Pipeline
from segrt.serve import kserve
from segrt.serve.app import create_app
from segrt.serve.errors import ApiError
from segrt.serve.settings import Settings

Picture = npt.NDArray[np.uint8]
INFER = "/v2/models/colours/infer"
HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def kclient(serve: Callable[..., TestClient]) -> TestClient:
    return serve(kserve=True, max_queue=4, max_pixels=4 * 64 * 64)


def _json(*files: bytes, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)]}
    return {"inputs": [tensor | {"data": [b64(file) for file in files]}], **changes}


def _binary(*files: bytes, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """A body with a binary tensor, and its headers; `changes` are of the tensor."""
    tail = b"".join(struct.pack("<I", len(file)) + file for file in files)
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(files), 1]}
    tensor |= {"parameters": {"binary_data_size": len(tail)}} | changes
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("labels", "scores")]
    head = json.dumps({"id": "7", "inputs": [tensor], "outputs": outputs}).encode()
    return head + tail, {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}


def _refused(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    message = response.json()["error"]
    assert words in message
    assert message.endswith(".")
    assert "\n" not in message


def test_only_on_request(client: TestClient) -> None:
    assert client.get("/v2").status_code == 404
    assert client.get("/v2/health/live").json().keys() == {"logId", "errorCode", "errorMsg"}


def test_health_and_metadata(kclient: TestClient) -> None:
    for path in ("health/live", "health/ready", "models/colours/ready"):
        assert kclient.get(f"/v2/{path}").status_code == 200
        assert kclient.head(f"/v2/{path}").status_code == 200
    server = kclient.get("/v2").json()
    assert server["name"] == "segrt"
    assert server["extensions"] == ["binary_tensor_data"]
    model = kclient.get("/v2/models/colours").json()
    assert model == kclient.get("/v2/models/colours/versions/1").json()
    assert (model["name"], model["versions"]) == ("colours", ["1"])
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in model["outputs"]] == ["labels", "scores"]


def test_trailing_slashes_are_answered_without_redirects(
    kclient: TestClient, tiles: Picture
) -> None:
    for path in ("/v2/", "/v2/health/live/", "/v2/health/ready/", "/v2/models/colours/"):
        for answer in (kclient.get(path), kclient.head(path)):
            assert (answer.status_code, answer.history) == (200, [])
    for path in (f"{INFER}/", "/v2/models/colours/versions/1/infer/"):
        answer = kclient.post(path, json=_json(png(tiles)))
        assert (answer.status_code, answer.history) == (200, [])
    _refused(kclient.get(f"{INFER}/", follow_redirects=False), 405, "GET is not allowed")


def test_draining_is_not_ready(kclient: TestClient) -> None:
    kclient.app.state.service.draining = True  # type: ignore[attr-defined]
    assert kclient.get("/v2/health/live").status_code == 200
    assert kclient.get("/v2/health/ready").status_code == 400
    assert kclient.get("/v2/models/colours/ready").json() == {"name": "colours", "ready": False}


def test_json(kclient: TestClient, tiles: Picture, tile_labels: npt.NDArray[np.int32]) -> None:
    other = np.ascontiguousarray(tiles[:, ::-1])
    request = _json(png(tiles), png(other), id="a", parameters={"priority": 1})
    answer = kclient.post("/v2/models/colours/versions/1/infer", json=request)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("colours", "1", "a")
    [output] = body["outputs"]
    assert (output["name"], output["datatype"]) == ("labels", "INT32")
    labels = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_array_equal(labels, [tile_labels, tile_labels[:, ::-1]])
    nested = _json(png(tiles))
    nested["inputs"][0] |= {"shape": [1, 1], "data": [nested["inputs"][0]["data"]]}
    assert kclient.post(INFER, json=nested).json()["outputs"][0]["shape"] == [1, *tiles.shape[:2]]


@pytest.mark.parametrize("compressed", [False, True])
def test_binary(
    kclient: TestClient, tiles: Picture, tile_labels: npt.NDArray[np.int32], compressed: bool
) -> None:
    body, headers = _binary(png(tiles))
    if compressed:
        body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
    answer = kclient.post(INFER, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers[HEADER])
    document, tail = json.loads(answer.content[:size]), answer.content[size:]
    assert document["id"] == "7"
    sizes = [one["parameters"]["binary_data_size"] for one in document["outputs"]]
    assert sum(sizes) == len(tail)
    labels = np.frombuffer(tail[: sizes[0]], "<i4").reshape(document["outputs"][0]["shape"])
    np.testing.assert_array_equal(labels, tile_labels[None])
    scores = np.frombuffer(tail[sizes[0] :], "<f4")
    assert document["outputs"][1]["datatype"] == "FP32"
    assert scores.size == labels.size
    assert ((scores > 1 / 3) & (scores <= 1)).all()


def test_all_outputs_binary_by_parameter(kclient: TestClient, tiles: Picture) -> None:
    request = _json(png(tiles), parameters={"binary_data_output": True})
    answer = kclient.post(INFER, json=request)
    assert HEADER in answer.headers
    request["outputs"] = [{"name": "labels", "parameters": {"binary_data": False}}]
    assert "data" in kclient.post(INFER, json=request).json()["outputs"][0]


def test_images_of_a_request_run_together(
    serve: Callable[..., TestClient], gate: Gate, pipeline: Pipeline, tiles: Picture
) -> None:
    gate.open.set()
    client = serve(kserve=True, max_delay_ms=5000, max_batch=4)
    request = _json(*[png(tiles)] * 4, parameters={"target_size": "32,48", "slide": False})
    answer = client.post(INFER, json=request)
    assert gate.batches == [(4, 3, 32, 48)]
    output = answer.json()["outputs"][0]
    labels = np.array(output["data"]).reshape(4, -1)
    assert (labels == pipeline.segment(tiles, (32, 48)).labels.ravel()).all()


def test_parameters_are_checked(kclient: TestClient, tiles: Picture) -> None:
    for parameters, words in (
        ({"target_size": 0}, "'target_size' is not valid"),
        ({"target_size": 1.5}, "'target_size' is not valid"),
        ({"slide": "x"}, "'slide' is not valid"),
        ({"page": -1}, "'page' is not valid"),
        ({"page": 1}, "There is no page 1"),
        ({"targetsize": 64}, "There is no parameter 'targetsize'"),
        ({"scores": True}, "There is no parameter 'scores'"),
        ({"binary_data_output": 1}, "use true or false"),
        ({"target_size": [1]}, "not valid"),
    ):
        answer = kclient.post(INFER, json=_json(png(tiles), parameters=parameters))
        _refused(answer, 400, words)


def test_unknown_models_and_versions(kclient: TestClient, tiles: Picture) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/other/versions/1"):
        _refused(kclient.get(path), 404, "There is no model 'other'")
    _refused(kclient.get("/v2/models/colours/versions/2/ready"), 404, "no version '2'")
    _refused(kclient.post("/v2/models/other/infer", json=_json(png(tiles))), 404, "'colours'")
    path = "/v2/models/colours/versions/9/infer"
    _refused(kclient.post(path, json=_json(png(tiles))), 404, "no version '9'")
    _refused(kclient.get(INFER), 405, "GET is not allowed")
    _refused(kclient.get("/v2/nothing"), 404, "Not found")


def test_the_token_is_required(serve: Callable[..., TestClient], tiles: Picture) -> None:
    client = serve(kserve=True, token="s3cret")
    assert client.get("/v2/health/ready").status_code == 200
    for answer in (
        client.get("/v2"),
        client.get("/v2/models/colours"),
        client.get("/v2/models/other/ready"),
        client.post(INFER, json=_json(png(tiles))),
    ):
        _refused(answer, 401, "token")
    headers = {"Authorization": "Bearer s3cret"}
    assert client.post(INFER, json=_json(png(tiles)), headers=headers).status_code == 200


_WRONG_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "x"}, "send one, 'image'"),
    ({"datatype": "UINT8"}, "datatype of 'image' is 'UINT8'"),
    ({"datatype": 5}, "'inputs.0.datatype' is not valid"),
    ({"shape": [2]}, "1 elements in 'data', but its shape says 2"),
    ({"shape": []}, "send [N] or [N, 1]"),
    ({"shape": [0]}, "send [N] or [N, 1]"),
    ({"shape": [-1]}, "send [N] or [N, 1]"),
    ({"shape": [1, 2]}, "send [N] or [N, 1]"),
    ({"shape": [10**30]}, "send [N] or [N, 1]"),
    ({"shape": [True]}, "'inputs.0.shape.0' is not valid"),
    ({"shape": [5], "data": ["", "", "", "", ""]}, "from 1 to 4"),
    ({"data": [5]}, "'data' that is not text"),
    ({"data": [[["a"]]]}, "'data' that is not text"),
    ({"data": 5}, "'inputs.0.data' is not valid"),
    ({"datatype": "FP32", "shape": [2], "data": [0.5, 1]}, "datatype of 'image' is 'FP32'"),
    ({"data": None}, "0 elements"),
    ({"data": ["!"]}, "base64"),
    ({"data": ["aGVsbG8="]}, "image"),
    ({"data": ["https://example.org/a.png"]}, "not fetched"),
    ({"parameters": {"binary_data_size": 0}}, "both 'data' and"),
]


def test_wrong_inputs(kclient: TestClient, tiles: Picture) -> None:
    for change, words in _WRONG_INPUTS:
        request = _json(png(tiles))
        request["inputs"][0] |= change
        _refused(kclient.post(INFER, json=request), 400, words)


def test_wrong_outputs(kclient: TestClient, tiles: Picture) -> None:
    request = _json(png(tiles), outputs=[{"name": "mask"}])
    _refused(kclient.post(INFER, json=request), 400, "There is no output 'mask'")
    for name in ("classification", "shared_memory_region", "binary"):
        request["outputs"] = [{"name": "labels", "parameters": {name: 1, "binary_data": True}}]
        _refused(kclient.post(INFER, json=request), 400, f"no parameter {name!r} of outputs")
    request["outputs"] = [{"name": "labels"}, {"name": "labels"}]
    _refused(kclient.post(INFER, json=request), 400, "twice")


_HOSTILE_JSON = [
    (b"[1]", "inference request"),
    (b"{", "not an inference request"),
    (b"{}", "'inputs' is not valid"),
    (b'{"inputs": []}', "The inputs are none"),
    (b'{"inputs":' + b"[" * 100_000, "not an inference request"),
    (b'{"inputs":[' + b"{}," * 100_000 + b"{}]}", "more than"),
    (b'{"id":"\xff"}', "not an inference request"),
    (b'{"inputs":[],"parameters":{"a":' + b"9" * 100_000 + b"}}", ""),
]


def test_hostile_json(kclient: TestClient) -> None:
    for body, words in _HOSTILE_JSON:
        _refused(kclient.post(INFER, content=body), 400, words)


def test_lying_sizes(kclient: TestClient, tiles: Picture) -> None:
    file = png(tiles)

    def post(body: bytes, headers: dict[str, str], words: str) -> None:
        _refused(kclient.post(INFER, content=body, headers=headers), 400, words)

    body, headers = _binary(file)
    length = len(body)
    post(body, {HEADER: str(length + 1)}, f"but the body has {length} bytes")
    for text in ("-1", "1e3", "", "9" * 5000):
        post(body, {HEADER: text}, "send a number")
    post(body, {HEADER: "3"}, "not an inference request")
    post(body, {}, "not an inference request")
    post(body[:-1], headers, f"but {len(file) + 3} bytes follow")
    post(body + b"x", headers, f"but {len(file) + 5} bytes follow")
    for size in (-1, 0, True, "8", 1.5, 10**30):
        post(*_binary(file, parameters={"binary_data_size": size}), "bytes follow the JSON")
    post(*_binary(file, parameters={}), "no input has the parameter")
    post(*_binary(file, shape=[2]), "has 1 elements, but its shape says 2")
    post(*_binary(file, file, shape=[1]), "has more elements, but its shape says 1")
    tail = struct.pack("<I", 0xFFFFFFFF) + file
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": len(tail)},
                }
            ]
        }
    ).encode()
    post(head + tail, {HEADER: str(len(head))}, "longer than the bytes sent")


def test_sizes_must_be_equal_and_fit(kclient: TestClient, tiles: Picture) -> None:
    other = np.zeros((20, 30, 3), np.uint8)
    request = _json(png(tiles), png(other))
    _refused(kclient.post(INFER, json=request), 400, "must have the same size")
    big = png(np.zeros((80, 80, 3), np.uint8))
    assert kclient.post(INFER, json=_json(big, big)).status_code == 200
    _refused(kclient.post(INFER, json=_json(*[big] * 3)), 413, "send fewer at once")
    assert kclient.app.state.service.images.used == 0  # type: ignore[attr-defined]
    assert kclient.app.state.admission.slots == 0  # type: ignore[attr-defined]


def test_limits_of_the_server(serve: Callable[..., TestClient], gate: Gate, tiles: Picture) -> None:
    small = serve(kserve=True, max_body=50)
    _refused(small.post(INFER, json=_json(png(tiles))), 413, "larger than 50 bytes")
    _refused(small.post(INFER, content=b""), 400, "empty")
    answer = small.post(INFER, content=b"{}", headers={"Content-Encoding": "deflate"})
    _refused(answer, 415, "deflate")
    slow = serve(kserve=True, timeout=0.2)
    _refused(slow.post(INFER, json=_json(png(tiles))), 504, "not ready within 0.2 s")
    gate.open.set()


def test_internal_errors_have_the_form_of_the_protocol(
    kclient: TestClient, tiles: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(kserve, "encode", fail)
    answer = kclient.post(INFER, json=_json(png(tiles)))
    _refused(answer, 500, "Internal error")
    assert "secret" not in answer.text


def test_requests_are_counted_by_endpoint(kclient: TestClient, tiles: Picture) -> None:
    kclient.post(INFER, json=_json(png(tiles)))
    kclient.post("/v2/models/other/infer", json=_json(png(tiles)))
    text = kclient.get("/metrics").text
    assert 'segrt_requests_total{path="/v2/models/{name}/infer",status="200"} 1.0' in text
    assert 'segrt_requests_total{path="/v2/models/{name}/infer",status="404"} 1.0' in text


def test_a_name_that_is_no_part_of_a_path(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "model_name", "a/b")
    with pytest.raises(ConfigError, match="'a/b' can't be part of a URL"):
        create_app(pipeline, Settings(kserve=True))


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(junk=_JUNK, tail=st.binary(max_size=20), header=st.none() | st.text(max_size=9))
def test_junk_is_refused(junk: Any, tail: bytes, header: str | None) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["QQ=="]}
    for body in (
        junk,
        {"inputs": junk},
        {"inputs": [tensor | {"parameters": junk}]},
        {"inputs": [tensor | {"data": junk}]},
        {"inputs": [tensor], "outputs": junk},
    ):
        data = json.dumps(body).encode() + tail
        try:
            found = kserve.read(data, header, max_images=4)
        except ApiError as error:
            refused = error.status == 400 and len(error.message) < 400
            assert refused
        else:
            assert 1 <= len(found.images) <= 4
