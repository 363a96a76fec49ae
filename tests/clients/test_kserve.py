"""Triton's client against `segrt serve --kserve`: part of `make clients-test`."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import live
import numpy as np
import pytest
from PIL import Image

import segrt

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

pytestmark = pytest.mark.clients

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "kserve" / "client.py"
MODEL = "PP-LiteSeg-T_camvid"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live.server("--kserve") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(address.removeprefix("http://"), network_timeout=300)
    yield client
    client.close()


def _input(files: list[bytes], *, binary: bool) -> Any:
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    data = files if binary else [base64.b64encode(file) for file in files]
    tensor.set_data_from_numpy(np.array(data, object), binary_data=binary)
    return tensor


def test_labels_of_40_photos(client: Any, camvid: Path) -> None:
    photos = sorted((camvid / "images").iterdir())[:40]
    assert len(photos) == 40
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    files = [photo.read_bytes() for photo in photos]
    # A size that is frequent gets a session of its own, which may round otherwise, and where two
    # classes are equal to the last bit, a pixel changes then. So both have seen the size before.
    for _ in range(2):
        expected = np.stack([result.labels for result in pipeline.predict(photos)])
    for file in files[:16]:
        client.infer(MODEL, [_input([file], binary=True)])
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("labels", binary_data=binary)]
        for file, labels in zip(files, expected, strict=True):
            answer = client.infer(MODEL, [_input([file], binary=binary)], outputs=outputs)
            np.testing.assert_array_equal(answer.as_numpy("labels"), labels[None])
    answer = client.infer(MODEL, [_input(files, binary=True)], request_compression_algorithm="gzip")
    together = answer.as_numpy("labels")
    assert (together.dtype, together.shape) == (np.int32, expected.shape)
    assert (together != expected).mean() < 1e-5  # batches round otherwise, too


def test_health_metadata_and_errors(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL, "1")
    assert client.get_server_metadata()["name"] == "segrt"
    (tensor,) = client.get_model_metadata(MODEL)["inputs"]
    assert (tensor["name"], tensor["datatype"]) == ("image", "BYTES")
    numbers = triton.InferInput("image", [2], "INT32")
    numbers.set_data_from_numpy(np.zeros(2, np.int32))
    short = _input([b"x"], binary=True)
    short.set_shape([2])
    for status, model, version, wrong in (
        ("404", "other", "", short),
        ("404", MODEL, "2", short),
        ("400", MODEL, "", numbers),
        ("400", MODEL, "", short),
        ("400", MODEL, "", _input([b"x"], binary=True)),
    ):
        with pytest.raises(triton.InferenceServerException) as raised:
            client.infer(model, [wrong], model_version=version)
        assert raised.value.status() == status
        assert raised.value.message().endswith(".")


def test_example(address: str, tmp_path: Path) -> None:
    sample, target = Path(segrt.__file__).with_name("models") / "sample.png", tmp_path / "a.png"
    command = [sys.executable, str(CLIENT), str(sample), str(target), address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {"image": sample.read_bytes()}
    data = {"labelFormat": "png", "visualize": "false"}
    answer = httpx.post(f"{address}/semantic-segmentation", files=files, data=data, timeout=60)
    png = base64.b64decode(answer.json()["result"]["labelMap"])
    (tmp_path / "b.png").write_bytes(png)
    np.testing.assert_array_equal(
        np.asarray(Image.open(target)), np.asarray(Image.open(tmp_path / "b.png"))
    )
