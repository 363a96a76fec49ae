"""Jobs on a cluster of one node: sources, broken files, resuming, actors and drivers that die."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_colour_model
from PIL import Image

import segrt
from segrt import manifest

pytestmark = pytest.mark.scale

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def picture(number: int) -> bytes:
    """A PNG whose labels are those of no other number below 27."""
    image = np.zeros((32, 96, 3), np.uint8)
    for third in range(3):
        image[:, 32 * third : 32 * third + 32] = COLOURS[number // 3**third % 3]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def labels(number: int) -> list[int]:
    """The labels of `picture`, one for each third."""
    return [number // 3**third % 3 for third in range(3)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_colour_model(tmp_path / "colours.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:02}.png").write_bytes(picture(number))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return folder


def results(out: Path) -> dict[str, tuple[manifest.Row, bytes | None]]:
    """The rows by the name of the input, each of which must be there once."""
    from segrt.ray import shards
    from segrt.ray.stores import Folder

    folder = Folder(out)
    found = [
        row
        for name in folder.names("results")
        for row in shards.read(folder, f"results/{name.removesuffix('.parquet')}")
    ]
    assert len({row.key for row, _ in found}) == len(found)
    return {Path(row.input).name: (row, data) for row, data in found}


def check(found: dict[str, tuple[manifest.Row, bytes | None]], numbers: range) -> None:
    assert set(found) == {f"{number:02}.png" for number in numbers} | {"broken.png"}
    for number in numbers:
        row, data = found[f"{number:02}.png"]
        assert row.error is None
        assert data
        label = np.asarray(Image.open(io.BytesIO(data)))
        assert label.shape == (32, 96)
        assert label[::31, 16::32].tolist() == [labels(number)] * 2
    row, data = found["broken.png"]
    assert data is None
    assert row.error
    assert "broken.png" in row.error


def test_folder_then_more_files(
    cluster: None, photos: Path, model: Path, tmp_path: Path
) -> None:
    from segrt.ray import segment

    out = tmp_path / "out"
    pictures = tmp_path / "pictures"
    job = segment(photos, out, model=model, block=4, pictures=pictures)
    assert (job.done, job.failed, job.before, job.blocks) == (24, 1, 0, 7)
    check(results(out), range(24))
    assert len(list(pictures.iterdir())) == 24
    assert np.asarray(Image.open(pictures / "05_res.png"))[0, 16::32].tolist() == labels(5)

    (photos / "24.png").write_bytes(picture(24))
    times = {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    job = segment(photos, out, model=model, block=4)
    assert (job.done, job.failed, job.before, job.blocks) == (1, 0, 7, 8)
    check(results(out), range(25))
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())

    (photos / "broken.png").write_bytes(picture(0))
    segment(photos, out, model=model, block=4, retry_failed=True)
    assert all(row.error is None for row, _ in results(out).values())
    assert len(results(out)) == 26
    with pytest.raises(segrt.ConfigError, match="begun with"):
        segment(photos, out, model=model, target_size=64)
    with pytest.raises(segrt.InputError, match="holds a job"):
        segment(photos, out, model=model, resume=False)
