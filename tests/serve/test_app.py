from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import urljoin

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from serve.conftest import PATH, Gate, b64, png
from starlette.testclient import TestClient

from segrt import ModelError, Pipeline, SegResult
from segrt.backends.memory import BUDGET
from segrt.serve import batching, fetch, logs, middleware
from segrt.serve.app import create_app
from segrt.serve.settings import Settings

Picture = npt.NDArray[np.uint8]
Serve = Callable[..., TestClient]
OCTETS = {"Content-Type": "application/octet-stream"}


def _failure(response: httpx.Response, status: int, words: str = "") -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"logId", "errorCode", "errorMsg"}
    assert body["errorCode"] == status
    uuid.UUID(body["logId"])
    assert words in body["errorMsg"]
    assert body["errorMsg"].endswith(".")
    assert "\n" not in body["errorMsg"]
    assert "Traceback" not in body["errorMsg"]


def _scope() -> dict[str, Any]:
    """The ASGI scope of a request with a PNG as its body."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }


def test_a_paddlex_client_works_unchanged(
    client: TestClient, tiles: Picture, tile_labels: Picture
) -> None:
    answer = client.post(PATH, json={"image": b64(png(tiles))})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["logId", "errorCode", "errorMsg", "result"]
    assert (body["errorCode"], body["errorMsg"]) == (0, "Success")
    result = body["result"]
    assert result["size"] == [64, 96]
    assert np.array_equal(np.reshape(result["labelMap"], result["size"]), tile_labels)
    picture = Image.open(io.BytesIO(base64.b64decode(result["image"])))
    assert (picture.format, picture.size) == ("JPEG", (96, 64))
    assert [c["name"] for c in result["classes"]] == ["red", "green", "blue"]
    assert sum(c["share"] for c in result["classes"]) == pytest.approx(1)
    assert "scores" not in result


def test_forms_and_raw_bodies_give_the_same_result(client: TestClient, tiles: Picture) -> None:
    data = png(tiles)
    expected = client.post(
        PATH, json={"image": b64(data), "targetSize": [32, 96], "visualize": False}
    ).json()["result"]
    assert expected["image"] is None
    query = {"targetSize": "32,96", "visualize": "false"}
    answers = [
        client.post(PATH, content=data, headers=OCTETS, params=query),
        client.post(PATH, content=data, headers={"Content-Type": "image/png"}, params=query),
        client.post(PATH, files={"image": ("a.png", data)}, data=query),
        client.post(PATH, files={"image": ("a.png", data)}, params=query),
        client.post(PATH, files={"image": (None, b64(data))}, data=query),
        client.post(PATH, json={"image": "data:image/png;base64," + b64(data), **query}),
        client.post(PATH, json={"image": b64(data)[:50] + "\r\n" + b64(data)[50:], **query}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"] == expected


def test_label_formats_and_scores(
    client: TestClient, pipeline: Pipeline, tiles: Picture, tile_labels: Picture
) -> None:
    body = {"image": b64(png(tiles)), "visualize": False}
    png_map = client.post(PATH, json={**body, "labelFormat": "png", "scores": True}).json()[
        "result"
    ]
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(png_map["labelMap"])))), tile_labels
    )
    scores = Image.open(io.BytesIO(base64.b64decode(png_map["scores"])))
    assert (scores.mode, scores.size) == ("L", (96, 64))
    (result,) = pipeline.predict(tiles, scores=True)
    assert isinstance(result, SegResult)
    assert result.scores is not None
    assert np.abs(np.asarray(scores) / 255 - result.scores).max() <= 0.5 / 255 + 1e-6
    rle = client.post(PATH, json={**body, "labelFormat": "rle"}).json()["result"]["labelMap"]
    assert [(one["category_id"], one["area"]) for one in rle] == [(0, 2048), (1, 2048), (2, 2048)]


def test_labels_are_those_of_the_pipeline_for_all_options(
    client: TestClient, pipeline: Pipeline
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (70, 90, 3), np.uint8)
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"targetSize": -1},
        {"targetSize": 128},
        {"slide": {"crop": 32, "stride": [16, 32]}},
        {"slide": "64,32"},
        {"slide": False},
    )
    for options in cases:
        (expected,) = pipeline.predict(
            image,
            target_size=options.get("targetSize"),
            slide=options.get("slide"),
            on_error="raise",
        )
        assert isinstance(expected, SegResult)
        answer = client.post(PATH, json={"image": b64(png(image)), **options}).json()
        assert np.array_equal(
            np.reshape(answer["result"]["labelMap"], (70, 90)), expected["pred"][0]
        ), options


JSON = {"Content-Type": "application/json"}
BROKEN = [
    (400, {"json": {"image": "@@@@"}}, "not valid base64"),
    (400, {"json": {"image": "abc"}}, "not an image"),  # the padding is missing
    (400, {"json": {"image": "abcde"}}, "not valid base64"),
    (400, {"json": {"image": "ab=c"}}, "not valid base64"),
    (400, {"json": {"image": "ü"}}, "not valid base64"),
    (400, {"json": {"image": ""}}, "empty"),
    (400, {"json": {"image": b64(b"hello")}}, "not an image"),
    (400, {"json": {"image": "data:image/png,xx"}}, "not base64"),
    (400, {"json": {"image": "http://example.org/a.png"}}, "does not fetch URLs"),
    (400, {"json": {"image": "file:///etc/passwd"}}, "file:"),
    (400, {"json": {"image": b64(b"%PDF-1.4 ...")}}, "PDF"),
    (400, {"content": b"{", "headers": JSON}, "not valid JSON"),
    (400, {"content": b"\xff\xfe", "headers": JSON}, "not valid JSON"),
    (400, {"content": b"[" * 100_000, "headers": JSON}, "not valid JSON"),
    (400, {"content": b"", "headers": JSON}, "empty"),
    (400, {"content": b"junk", "headers": OCTETS}, "not an image"),
    (400, {"content": b"junk", "headers": {"Content-Type": "multipart/form-data"}}, "multipart"),
    (
        400,
        {"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        "multipart",
    ),
    (
        415,
        {"content": b"a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        "image file as",
    ),
    (415, {"content": b"a"}, "(none)"),
    (415, {"content": b"a", "headers": OCTETS | {"Content-Encoding": "gzip, gzip"}}, "gzip, gzip"),
    (415, {"content": b"a", "headers": OCTETS | {"Content-Encoding": "br"}}, "or with gzip"),
    (400, {"content": b"a", "headers": OCTETS | {"Content-Encoding": "gzip"}}, "not valid gzip"),
    (415, {"content": b"aGVsbG8=", "headers": {"Content-Type": "text/plain"}}, "text/plain"),
    (422, {"json": {"file": "abc", "fileType": 1}}, "'image' is missing"),
    (422, {"json": {"images": "abc"}}, "no option 'images': use 'image'"),
    (422, {"json": {"image": "", "target_size": 3}}, "no option 'target_size': use 'targetSize'"),
    (
        422,
        {"json": {"image": "", "label-format": "png"}},
        "no option 'label-format': use 'labelFormat'",
    ),
    (422, {"json": {"image": "", "targetSize": 256.5}}, "'targetSize'"),
    (422, {"json": {"image": "", "targetSize": 1e300}}, "'targetSize'"),
    (422, {"content": b'{"image": "", "targetSize": 1e999}', "headers": JSON}, "'targetSize'"),
    (422, {"json": {}}, "'image' is missing"),
    (422, {"json": []}, "JSON object"),
    (422, {"json": {"image": 3}}, "'image' is not valid"),
    (422, {"json": {"image": "", "targetsize": 3}}, "no option 'targetsize'"),
    (422, {"json": {"image": "", "targetSize": 0}}, "target_size 0 is not valid"),
    (422, {"json": {"image": "", "targetSize": True}}, "'targetSize'"),
    (422, {"json": {"image": "", "targetSize": [1, 2, 3]}}, "'targetSize'"),
    (422, {"json": {"image": "", "labelFormat": "xml"}}, "'labelFormat'"),
    (422, {"json": {"image": "", "slide": {"crop": 3}}}, "slide"),
    (422, {"json": {"image": "", "slide": "4"}}, "slide '4'"),
    (422, {"json": {"image": "", "slide": {"crop": 10**400, "stride": 1}}}, "'slide'"),
    (422, {"json": {"image": "", "slide": {"crop": 10**6, "stride": 1}}}, "'slide'"),
    (422, {"json": {"image": "", "targetSize": 10**400}}, "'targetSize'"),
    (422, {"json": {"image": "", "targetSize": [1, 10**30]}}, "'targetSize'"),
    (422, {"content": b"x", "headers": OCTETS, "params": {"targetSize": "9" * 5000}}, "targetSize"),
    (422, {"content": b"x", "headers": OCTETS, "params": {"slide": "9" * 5000 + ",1"}}, "slide"),
    (422, {"content": b"x", "headers": OCTETS, "params": {"scores": "perhaps"}}, "'scores'"),
    (422, {"json": {"image": ""}, "params": {"scores": "true"}}, "query string"),
    (
        422,
        {"content": b"x", "headers": OCTETS, "params": {"logId": "a"}},
        "no option 'logId': use targetSize, visualize, labelFormat, scores, slide, page, "
        "inputImage.",
    ),
    (400, {"content": b'{"image": "", "meta": NaN}', "headers": JSON}, "not valid JSON"),
    (400, {"content": b'{"image": "", "page": -Infinity}', "headers": JSON}, "not valid JSON"),
    (422, {"json": {"image": "", "targetsize": 3, "meta": [0] * 5000}}, "no option 'targetsize'"),
    (422, {"json": {"image": "", "meta": [0] * 20_000}}, "more than 10,000 values"),
    (422, {"content": b"x", "headers": OCTETS, "params": {"page": [0, 1]}}, "'page' is sent more"),
    (422, {"files": [("image", b"x"), ("image", b"y")]}, "'image' is sent more than once"),
    (422, {"files": [("image", (None, "x")), ("image", b"y")]}, "'image' is sent more than once"),
    (
        422,
        {"files": {"image": b"x"}, "data": {"scores": ["true", "false"]}},
        "'scores' is sent more than once",
    ),
    (
        422,
        {"files": {"image": b"x"}, "data": {"page": "0"}, "params": {"page": "1"}},
        "'page' is sent more than once",
    ),
    (422, {"files": {"picture": b"x"}}, "'picture'"),
    (422, {"files": {"other": (None, "x")}}, "'image'"),
]


@pytest.mark.parametrize(("status", "request_", "words"), BROKEN)
def test_client_errors(
    shared_client: TestClient, status: int, request_: dict[str, Any], words: str
) -> None:
    _failure(shared_client.post(PATH, **request_), status, words)


def test_a_form_that_is_cut_off_is_400(client: TestClient, tiles: Picture) -> None:
    form = client.build_request(
        "POST", PATH, files={"image": png(tiles)}, data={"labelFormat": "png", "scores": "true"}
    )
    headers, body = {"Content-Type": form.headers["content-type"]}, form.read()
    end = body.rindex(b"--" + headers["Content-Type"].partition("=")[2].encode())
    assert client.post(PATH, content=body.rstrip(), headers=headers).status_code == 200
    for cut in (body.rstrip()[:-2], body[:end], body[: end - 2], body[: end // 2]):
        _failure(client.post(PATH, content=cut, headers=headers), 400, "multipart body")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "APPLICATION/JSON; charset=UTF-8",
        "application/x-www-form-urlencoded",  # axios and curl -d
        "text/plain;charset=UTF-8",  # fetch in browsers
        "text/json",
        "application/problem+json",
        "application/octet-stream",
        "image/png",
        "nonsense",
    ],
)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n \t"])
def test_json_is_read_whatever_its_content_type(
    shared_client: TestClient, tiles: Picture, content_type: str | None, start: bytes
) -> None:
    text = start + json.dumps({"image": b64(png(tiles)), "labelFormat": "png"}).encode()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = shared_client.post(PATH, content=text, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["size"] == [64, 96]


def test_forms_of_base64(client: TestClient, tiles: Picture) -> None:
    data = next(
        data
        for data in (png(tiles) + bytes([255, 254, 253] * 3) + bytes(n) for n in (0, 1, 2))
        if len(data) % 3 == 1
    )
    url_safe = base64.urlsafe_b64encode(data).decode()
    assert {"-", "_"} & set(url_safe)
    assert url_safe.endswith("==")
    for text in (
        b64(data),
        base64.encodebytes(data).decode(),
        base64.encodebytes(data).decode().replace("\n", "\r\n"),
        b64(data).rstrip("="),
        url_safe,
        url_safe.rstrip("="),
        f"data:image/png;base64,{b64(data)}",
        f"DATA:image/png;name=a.png;charset=x;BASE64,{b64(data)}",
        f"data:;base64,{url_safe}",
        "data:image/png;base64," + b64(data).replace("+", "%2B").replace("=", "%3D"),
    ):
        answer = client.post(PATH, json={"image": text, "visualize": False})
        assert answer.status_code == 200, (text[:40], answer.text)


def test_gzip_within_the_limits(serve: Serve, tiles: Picture) -> None:
    client = serve(max_body=20_000)
    data = png(tiles)
    text = json.dumps({"image": b64(data), "visualize": False}).encode()
    expected = client.post(PATH, content=text).json()["result"]
    for encoding in ("gzip", "x-gzip", " GZIP "):
        for body, kind in ((text, "application/json"), (text, ""), (data, "image/png")):
            headers = {"Content-Encoding": encoding, **({"Content-Type": kind} if kind else {})}
            members = gzip.compress(body[:99]) + gzip.compress(body[99:])
            for content in (gzip.compress(body), members):
                answer = client.post(PATH, content=content, headers=headers)
                assert answer.status_code == 200, answer.text
                assert answer.json()["result"]["labelMap"] == expected["labelMap"]
    headers = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(50 << 20))
    for content, status, words in (
        (gzip.compress(bytes(20_001)), 413, "larger than 20,000 bytes"),
        (bomb[:20_000], 413, "larger than 20,000 bytes"),
        (gzip.compress(text)[:-9], 400, "not valid gzip"),
        (gzip.compress(text) + b"x", 400, "not valid gzip"),
        (gzip.compress(bytes(10_001)) * 2, 413, "larger than 20,000 bytes"),
        (gzip.compress(text) + gzip.compress(text)[:-9], 400, "not valid gzip"),
        (gzip.compress(text) * 2, 400, "not valid JSON"),
        (gzip.compress(b""), 400, "not valid gzip"),
        (text, 400, "not valid gzip"),
    ):
        _failure(client.post(PATH, content=content, headers=headers), status, words)
    admission = client.app.state.admission  # type: ignore[attr-defined]
    assert (admission.body_bytes, admission.slots) == (0, 0)


def test_memory_of_decompressed_bodies_is_limited(serve: Serve, tiles: Picture) -> None:
    client = serve(max_body=4000)
    admission = client.app.state.admission  # type: ignore[attr-defined]
    body = gzip.compress(png(tiles))
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    assert client.post(PATH, content=body, headers=headers).status_code == 200
    admission.body_bytes = Settings(max_body=4000).body_memory - len(body) - 3999
    _failure(client.post(PATH, content=body, headers=headers), 503, "too many bytes")


def test_unknown_keys_are_ignored_like_in_paddlex(client: TestClient, tiles: Picture) -> None:
    image = b64(png(tiles))
    for more in (
        {"logId": "abc"},
        {"logId": None},
        {"fileType": 1, "inferenceParams": {"x": 1}, "": 2, "useDoc": True, "log_id": 3},
        {"images": [image]},  # image itself is there
        {"targetSize": 64.0},
        {"targetSize": [64.0, 96]},
        {"targetSize": -1.0},
        {"slide": {"crop": 32.0, "stride": [16.0, 32]}},
    ):
        answer = client.post(PATH, json={"image": image, **more})
        assert answer.status_code == 200, (more, answer.text)
        uuid.UUID(answer.json()["logId"])  # as in PaddleX, its own


def test_many_unknown_keys_cost_little(client: TestClient, tiles: Picture) -> None:
    keys = {f"key{number}": number for number in range(200_000)}
    start = time.perf_counter()
    few = dict(list(keys.items())[:4000])
    assert client.post(PATH, json={"image": b64(png(tiles)), **few}).status_code == 200
    failed = client.post(PATH, json={"image": "@", "logId": "a", **keys})
    _failure(failed, 422, "more than 10,000 values")
    assert time.perf_counter() - start < 20


def test_failures_have_the_id_of_the_client(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "segrt.serve"):
        for request in ({"image": "@"}, {"image": 3}, {}, {"imag": "a"}):
            answer = client.post(PATH, json={"logId": "mine-7", **request})
            assert answer.status_code in (400, 422)
            assert answer.json()["logId"] == "mine-7"
    assert "the client calls this request mine-7" in caplog.messages
    for odd in ("", "x" * 101, "a\nb", 7, None, ["a"]):
        uuid.UUID(client.post(PATH, json={"logId": odd, "image": "@"}).json()["logId"])
    uuid.UUID(client.post(PATH, content=b'{"logId": "a"', headers=JSON).json()["logId"])


def test_head_and_trailing_slashes(client: TestClient, serve: Serve, tiles: Picture) -> None:
    for path in ("/health", "/ready", "/info", "/metrics", "/", "/docs", "/openapi.json"):
        whole, head = client.get(path), client.head(path)
        assert (head.status_code, whole.status_code) == (200, 200)
        assert head.headers["content-type"] == whole.headers["content-type"]
    for name in ("health", "ready", "info", "metrics", "docs", "openapi.json", "app.js"):
        for answer in (client.get(f"/{name}/"), client.head(f"/{name}/")):
            assert (answer.status_code, answer.history) == (200, [])
    answer = client.post(f"{PATH}/", content=png(tiles), headers=OCTETS, follow_redirects=False)
    assert answer.status_code == 200
    assert f'route="{PATH}/"' not in client.get("/metrics").text
    assert client.head(PATH).status_code == 405
    guarded = serve(token="s3cret")
    for path in ("/info", "/info/", "/metrics/", f"{PATH}/"):
        method = guarded.post if path.startswith(PATH) else guarded.head
        assert method(path).status_code == 401
    assert guarded.head("/health/").status_code == 200


def test_the_links_of_docs_lead_to_the_server_with_and_without_a_slash(client: TestClient) -> None:
    for address in ("/docs", "/docs/"):
        text = client.get(address).text
        links = set(re.findall(r'(?:href|src|data-path)="([^"#]+)"', text))
        assert len(links) >= 10
        for link in links:
            path = urljoin(address, link)
            assert client.get(path).status_code == (405 if path == PATH else 200), (address, link)


def test_the_picture_is_the_default_of_the_server(serve: Serve, tiles: Picture) -> None:
    image = b64(png(tiles))
    for setting, expected in ((None, True), (True, True), (False, False)):
        client = serve(visualize=setting)
        for request, wanted in ((None, expected), (True, True), (False, False)):
            answer = client.post(PATH, json={"image": image, "visualize": request}).json()
            assert (answer["result"]["image"] is not None) == wanted


def _document(*greys: int) -> bytes:
    """A PDF with a page for each grey, 20 x 10 points."""
    pages = [Image.new("RGB", (20, 10), (grey,) * 3) for grey in greys]
    buffer = io.BytesIO()
    pages[0].save(buffer, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return buffer.getvalue()


def test_pages_of_a_pdf(client: TestClient) -> None:
    data = _document(250, 0)
    for page, grey in ((0, 250), (1, 0)):
        query = {"page": str(page), "inputImage": "true", "labelFormat": "png"}
        for answer in (
            client.post(PATH, content=data, headers=OCTETS, params=query),
            client.post(
                PATH, content=data, headers={"Content-Type": "application/pdf"}, params=query
            ),
            client.post(PATH, files={"image": ("a.pdf", data)}, data=query),
            client.post(PATH, json={"image": b64(data), **query, "page": page}),
            client.post(PATH, json={"image": b64(data), **query, "page": float(page)}),
        ):
            assert answer.status_code == 200, answer.text
            result = answer.json()["result"]
            assert (result["size"], result["pages"]) == ([20, 40], 2)
            photo = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["inputImage"]))))
            assert photo.shape == (20, 40, 3)
            assert np.abs(photo.astype(int) - grey).max() < 3
    _failure(
        client.post(PATH, content=data, headers=OCTETS, params={"page": 2}),
        422,
        "There is no page 2: this file has 2 pages, from 0 to 1.",
    )
    _failure(client.post(PATH, content=data, headers=OCTETS), 400, "select a page with page=0")
    for wrong in (-1, 1.5, True, "two", [0], 1 << 40):
        request = {"image": b64(data), "page": wrong}
        _failure(client.post(PATH, json=request), 422, "'page' is not valid")


def test_other_images_have_one_page(client: TestClient, tiles: Picture) -> None:
    data = png(tiles)
    plain = client.post(PATH, content=data, headers=OCTETS).json()["result"]
    assert not plain.keys() & {"pages", "inputImage"}
    first = client.post(PATH, content=data, headers=OCTETS, params={"page": 0}).json()["result"]
    assert first == plain | {"pages": 1}
    answer = client.post(PATH, content=data, headers=OCTETS, params={"page": 1})
    _failure(answer, 422, "this file has 1 page, page 0")


def test_limits(serve: Serve, tiles: Picture) -> None:
    client = serve(max_body=2000, max_pixels=7000)
    data = png(tiles)
    assert client.post(PATH, content=data, headers=OCTETS).status_code == 200
    _failure(client.post(PATH, content=bytes(2001), headers=OCTETS), 413, "larger than 2,000 bytes")
    _failure(
        client.post(PATH, content=iter([bytes(1500)] * 2), headers=OCTETS),
        413,
        "larger than 2,000 bytes",
    )
    wide = png(np.zeros((71, 100, 3), np.uint8))
    _failure(client.post(PATH, content=wide, headers=OCTETS), 413, "more than 7,000 pixels")
    _failure(
        client.post(PATH, content=data, headers=OCTETS, params={"targetSize": "800,900"}),
        413,
        "800 x 900",
    )


def test_requests_the_model_cannot_run_are_422(
    client: TestClient, pipeline: Pipeline, tiles: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _failure(
        client.post(PATH, json={"image": b64(png(tiles)), "slide": True}), 422, "no sliding window"
    )

    def fail(batch: object) -> None:
        raise ModelError("the model can't run on an input of 1x3x64x96: why")

    monkeypatch.setattr(pipeline.session, "run", fail)
    _failure(
        client.post(PATH, content=png(tiles), headers=OCTETS),
        422,
        "The model can't run on an input of 1x3x64x96",
    )


def test_unknown_paths_and_methods(client: TestClient) -> None:
    _failure(client.get("/nothing"), 404, "/docs")
    _failure(client.get("/../../etc/passwd"), 404)
    _failure(client.get(PATH), 405, "GET is not allowed")
    _failure(client.post("/health"), 405)
    assert client.get(PATH).headers["allow"] == "POST"


def test_the_other_endpoints(client: TestClient, pipeline: Pipeline) -> None:
    health = client.get("/health").json()
    assert uuid.UUID(health.pop("logId")).version == 4
    assert health == {"errorCode": 0, "errorMsg": "Healthy"}
    assert client.get("/ready").json() == {"status": "ready"}
    info = client.get("/info").json()
    assert (info["model"], info["classes"]) == ("colours", ["red", "green", "blue"])
    assert (info["provider"], info["device"], info["mode"]) == (
        "CPUExecutionProvider",
        "cpu",
        "normal",
    )
    assert info["palette"] == pipeline.palette[:3].tolist()
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text.replace("http://www.w3.org", "")  # no external resources
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/example-street.webp").headers["content-type"] == "image/webp"
    client.post(PATH, content=b"x", headers=OCTETS)
    client.get("/" + "x" * 50)
    metrics = client.get("/metrics").text
    assert f'segrt_requests_total{{path="{PATH}",status="400"}} 1.0' in metrics
    assert "xxx" not in metrics


def test_a_draining_server_is_not_ready(client: TestClient) -> None:
    client.app.state.service.draining = True  # type: ignore[attr-defined]
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
    assert answer.headers["connection"] == "close"


def test_token(serve: Serve, tiles: Picture) -> None:
    client = serve(token="s3cret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        answer = client.post(PATH, content=png(tiles), headers=OCTETS | headers)
        _failure(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/info", headers=headers).status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 401
    right = {"Authorization": "Bearer s3cret"}
    assert client.post(PATH, content=png(tiles), headers=OCTETS | right).status_code == 200
    assert client.get("/info", headers=right).status_code == 200
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    page = ("/", "/app.js", "/docs", "/openapi.json", "/example-street.webp")
    for path in page:
        _failure(client.get(path), 401, "token")
        assert client.get(path, headers=right).status_code == 200
    public = serve(token="s3cret", public_page=True)
    for path in page:
        assert public.get(path).status_code == 200
    assert public.get("/info").status_code == 401


def test_cors_is_off_by_default(client: TestClient, serve: Serve) -> None:
    origin = {"Origin": "https://a.example"}
    assert "access-control-allow-origin" not in client.get("/info", headers=origin).headers
    allowing = serve(cors_origins=("https://a.example",))
    assert (
        allowing.get("/info", headers=origin).headers["access-control-allow-origin"]
        == "https://a.example"
    )
    other = allowing.get("/info", headers={"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
    preflight = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization",
    }
    assert allowing.options(PATH, headers=preflight).status_code == 200
    binary = {"Access-Control-Request-Headers": "content-encoding,inference-header-content-length"}
    assert allowing.options("/v2", headers=preflight | binary).status_code == 200
    exposed = allowing.get("/info", headers=origin).headers["access-control-expose-headers"]
    assert exposed.lower() == "retry-after, inference-header-content-length"


def test_urls(serve: Serve, tiles: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(allow_urls=True)
    _failure(client.post(PATH, json={"image": "http://127.0.0.1:1/a.png"}), 424, "only public ones")
    _failure(client.post(PATH, json={"image": "http://"}), 424)
    for host in ("xn--", "a" * 70, "[::1", "256.256.256.256", "a..b", "xn--a.xn--"):
        _failure(client.post(PATH, json={"image": f"http://{host}/"}), 424)
    _failure(client.post(PATH, json={"image": "gopher://127.0.0.1/a.png"}), 400, "gopher")
    monkeypatch.setattr("segrt.serve.service.fetch", lambda url, **limits: png(tiles))
    assert client.post(PATH, json={"image": "https://example.org/a.png"}).status_code == 200
    assert fetch.is_public("93.184.216.34")


def test_a_full_queue_is_503_and_a_late_result_504(
    serve: Serve, gate: Gate, tiles: Picture
) -> None:
    client = serve(max_queue=2, max_batch=1, timeout=1.0)

    def post(_: int) -> httpx.Response:
        answer: httpx.Response = client.post(PATH, content=png(tiles), headers=OCTETS)
        return answer

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert sorted(a.status_code for a in answers) == [503] * 4 + [504] * 2
    for answer in answers:
        _failure(answer, answer.status_code)
        assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    gate.open.set()
    assert post(0).status_code == 200  # the queue slots are free again


def test_a_slow_body_is_408_and_the_memory_of_all_bodies_is_limited(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post(app: Any, messages: list[dict[str, Any]]) -> int:
        status = 0

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(_scope(), receive, send)
        return status

    monkeypatch.setattr(middleware, "_REST_SECONDS", 0.1)

    async def run() -> None:
        app = create_app(pipeline, Settings(timeout=0.2))
        part = {"type": "http.request", "body": b"abc", "more_body": True}
        assert await post(app, [part]) == 408
        monkeypatch.setattr(Settings, "body_memory", 5)
        assert await post(app, [part, part]) == 503
        assert (app.state.admission.slots, app.state.admission.body_bytes) == (0, 0)

    asyncio.run(run())


def test_a_client_that_disconnects_frees_its_queue_slot(
    pipeline: Pipeline, gate: Gate, tiles: Picture
) -> None:
    async def run() -> None:
        app = create_app(pipeline, Settings(max_batch=1))
        service, admission = app.state.service, app.state.admission
        data = png(tiles)
        service.images.size = 3 * 27 * tiles.size // 3
        leave = asyncio.Event()

        async def post() -> None:
            first = True

            async def receive() -> dict[str, Any]:
                nonlocal first
                if first:
                    first = False
                    return {"type": "http.request", "body": data, "more_body": False}
                await leave.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                assert message.get("status", 499) == 499

            await app(_scope(), receive, send)

        requests = [asyncio.create_task(post()) for _ in range(5)]
        # One runs, two are queued, and there is no memory yet for the other two.
        while not (gate.entered.is_set() and service.batcher.waiting == 2):
            assert not any(request.done() for request in requests)
            await asyncio.sleep(0.01)
        assert admission.slots == 5
        leave.set()
        await asyncio.gather(*requests)
        assert (admission.slots, admission.body_bytes, service.batcher.waiting) == (0, 0, 0)
        assert service.images.used == 0
        gate.open.set()
        await asyncio.to_thread(service.close)
        assert gate.batches == [(1, 3, 64, 96)]  # the cancelled requests did not run

    asyncio.run(run())


def test_an_internal_error_is_logged_but_not_shown_to_clients(
    client: TestClient,
    pipeline: Pipeline,
    tiles: Picture,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    def fail(batch: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(pipeline.session, "run", fail)
    answer = client.post(PATH, content=png(tiles), headers=OCTETS)
    _failure(answer, 500)
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_server_without_memory_is_503(
    client: TestClient, pipeline: Pipeline, tiles: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("segrt.serve.schema.encode", fail)
    answer = client.post(PATH, content=png(tiles), headers=OCTETS)
    _failure(answer, 503, "too little memory")
    assert answer.headers["retry-after"] == "1"


def test_an_idle_server_returns_memory(
    serve: Serve, pipeline: Pipeline, tiles: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested, released = Event(), Event()
    monkeypatch.setattr(batching, "_IDLE_S", 0.01)
    monkeypatch.setattr(batching, "_LONG_IDLE_S", 0.01)
    monkeypatch.setattr(batching, "release", released.set)
    monkeypatch.setattr(pipeline.session, "rest", rested.set)
    client = serve()
    time.sleep(0.1)
    assert not released.is_set()  # nothing has run
    for _ in range(2):
        assert client.post(PATH, content=png(tiles), headers=OCTETS).status_code == 200
        assert released.wait(10)
        assert rested.wait(10)
        released.clear()
        rested.clear()


def test_log_lines_contain_the_id_of_the_request(
    client: TestClient, tiles: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        logs.set_up(as_json=True)
        answer = client.post(PATH, content=png(tiles), headers=OCTETS)
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
    finally:
        root.handlers, root.level = before
    assert line["logId"] == answer.json()["logId"]
    assert (line["status"], line["path"], line["method"]) == (200, PATH, "POST")


def test_repeated_warnings_are_left_out_and_nothing_raises(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level, logging.raiseExceptions
    seconds = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    try:
        logs.set_up(as_json=False)
        for turn in range(1001):
            seconds += 100 * (turn == 1000)
            logging.getLogger("asyncio").error("no %s: \u2028 %d", "descriptors", turn)
        logging.getLogger("asyncio").error("no %s", "argument", "too many")  # noqa: PLE1205
        lines = capsys.readouterr().err.splitlines()
        monkeypatch.setattr(root.handlers[0], "stream", open("/dev/full", "w"))  # noqa: SIM115
        for _ in range(3000):
            logging.getLogger("segrt").info("x" * 100)
    finally:
        root.handlers, root.level, logging.raiseExceptions = before
    assert len(lines) == 11
    assert lines[0].endswith("no descriptors: \\u2028 0")
    assert lines[10].endswith("no descriptors: \\u2028 1000 (left out 990 times before)")


def test_requests_of_the_same_size_run_together(
    serve: Serve, gate: Gate, pipeline: Pipeline
) -> None:
    client = serve(max_batch=4, max_delay_ms=0)
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (size, 96, 3), np.uint8)
        for size in (64, 64, 64, 64, 64, 32, 64, 32, 64)
    ]

    def segment(image: Picture) -> Any:
        answer = client.post(PATH, json={"image": b64(png(image))}).json()
        return np.reshape(answer["result"]["labelMap"], answer["result"]["size"])

    service = client.app.state.service  # type: ignore[attr-defined]
    with ThreadPoolExecutor(len(images)) as pool:
        first = pool.submit(segment, images[0])
        assert gate.entered.wait(20)
        answers = pool.map(segment, images[1:])
        deadline = time.monotonic() + 15
        while service.batcher.waiting < len(images) - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        gate.open.set()
        found = [first.result(), *answers]
    assert sorted(shape[0] for shape in gate.batches) == [1, 2, 2, 4]
    for image, labels in zip(images, found, strict=True):
        (expected,) = pipeline.predict(image)
        assert isinstance(expected, SegResult)
        assert np.array_equal(labels, expected["pred"][0])


def test_an_image_that_needs_too_much_memory_is_413(
    client: TestClient, tiles: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BUDGET, "capacity", lambda: 1 << 20)
    answer = client.post(PATH, content=png(tiles), headers=OCTETS)
    _failure(answer, 413, "--max-memory")
