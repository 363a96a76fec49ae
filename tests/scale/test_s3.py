"""Inputs and results in a local S3."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from conftest import write_colour_model

pytest.importorskip("s3fs", reason="needs s3fs: run make scale-test")
server = pytest.importorskip("moto.server", reason="needs moto: run make scale-test")

import fsspec  # noqa: E402

from segrt.ray import shards  # noqa: E402
from segrt.ray.inputs import blocks  # noqa: E402
from segrt.ray.job import BlockWriter  # noqa: E402
from segrt.ray.stores import Folder  # noqa: E402

pytestmark = pytest.mark.scale


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").mkdir("photos")
    yield
    running.stop()


def test_s3(bucket: None, tmp_path: Path) -> None:
    from PIL import Image

    model = write_colour_model(tmp_path / "colours.onnx")
    Image.new("RGB", (64, 48), (0, 250, 0)).save(tmp_path / "a.png")
    store = fsspec.filesystem("s3")
    store.put_file(str(tmp_path / "a.png"), "photos/in/a.png")
    store.pipe_file("photos/in/b.png", b"broken")
    out = Folder("s3://photos/in/out")
    settings = {"model": "colours"}
    plan = shards.Plan(out, settings)
    source = ["s3://photos/in/", "s3://photos/none.png"]
    plan.add(blocks(source, size=2, column="path", members="*", skip=f"{out.url}/", known=set()))
    assert len(plan.blocks) == 2
    writer = BlockWriter(".", out.url, settings, {"model_dir": model, "device": "cpu"}, False)
    writer(shards.to_table(plan.blocks))
    again = shards.Plan(Folder(out.url), settings)
    assert again.blocks == plan.blocks
    assert again.done() == set(plan.blocks)
    rows = {row.input: row.error for name in again.done() for row in shards.rows(out, name)}
    assert rows["s3://photos/in/a.png"] is None
    assert "b.png" in str(rows["s3://photos/in/b.png"])
    assert rows["s3://photos/none.png"] == "s3://photos/none.png: it does not exist"
    assert shards.unpack(out.url, tmp_path / "pictures") == 1
