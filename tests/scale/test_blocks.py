"""What an actor does, without Ray: Parquet, tars, batches, and blocks that are repeated."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

pa = pytest.importorskip("pyarrow", reason="needs segrt[ray]: run make scale-test")
pytest.importorskip("fsspec", reason="needs segrt[ray]: run make scale-test")
from pyarrow import parquet  # noqa: E402

from segrt.ray import shards  # noqa: E402
from segrt.ray.inputs import blocks  # noqa: E402
from segrt.ray.job import BlockWriter  # noqa: E402
from segrt.ray.segmenter import Segmenter  # noqa: E402
from segrt.ray.stores import Folder  # noqa: E402

pytestmark = pytest.mark.scale


def picture(channel: int) -> bytes:
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., channel] = 250
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_colour_model(tmp_path / "colours.onnx")


def test_sources_and_repeated_blocks(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for channel in range(3):
        (source / f"{channel}.png").write_bytes(picture(channel))
    images = pa.table({"path": [picture(0), b"broken", picture(2)]})
    parquet.write_table(images, source / "images.parquet", row_group_size=2)
    with tarfile.open(source / "photos.tar", "w") as tar:
        for name, content in {"a.png": picture(1), "a.json": b"{}", "b.png": b"no"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (source / "torn.tar").write_bytes((source / "photos.tar").read_bytes()[:700])
    listed = tmp_path / "list.parquet"
    parquet.write_table(
        pa.table({"path": [str(source / "0.png"), str(tmp_path / "missing.png")]}), listed
    )
    known: set[str] = set()
    found = list(
        blocks([source, listed], size=2, column="path", members="*", skip="/none/", known=known)
    )
    kinds = sorted((block.kind, len(block.inputs)) for block in found)
    assert kinds == [("files", 2), ("files", 2), ("rows", 1), ("rows", 1), ("tar", 1), ("tar", 1)]
    plan = {f"00000-{number:07}": block for number, block in enumerate(found)}

    out = Folder(tmp_path / "out")
    kwargs = {"model_dir": model, "device": "cpu"}
    writer = BlockWriter(str(tmp_path), out.url, {}, kwargs, careful=False)
    counts = writer(shards.to_table(plan)).to_pylist()
    first = {
        row.input: (row.error, data)
        for name in plan
        for row, data in shards.read(out, f"results/{name}")
    }
    assert sum(row["done"] + row["failed"] for row in counts) == len(first)
    errors = {name.removeprefix(f"{tmp_path}/") for name, (error, _) in first.items() if error}
    assert {"missing.png", "in/images.parquet#1", "in/photos.tar/b.png"} <= errors
    good = {"in/photos.tar/a.png": 1, "in/images.parquet#2": 2, "in/0.png": 0}
    for name, label in good.items():
        error, data = first[f"{tmp_path}/{name}"]
        assert error is None
        assert data
        assert (np.asarray(Image.open(io.BytesIO(data))) == label).all()

    again = BlockWriter(str(tmp_path), out.url, {}, kwargs, careful=True)
    assert again(shards.to_table(plan)).to_pylist() == counts
    second = {
        row.input: (row.error, data)
        for name in plan
        for row, data in shards.read(out, f"results/{name}")
    }
    assert second == first


def test_batches_of_arrays(model: Path) -> None:
    segmenter = Segmenter(image="image", model_dir=model, device="cpu")
    image = np.zeros((2, 32, 48, 3), np.uint8)
    image[0, ..., 0] = image[1, ..., 2] = 250
    made = segmenter({"path": np.array(["a", "b"]), "image": image})
    rows = made.select(["input", "error"]).to_pylist()
    assert rows == [{"input": "a", "error": None}, {"input": "b", "error": None}]
    for data, label in zip(made["labels"].to_pylist(), (0, 2), strict=True):
        assert (np.asarray(Image.open(io.BytesIO(data))) == label).all()


def test_images_in_parquet_and_tars_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = picture(0), picture(0) + bytes(1000)
    monkeypatch.setattr("segrt.ray.inputs.MAX_MEMBER", len(small))
    parquet.write_table(pa.table({"path": [large, small]}), tmp_path / "images.parquet")
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name, content in {"a.png": large, "b.png": small}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = blocks(tmp_path, size=2, column="path", members="*", skip="/none/", known=set())
    read = [image for block in found for _, image in block.read()]
    assert [str(image) for image in read[::2]] == [f"it has more than {len(small):,} bytes"] * 2
    assert read[1::2] == [small] * 2
