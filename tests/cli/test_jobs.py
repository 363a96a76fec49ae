from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import write_colour_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import segrt
from segrt import manifest
from segrt.cli.jobs import Job, JobOptions
from segrt.errors import ConfigError, InputError
from segrt.manifest import Row
from segrt.pipeline import Pipeline
from segrt.reading import Reading


def _photo(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 255, (4, 6, 3), np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Pipeline:
    return segrt.create_pipeline(model_dir=str(model), device="cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Photos, two of one name, a broken one, and a TIFF of 7 frames: 11 rows."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "more").mkdir()
    for number, name in enumerate(("a.png", "more/a.png", "b.png")):
        _photo(number).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    frames = np.stack([np.asarray(_photo(10 + number)) for number in range(7)])
    tifffile.imwrite(folder / "doc.tif", frames, photometric="rgb")
    return [str(folder / name) for name in ("a.png", "bad.png", "doc.tif", "b.png", "more/a.png")]


def _run(
    pipeline: Pipeline,
    inputs: list[str],
    out: Path,
    *,
    stop: int | None = None,
    file: str = "m.jsonl",
    **options: object,
) -> list[tuple[str | None, int | None]]:
    """Do a job, or the part of it before the result number `stop`; returns what was segmented."""
    asked = JobOptions(manifest=out / file, **options)  # type: ignore[arg-type]
    ran = []
    with Job(inputs, {"model": "colours"}, asked, out) as job:
        for result in islice(pipeline.predict(job.todo.frames(Reading()), on_error="yield"), stop):
            ran.append((result.input_path, result.page_index))
            files = [] if isinstance(result, segrt.SegFailure) else [result.save_to_json(out)]
            job.record(Row.of(result, [file.name for file in files]))
        if stop is None:
            job.finish()
    return ran


def _rows(file: Path) -> dict[tuple[str, int | None], Row]:
    rows = [*manifest.read(file)[1]]
    found = {row.key: row for row in rows}
    assert len(found) == len(rows)
    return found


def _results(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("*_res.*")}


def _timeless(row: Row) -> dict[str, object]:
    return row.to_dict() | {"milliseconds": None}


@pytest.fixture(scope="module")
def whole(pipeline: Pipeline, inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that was not interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert len(_run(pipeline, inputs, out)) == 11
    return out


def _same(out: Path, whole: Path) -> None:
    rows, expected = _rows(out / "m.jsonl"), _rows(whole / "m.jsonl")
    assert {key: _timeless(row) for key, row in rows.items()} == {
        key: _timeless(row) for key, row in expected.items()
    }
    assert _results(out) == _results(whole)


def test_a_job_gives_the_results_of_a_plain_call(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    for result in pipeline.predict(inputs, on_error="skip"):
        assert isinstance(result, segrt.SegResult)
        result.save_to_json(tmp_path)
    assert _results(whole) == _results(tmp_path)
    rows = _rows(whole / "m.jsonl")
    assert rows[inputs[4], None].outputs == ["a_2_res.json"]
    assert "is not an image" in (rows[inputs[1], None].error or "")
    assert [rows[inputs[2], page].last for page in range(7)] == [False] * 6 + [True]


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1), lost=st.integers(0, 3))
def test_any_prefix_of_a_journal_resumes_to_the_full_set(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path, share: float, lost: int
) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out)
    content = (whole / "m.jsonl").read_bytes()
    content = content[: round(share * len(content))]
    (out / "m.jsonl").write_bytes(content)
    for name in sorted(_results(out))[:lost]:
        (out / name).unlink()
    ran = _run(pipeline, inputs, out, resume=True)
    whole_rows = max(0, content.count(b"\n") - 1)
    assert 11 - whole_rows <= len(ran) <= 11 - whole_rows + lost
    _same(out, whole)
    assert not _run(pipeline, inputs, out, resume=True)


def test_a_document_goes_on_with_its_next_page(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    _run(pipeline, inputs, tmp_path, stop=6)  # a.png, bad.png, and frames 0 to 3
    assert len(_rows(tmp_path / "m.jsonl")) == 5  # frame 3 may be the last one
    ran = _run(pipeline, inputs, tmp_path, stop=2, resume=True)
    assert ran == [(inputs[2], 3), (inputs[2], 4)]
    assert len(_run(pipeline, inputs, tmp_path, resume=True)) == 5
    _same(tmp_path, whole)


def test_a_page_that_is_lost_is_done_again_even_after_another_kill(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    _run(pipeline, inputs, tmp_path)
    (tmp_path / "doc_2_res.json").unlink()
    assert not _run(pipeline, inputs, tmp_path, stop=0, resume=True)
    assert _run(pipeline, inputs, tmp_path, resume=True) == [(inputs[2], 2)]
    assert _results(tmp_path) == _results(whole)
    assert len(_rows(tmp_path / "m.jsonl")) == 11


def test_what_failed_is_done_again_only_on_request(
    pipeline: Pipeline, inputs: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "in.png"
    broken.write_bytes(b"no image")
    job = [*inputs, str(broken)]
    _run(pipeline, job, tmp_path)
    _photo(1).save(broken)
    assert not _run(pipeline, job, tmp_path, resume=True)
    ran = _run(pipeline, job, tmp_path, resume=True, retry_failed=True)
    assert ran == [(inputs[1], None), (str(broken), None)]
    rows = _rows(tmp_path / "m.jsonl")
    assert len(rows) == 12
    assert rows[str(broken), None].outputs == ["in_res.json"]


def test_new_inputs_never_get_the_name_of_an_earlier_one(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    _run(pipeline, inputs, tmp_path)
    for name in ("new/a.png", "new/doc_3.png", "new/doc.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _photo(7).save(tmp_path / name)
    new = [str(tmp_path / "new" / name) for name in ("a.png", "doc_3.png", "doc.png")]
    assert len(_run(pipeline, [*new, *inputs], tmp_path, resume=True)) == 3
    assert _results(whole).items() <= _results(tmp_path).items()
    outputs = [name for row in _rows(tmp_path / "m.jsonl").values() for name in row.outputs]
    assert len(outputs) == len(set(outputs)) == 13


def test_shards_save_to_one_folder(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    for number in (2, 3, 1):
        _run(pipeline, inputs, tmp_path, file=f"{number}.jsonl", shard=f"{number}/3")
    assert _results(tmp_path) == _results(whole)
    rows = [_rows(tmp_path / f"{number}.jsonl") for number in (1, 2, 3)]
    assert sum(map(len, rows)) == 11
    assert {key for part in rows for key in part} == _rows(whole / "m.jsonl").keys()
    with pytest.raises(ConfigError, match="the shards in this folder were begun with inputs 5 "):
        _run(pipeline, inputs[1:], tmp_path, file="4.jsonl", shard="1/3")
    with pytest.raises(ConfigError, match="begun with shards 3, but this call has shards 2"):
        _run(pipeline, inputs, tmp_path, file="4.jsonl", shard="1/2")
    with pytest.raises(ConfigError, match="begun with shard 1, but this call has shard 2"):
        _run(pipeline, inputs, tmp_path, file="1.jsonl", shard="2/3", resume=True)


def test_what_is_refused(
    pipeline: Pipeline, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(pipeline, inputs, tmp_path)
    file = tmp_path / "m.jsonl"
    before = file.read_bytes()
    with pytest.raises(InputError, match="exists: --resume goes on with it"):
        _run(pipeline, inputs, tmp_path)
    asked = JobOptions(manifest=file, resume=True)
    with pytest.raises(ConfigError, match="with model colours, but this call has model other"):
        Job(inputs, {"model": "other"}, asked, tmp_path)
    with pytest.raises(ConfigError, match=r"with save_path \., but this call has save_path other"):
        Job(inputs, {"model": "colours"}, asked, tmp_path / "other")
    with (
        Job(inputs, {"model": "colours"}, asked, tmp_path),
        pytest.raises(InputError, match="another process is writing the manifest"),
    ):
        Job(inputs, {"model": "colours"}, asked, tmp_path)
    assert file.read_bytes() == before
    for content in (b"id,name\n1,2\n", b"PAR1"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is not a manifest of segrt"):
            _run(pipeline, inputs, tmp_path, resume=True)
        assert file.read_bytes() == content
    with pytest.raises(ConfigError, match=r"ends in \.jsonl or \.parquet"):
        _run(pipeline, inputs, tmp_path, file="m.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        _run(pipeline, inputs, tmp_path, file="folder.jsonl", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (JobOptions(resume=True), "--resume needs --manifest"),
        (JobOptions(manifest=Path("m.jsonl"), retry_failed=True), "needs --resume"),
        (JobOptions(shard="0/3"), "--shard '0/3' is not valid"),
    ],
)
def test_options_that_need_another(options: JobOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = options.part


def test_jobs_are_for_images_and_folders() -> None:
    options = JobOptions(manifest=Path("m.jsonl"))
    with pytest.raises(InputError, match=r"a\.mp4 is a video"):
        options.check(["a.mp4"], None)
    with pytest.raises(ConfigError, match="one file: use a folder"):
        options.check([], Path("x.png"))
    JobOptions().check(["a.mp4"], Path("x.mp4"))


def test_rows_are_whole_when_the_system_writes_parts(
    pipeline: Pipeline,
    inputs: list[str],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:50]))
    _run(pipeline, inputs, tmp_path)
    _same(tmp_path, whole)


def test_a_manifest_in_parquet_is_resumed(
    pipeline: Pipeline, inputs: list[str], whole: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    file, lines = tmp_path / "m.parquet", tmp_path / "m.parquet.jsonl"
    _run(pipeline, inputs, tmp_path, stop=6, file=file.name)
    assert lines.exists()
    assert not file.exists()
    with pytest.raises(InputError, match="exists"):
        _run(pipeline, inputs, tmp_path, file=file.name)
    _run(pipeline, inputs, tmp_path, file=file.name, resume=True)
    assert not lines.exists()
    expected = {key: _timeless(row) for key, row in _rows(whole / "m.jsonl").items()}
    assert {key: _timeless(row) for key, row in _rows(file).items()} == expected
    (tmp_path / "b_res.json").unlink()
    assert not _run(pipeline, inputs, tmp_path, stop=0, file=file.name, resume=True)
    assert lines.exists()
    ran = _run(pipeline, inputs, tmp_path, file=file.name, resume=True)
    assert ran == [(inputs[3], None)]
    assert {key: _timeless(row) for key, row in _rows(file).items()} == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(80):
        _photo(number).save(tmp_path / "in" / f"{number:02}.png")
    return tmp_path


def test_a_command_that_is_killed_at_random_moments(
    folder: Path, model: Path, pipeline: Pipeline
) -> None:
    chance = random.Random(19)
    options = ["--model_dir", model, "--device", "cpu", "--label-format", "png"]
    options += ["--save-path", "out", "--manifest", "out/m.jsonl", "--resume"]
    command = [sys.executable, "-m", "segrt", "predict", "in/*.png", *map(str, options)]
    file = folder / "out" / "m.jsonl"
    for sent, least in ((signal.SIGKILL, 5), (signal.SIGINT, 30)):
        job = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not file.exists() or file.read_bytes().count(b"\n") <= least:
            assert job.poll() is None
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        job.send_signal(sent)
        _, said = job.communicate(timeout=60)
        if sent == signal.SIGINT and job.returncode:  # else it was done before the signal came
            assert job.returncode == 130
            done = file.read_bytes().count(b"\n") - 1
            assert f"interrupted: {done} of 80 inputs are done; the same command with" in said
    last = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "of 80 inputs before" in last.stderr
    rows = _rows(file)
    assert sorted(name for name, _ in rows) == [f"in/{number:02}.png" for number in range(80)]
    for number in range(80):
        [result] = pipeline.predict(folder / "in" / f"{number:02}.png")
        assert isinstance(result, segrt.SegResult)
        result.save_to_img(folder / "plain")
    pictures = {name: data for name, data in _results(folder / "out").items() if "png" in name}
    assert pictures == _results(folder / "plain")
