"""The server in a separate process (shutdown), and fuzzed with invalid bodies."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from conftest import write_colour_model
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from serve.conftest import PATH, b64, png
from starlette.testclient import TestClient

from segrt import ConfigError, create_pipeline
from segrt.serve.app import create_app
from segrt.serve.server import bind
from segrt.serve.settings import Settings

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_under_load_loses_nothing(colour_model: Path) -> None:
    command = [sys.executable, "-m", "segrt", "serve", "--port", "0"]
    command += ["--model-dir", str(colour_model)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    output = ""
    while not (found := re.search(r"at\s+(http://[\d.]+:\d+)", output)):
        line = server.stderr.readline()
        assert line, output
        output += line
    log: list[str] = []
    reader = Thread(target=log.extend, args=(server.stderr,))
    reader.start()
    data, stopping = png(IMAGE), [False]
    done: list[list[int]] = []

    def post() -> None:
        while True:
            try:
                answer = client.post(PATH, content=data, params={"labelFormat": "png"})
            except (httpx.ConnectError, httpx.ReadError):
                # It no longer accepts connections, or the system reset one not yet accepted.
                assert stopping[0]
                return
            assert answer.status_code == 200, answer.text
            done.append(answer.json()["result"]["size"])

    # Without keep-alive: closing an idle connection is allowed, and would look like a lost request.
    alone = httpx.Limits(max_keepalive_connections=0)
    headers = {"Content-Type": "image/png"}
    with (
        httpx.Client(base_url=found[1], limits=alone, headers=headers, timeout=30) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        clients = [pool.submit(post) for _ in range(8)]
        while len(done) < 40 and not any(one.done() for one in clients):
            time.sleep(0.01)
        stopping[0] = True
        server.send_signal(signal.SIGTERM)
        for one in clients:
            one.result()
    assert server.wait(20) == 0
    reader.join()
    server.stderr.close()
    # Every request the server received was answered, and the response arrived.
    received = " ".join("".join(log).split()).split("POST ")[1:]
    assert len(received) == len(done) >= 40
    assert all(line.startswith(f"{PATH} 200") for line in received)
    assert done == [[48, 64]] * len(done)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999, 1 << 40])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {port} is not valid: it must be from 0 to 65535"):
        bind("127.0.0.1", port)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = write_colour_model(tmp_path_factory.mktemp("fuzz") / "colours.onnx")
    app = create_app(
        create_pipeline(model_dir=file, device="cpu"),
        Settings(max_pixels=1 << 16, max_body=1 << 20),
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _mutated(body: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or cut off some bytes."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 30)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 30)]
        elif kind == 3:
            data[at:at] = rng.choice(
                [b'"', b"{", b"}", b"[", b"null", b"-1", b"1e999", b"\0", b"\xff\xfe", b"9" * 40]
            )
        else:
            del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def test_mutated_bodies_are_client_errors(fuzzed: TestClient) -> None:
    rng = random.Random(0)
    picture = png(IMAGE[:16, :16])
    json_body = (
        f'{{"image": "{b64(picture)}", "targetSize": [32, 32], "visualize": false, '
        '"labelFormat": "rle"}'
    ).encode()
    form = fuzzed.build_request(
        "POST", PATH, files={"image": ("a.png", picture)}, data={"targetSize": "32"}
    )
    seeds = [
        (json_body, {"Content-Type": "application/json"}),
        (picture, {"Content-Type": "image/png"}),
        (form.read(), {"Content-Type": form.headers["content-type"]}),
    ]
    seen: dict[int, int] = {}
    for turn in range(2000):
        body, headers = seeds[turn % 3]
        answer = fuzzed.post(PATH, content=_mutated(body, rng), headers=headers)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert answer.json().keys() == {"logId", "errorCode", "errorMsg"}
    failed = sum(count for status, count in seen.items() if status >= 400)
    assert failed > 1000  # most mutations break the body


def test_the_server_conforms_to_its_openapi_document(colour_model: Path) -> None:
    app = create_app(
        create_pipeline(model_dir=colour_model, device="cpu"), Settings(max_pixels=1 << 16)
    )
    api = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = 0
    for result in api.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        operations += 1

        @settings(
            max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            # A schema can't express that base64 text must contain an image.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        check()
    assert operations >= 4
