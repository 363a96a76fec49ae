"""Ray Serve: the answers of `segrt serve`, more replicas under load, and nothing lost."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

import segrt.ray
from segrt import ConfigError, create_pipeline
from segrt.ray.service import from_config

pytestmark = pytest.mark.scale

PATH = "/semantic-segmentation"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture
def deploy(cluster: None) -> Iterator[Callable[..., str]]:
    """Runs `segrt.ray.app` with the given arguments; returns its address."""
    from ray import serve

    serve.start(http_options={"host": "127.0.0.1", "port": 8000})

    def run(**arguments: Any) -> str:
        serve.run(segrt.ray.app(num_cpus=0.5, device="cpu", **arguments), route_prefix="/")
        return "http://127.0.0.1:8000"

    yield run
    serve.shutdown()


def _pictures(count: int) -> list[bytes]:
    """PNG files of random tiles, in three sizes."""
    random = np.random.default_rng(0)
    files = []
    for number in range(count):
        small = random.integers(0, 256, (8, 8 + number % 3, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small.repeat(8, 0).repeat(8, 1)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _replicas() -> int:
    from ray import serve

    status = serve.status().applications["default"].deployments["segrt"]
    running: int = status.replica_states.get("RUNNING", 0)
    return running


def _wait_for(count: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while _replicas() != count:
        assert time.monotonic() < end, f"{_replicas()} replicas, not {count}"
        time.sleep(0.1)


def test_answers_are_those_of_segrt_serve(deploy: Callable[..., str], model: Path) -> None:
    from starlette.testclient import TestClient

    from segrt.serve.app import create_app
    from segrt.serve.settings import Settings

    settings = Settings(kserve=True, token="s3cret", max_pixels=10_000)
    address = deploy(settings=settings, model_dir=str(model))
    headers = {"Authorization": "Bearer s3cret"}
    own = create_app(create_pipeline(model_dir=model, device="cpu"), settings)
    image = base64.b64encode(_pictures(1)[0]).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}
    big = io.BytesIO()
    Image.new("RGB", (200, 100)).save(big, "PNG")
    requests: list[dict[str, Any]] = [
        *({"content": file, "headers": {"Content-Type": "image/png"}} for file in _pictures(60)),
        {"json": {"image": image, "labelFormat": "rle", "scores": True}},
        {"json": {"image": "!"}},
        {"content": big.getvalue(), "headers": {"Content-Type": "image/png"}},
        {"json": {"inputs": [tensor]}, "url": "/v2/models/colours/infer"},
        {"json": {"inputs": []}, "url": "/v2/models/colours/infer"},
    ]
    with ExitStack() as stack:
        expected = stack.enter_context(TestClient(own, headers=headers))
        client = stack.enter_context(httpx.Client(base_url=address, headers=headers, timeout=60))
        for request in requests:
            sent = {"url": PATH, **request}
            answers = [one.post(**sent) for one in (expected, client)]
            assert answers[0].status_code == answers[1].status_code
            bodies = [{**answer.json(), "logId": None} for answer in answers]
            assert bodies[0] == bodies[1]
        for path in ("/", "/info", "/health", "/ready", "/docs", "/v2", "/nothing"):
            assert client.get(path).status_code == expected.get(path).status_code
        assert httpx.get(f"{address}/info").status_code == 401


def test_replicas_follow_the_load_and_nothing_is_lost(
    deploy: Callable[..., str], model: Path
) -> None:
    delays = {
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 1,
    }
    address = deploy(max_replicas=2, model_dir=str(model), target_requests=2, autoscaling=delays)
    assert _replicas() == 1
    busy, over = Event(), Event()
    busy.set()
    file = _pictures(1)[0]

    def client(number: int) -> list[int]:
        statuses = []
        with httpx.Client(base_url=address, timeout=60) as http:
            # One client goes on while a replica is stopped.
            while busy.is_set() or (number == 0 and not over.is_set()):
                answer = http.post(PATH, content=file, headers={"Content-Type": "image/png"})
                statuses.append(answer.status_code)
        return statuses

    with ThreadPoolExecutor(12) as pool:
        clients = [pool.submit(client, number) for number in range(12)]
        try:
            _wait_for(2)
            busy.clear()
            _wait_for(1)
        finally:
            busy.clear()
            over.set()
        statuses = [status for one in clients for status in one.result()]
    assert len(statuses) > 12
    assert set(statuses) == {200}


def test_a_stop_completes_the_requests_in_progress(deploy: Callable[..., str]) -> None:
    from ray import serve

    from segrt.serve.settings import Settings

    # The batch waits for more images than there are, so all requests are in progress.
    settings = Settings(max_delay_ms=10_000, max_batch=32)
    address = deploy(settings=settings)
    file = _pictures(1)[0]

    def ask(_: int) -> int:
        headers = {"Content-Type": "image/png"}
        return http.post(address + PATH, content=file, headers=headers).status_code

    def waiting() -> bool:
        text = http.get(address + "/metrics").text
        return "segrt_images_waiting 6.0" in text

    with httpx.Client(timeout=60) as http, ThreadPoolExecutor(6) as pool:
        asked = pool.map(ask, range(6))
        end = time.monotonic() + 60
        while not waiting():
            assert time.monotonic() < end
        serve.delete("default")
        assert set(asked) == {200}


def test_arguments_are_checked(isolated: None) -> None:
    for arguments, words in (
        ({"target_requests": 0}, "target_requests 0 is not valid"),
        ({"target_requests": 65}, "at most max_queue, 64"),
        ({"min_replicas": 3, "max_replicas": 2}, "autoscaling is not valid"),
        ({"autoscaling": {"upscale_delay_s": -1}}, "autoscaling is not valid"),
    ):
        with pytest.raises(ConfigError, match=words):
            segrt.ray.app(**arguments)
    with pytest.raises(ConfigError, match="there is no setting 'maxBatch': use max_body"):
        from_config({"settings": {"maxBatch": 4}})
    assert from_config({"max_replicas": 2, "settings": {"max_batch": 4}})


def test_the_token_may_be_in_the_environment_of_the_replicas(
    isolated: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    from segrt.ray.service import _build
    from segrt.serve.settings import Settings

    monkeypatch.setenv("SEGRT_TOKEN", "s3cret")
    with TestClient(_build(Settings(), {"model_dir": model, "device": "cpu"})) as client:
        assert client.get("/info").status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        assert client.get("/info", headers=headers).status_code == 200
    monkeypatch.setenv("SEGRT_TOKEN", "")
    with pytest.raises(ConfigError, match="the token is not valid"):
        _build(Settings(), {"model_dir": model, "device": "cpu"})
