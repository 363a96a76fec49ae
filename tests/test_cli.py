from __future__ import annotations

import io
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from clips import write_clip
from PIL import Image
from rich.console import Console

import segrt
from segrt import cli, video
from segrt.cli import console
from segrt.coco import CocoFile
from segrt.palette import distinct_palette

Save = Callable[[str, npt.NDArray[np.uint8]], Path]
Words = list[str | Path]
"""Arguments of a command."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # where results are saved by default
    log = logging.getLogger("segrt")
    before = log.level
    yield
    log.setLevel(before)


def _segrt(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segrt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _inside(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As `_segrt`, in this process, where a command takes a tenth of the time."""
    argv, outputs = ["segrt", *map(str, arguments)], (io.StringIO(), io.StringIO())
    with (
        patch.object(sys, "argv", argv),
        redirect_stdout(outputs[0]),
        redirect_stderr(outputs[1]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(argv, code, *(text.getvalue() for text in outputs))


def _piped(content: bytes, *arguments: str | Path) -> tuple[int, bytes, str]:
    """As `_inside`, with bytes on standard input and output; returns status, output and errors."""
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with (
        patch.object(sys, "argv", ["segrt", *map(str, arguments)]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(content))),
        redirect_stdout(output),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    output.flush()
    assert isinstance(output.buffer, io.BytesIO)
    assert isinstance(ended.value.code, int)
    return ended.value.code, output.buffer.getvalue(), errors.getvalue()


def _says(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_the_paddlex_form(save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    photo, out = save_image("photo.png", tiles), tmp_path / "out"
    form = f"--pipeline semantic_segmentation --input {photo} --target_size -1 --save_path {out}"
    form += " --device cpu"
    done = _segrt(*form.split())
    _says(done, 0, "1 segmented, 0 failed", "PP-LiteSeg-T_camvid on CPUExecutionProvider fp32")
    assert sorted(p.name for p in out.iterdir()) == ["photo_res.json", "photo_res.png"]
    assert (
        done.stdout
        == f"{{'res': {{'input_path': '{photo}', 'page_index': None, 'pred': '...'}}}}\n"
    )
    saved = json.loads((out / "photo_res.json").read_text())
    assert np.array_equal(np.array(saved["pred"])[0], np.asarray(Image.open(out / "photo_res.png")))


def test_the_paddlex_form_saves_nothing_by_itself(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    form = ["--pipeline", "semantic_segmentation", "--input", str(photo)]
    done = _segrt(*form, "--model_dir", colour_model)
    _says(done, 0, "1 segmented, 0 failed")
    assert done.stdout.startswith("{'res': ")
    assert not [*Path().iterdir()]


def test_predict_saves_to_output_and_prints_the_shares(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    done = _segrt("predict", photo, "--model_dir", colour_model)
    _says(done, 0, "1 segmented, 0 failed", "results in output")
    assert sorted(p.name for p in Path("output").iterdir()) == [
        "photo_overlay.png",
        "photo_res.json",
        "photo_res.png",
    ]
    (result,) = segrt.create_pipeline(model_dir=colour_model, device="cpu").predict(photo)
    assert isinstance(result, segrt.SegResult)
    name, share = next(iter(result.areas().items()))
    assert done.stdout.startswith(f"{photo}: {name} {share:.1%}")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_demo(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = _segrt("demo")
    _says(done, 0, "segrt-demo/sample_overlay.png", "Next:", "segrt predict YOUR_PHOTO.jpg")
    assert done.stdout.startswith("Road ")
    assert ("█" in done.stdout) == (encoding == "utf-8")
    assert "\\u" not in done.stdout
    assert sorted(p.name for p in Path("segrt-demo").iterdir()) == [
        "sample.png",
        "sample_overlay.png",
        "sample_res.json",
        "sample_res.png",
    ]


def test_predict_does_what_it_can_and_counts(
    save_image: Save, tiles: npt.NDArray[np.uint8], tmp_path: Path, colour_model: Path
) -> None:
    good = save_image("good.png", tiles)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    inputs = [
        tmp_path / "gone.png",
        good,
        tmp_path / "text.png",
        tmp_path / "zero.jpg",
        tmp_path / "empty",
    ]
    done = _segrt(
        "predict",
        *inputs,
        "--model_dir",
        colour_model,
        "--save_path",
        tmp_path / "out",
        "--overlay",
    )
    _says(
        done,
        1,
        "1 segmented, 4 failed",
        "gone.png does not exist",
        "text.png is not an image",
        "zero.jpg is empty",
    )
    assert "holds no image" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "good_overlay.png",
        "good_res.json",
        "good_res.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["predict", "a.png", "--model", "PP-LiteSeg-X"], 1, "unknown model 'PP-LiteSeg-X'"),
        (["predict", "a.png", "--device", "tpu:0"], 1, "unknown device 'tpu:0'"),
        (["predict", "a.png", "--device", "npu:0"], 1, "npu:0"),
        (["predict", "a.png", "--target_size", "huge"], 2, "target_size 'huge' is not valid"),
        (["--pipeline", "ocr", "--input", "a.png"], 2, "unknown pipeline 'ocr'"),
        (["--pipeline", "semantic_segmentation"], 2, "--pipeline needs --input"),
        (["predict"], 2, "predict needs an input"),
        (["predict", "a.png", "--nonsense"], 2, "Unknown option"),
        (["predict", "a.png", "--device", "xpu"], 1, "Kunlun"),
        (["predict", "a.png", "--device", "npu:0,1"], 1, "npu:0"),
        (["predict", "a.png", "--workers", "0"], 2, "workers"),
        (["predict", "a.png", "--mode", "quick"], 2, "unknown mode 'quick'"),
        (
            ["predict", "a.png", "--use_hpip", "--hpi_config", '{"backnd": 1}'],
            2,
            "did you mean 'backend'",
        ),
        (["predict", "a.png", "--hpi_config", '{"threads": 1}'], 2, "says nothing in normal mode"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], status: int, words: str) -> None:
    done = _inside(*arguments)
    _says(done, status, words)


@pytest.mark.parametrize("text", ["-1", "64", "(64,96)", "[64,96]", "64,96", "None"])
def test_every_spelling_of_target_size(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, text: str
) -> None:
    done = _inside(
        "predict", save_image("a.png", tiles), "--model_dir", colour_model, "--target_size", text
    )
    _says(done, 0, "1 segmented")


def test_high_performance_in_both_forms(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo, hpi = save_image("a.png", tiles), '{"backend": "cpu", "threads": 1}'
    form: list[str | Path] = [
        "--pipeline",
        "semantic_segmentation",
        "--input",
        photo,
        "--use_hpip",
        "--hpi_config",
        hpi,
    ]
    _says(_inside(*form), 0, "CPUExecutionProvider fp32")
    mode: list[str | Path] = [
        "predict",
        photo,
        "--model_dir",
        colour_model,
        "--mode",
        "high-performance",
        "--hpi_config",
        hpi,
    ]
    _says(_inside(*mode), 0, "CPUExecutionProvider fp32")


def test_doctor_says_what_would_run() -> None:
    done = _segrt("doctor")
    assert done.returncode == 0
    assert "normal mode would run" in done.stdout
    assert "high-performance mode would run" in done.stdout


def test_help_and_version() -> None:
    assert "predict" in _segrt("--help").stdout
    assert _segrt("--version").stdout.startswith("0.")
    assert _segrt().returncode == 2


def test_models_shows_the_licence_of_the_weights() -> None:
    done = _inside("models")
    assert done.returncode == 0
    assert "PP-LiteSeg-T_camvid" in done.stdout
    assert "CC BY-NC 4.0" in done.stdout


def test_lists_as_json_have_one_object_a_line() -> None:
    lines = [json.loads(line) for line in _inside("models", "--json").stdout.splitlines()]
    assert len(lines) == 19
    (bundled,) = [line for line in lines if line["available"] == "bundled"]
    assert (bundled["model"], bundled["dataset"]) == ("PP-LiteSeg-T_camvid", "camvid")
    done = _inside("doctor", "--json")
    assert json.loads(done.stdout)["can_run"] == (done.returncode == 0)


def test_predict_prints_the_rows_of_a_manifest_as_json(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    photo, broken = save_image("photo.png", tiles), tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    common = "--model_dir", colour_model, "--save_path", tmp_path / "out"
    done = _inside("predict", photo, broken, *common, "--json")
    _says(done, 1, "1 segmented, 1 failed", "broken.png")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["input"], bool(row["error"])) for row in rows] == [
        (str(photo), False),
        (str(broken), True),
    ]
    assert rows[0]["outputs"] == ["photo_res.png", "photo_res.json"]
    assert sum(rows[0]["shares"].values()) == pytest.approx(1)
    assert (rows[0]["height"], rows[0]["width"]) == tiles.shape[:2]


def test_quiet_leaves_errors_and_what_is_asked_for(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    photo = save_image("photo.png", tiles)
    run: Words = ["predict", photo, "--model_dir", colour_model]
    for arguments in (["-q", *run], [*run, "--quiet"]):
        done = _inside(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (Path("output") / "photo_overlay.png").is_file()
    done = _inside(*run, "gone.png", "-q", "--json")
    assert done.stderr == "segrt: gone.png does not exist\n"
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == [
        str(photo),
        "gone.png",
    ]
    form: Words = ["-q", "--pipeline", "semantic_segmentation", "--input", photo]
    done = _inside(*form, "--model_dir", colour_model)
    assert done.stdout.startswith("{'res': ")
    assert done.stderr == ""
    assert "bundled" in _inside("models", "--quiet").stdout
    _says(_inside("predict", photo, "-q", "-v"), 2, "give one of them")


def test_verbose_says_what_runs_and_how_long(
    save_image: Save,
    tiles: npt.NDArray[np.uint8],
    colour_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run: Words = ["predict", save_image("photo.png", tiles), "--model_dir", colour_model]
    _says(_inside(*run), 0)
    assert not caplog.records
    _says(_inside(*run, "-v"), 0, "1 segmented")
    said = "\n".join(record.getMessage() for record in caplog.records)
    height, width = tiles.shape[:2]
    for words in (
        f"model {colour_model}",
        "normal mode, device not named: ",
        "is loaded in",
        f"photo: {height} x {width} at {height} x {width}: preprocessing ",
    ):
        assert words in said


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=True))
    assert ("\x1b" in _inside("predict").stderr) == (not no_color)


def test_an_image_on_standard_input(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    model: Words = ["--model_dir", colour_model]
    content = photo.read_bytes()
    status, output, _ = _piped(content, "predict", "-", *model)
    assert (status, output.startswith(b"stdin: ")) == (0, True)
    assert sorted(path.name for path in Path("output").iterdir()) == [
        "stdin_overlay.png",
        "stdin_res.json",
        "stdin_res.png",
    ]
    assert json.loads(Path("output/stdin_res.json").read_text())["input_path"] == "stdin"
    status, output, said = _piped(content, "predict", photo, "-", *model, "-o", "out", "--json")
    assert [json.loads(row)["input"] for row in output.splitlines()] == [str(photo), "stdin"]
    names = f"{photo}\n{photo.with_name('gone.png')}".encode()
    status, output, said = _piped(names, "predict", "-", *model)
    assert status == 1
    assert "1 segmented, 1 failed" in said
    for option in (["--manifest", "m.jsonl"], ["--shard", "1/2"]):
        status, output, said = _piped(content, "predict", "-", *model, *option)
        assert f"{option[0]} is for files, but standard input is an image" in said
    status, output, said = _piped(content[:100], "predict", "-", *model)
    assert status == 1
    assert "segrt: stdin: " in said


def test_pages_on_standard_input(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    pages = [Image.fromarray(tiles)] * 2
    scan = io.BytesIO()
    pages[0].save(scan, "TIFF", save_all=True, append_images=pages[1:])
    model: Words = ["--model_dir", colour_model]
    assert _piped(scan.getvalue(), "predict", "-", *model, "-o", "out")[0] == 0
    assert {path.name for path in Path("out").iterdir()} >= {"stdin_0_res.png", "stdin_1_res.json"}
    status, output, said = _piped(scan.getvalue(), "predict", "-", *model, "-o", "-")
    assert (status, output) == (1, b"")
    assert "standard output is one file, but stdin has several pages" in said


def test_a_picture_on_standard_output(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    photo = save_image("photo.png", tiles)
    model: Words = ["--model_dir", colour_model]
    for options in ([], ["--overlay"], ["--names"], ["-q"]):
        status, output, said = _piped(
            photo.read_bytes(), "predict", "-", *model, "-o", "-", *options
        )
        assert status == 0
        file = tmp_path / "file.png"
        _says(_inside("predict", photo, *model, "-o", file, *options), 0)
        assert output == file.read_bytes()
        assert bool(said) == (options != ["-q"])
    assert not Path("output").exists()
    refused: list[tuple[Words, str]] = [
        (["--json"], "--json has no place there"),
        (["--label-format", "rle"], "--label-format has no place there"),
        (["--show", "paddlex"], "--show paddlex has no place there"),
        ([photo], "there are 2 inputs"),
        (["--manifest", "m.jsonl"], "--manifest is for many images"),
    ]
    for more, words in refused:
        status, output, said = _piped(b"", "predict", photo, *model, "-o", "-", *more)
        assert (status > 0, output, words in said) == (True, b"", True), said
    clip = write_clip(tmp_path / "a.mp4", 2)
    status, output, said = _piped(b"", "predict", clip, *model, "-o", "-")
    assert (status, output) == (1, b"")
    assert "a.mp4 can't be saved as standard output" in said


def test_a_pipe_that_nobody_reads(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    run: Words = ["predict", save_image("photo.png", tiles), "--model_dir", colour_model, "-o", "-"]
    command = shlex.join([sys.executable, "-m", "segrt", *map(str, run)])
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "segrt: " not in done.stderr


def test_no_clobber(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    photos = [save_image(f"in/{name}", tiles) for name in ("a.png", "b.jpg")]
    pages = [Image.fromarray(tiles)] * 2
    pages[0].save(photos[0].with_name("c.tif"), save_all=True, append_images=pages[1:])
    clip = write_clip(photos[0].with_name("d.mp4"), 2)
    out = tmp_path / "out"
    run: Words = ["predict", photos[0].parent, clip, "--model_dir", colour_model, "-o", out]
    _says(_inside(*run, "--no-clobber"), 0, "5 segmented, 0 failed", f"fp32), results in {out}")
    before = {path: path.stat() for path in out.iterdir()}
    assert len(before) == 2 + 3 + 4 + 1
    _says(_inside(*run, "--no-clobber"), 0, "0 segmented", "5 left as they were")
    assert {path: path.stat() for path in out.iterdir()} == before
    for name in ("b_res.png", "c_1_res.json"):
        (out / name).unlink()
    _says(_inside(*run, "--no-clobber"), 0, "2 segmented", "3 left as they were")
    after = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    changed = {path.name for path in after if after[path] != before[path].st_mtime_ns}
    assert changed == {"b_res.png", "c_1_res.json"}
    _says(_inside(*run, "--overwrite"), 0, "5 segmented")
    assert all(path.stat().st_ino != before[path].st_ino for path in out.iterdir())


def test_no_clobber_with_one_file_and_with_jobs(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    run: Words = ["predict", photo, "--model_dir", colour_model, "--no-clobber"]
    for name, options in {"x.jpg": [], "x.json": [], "y.jpg": ["--overlay"]}.items():
        _says(_inside(*run, "-o", name, *options), 0, "1 segmented")
        _says(_inside(*run, "-o", name, *options), 0, "0 segmented", "1 left as they were")
    assert {path.name for path in Path().iterdir()} == {"x.jpg", "x.png", "x.json", "y.jpg"}
    for part, words in (("1/2", "1 segmented"), ("2/2", "0 segmented"), ("1/2", "1 left as")):
        _says(_inside(*run, "-o", "out", "--shard", part), 0, words)
    for option in (["--manifest", "m.jsonl"], ["--engine", "ray"]):
        _says(_inside(*run, *option), 2, "--no-clobber does not go with " + option[0])
    assert not Path("m.jsonl").exists()


def test_coco(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    photos = [save_image(f"in/{name}", tiles) for name in ("a.png", "deep/b.png")]
    pages = [Image.fromarray(tiles)] * 2
    pages[0].save(tmp_path / "in" / "c.tif", save_all=True, append_images=pages[1:])
    run: Words = [
        "predict",
        tmp_path / "in",
        "gone.png",
        "--model_dir",
        colour_model,
        "--coco",
        "x.json",
    ]
    _says(_inside(*run, "--per-region"), 1, "4 segmented, 1 failed", "COCO data set in x.json")
    assert [path.name for path in Path().iterdir()] == ["x.json"]
    pipeline = segrt.create_pipeline(model_dir=colour_model, device="cpu")
    expected = segrt.to_coco(pipeline.predict(tmp_path / "in"), per_region=True)
    assert json.loads(Path("x.json").read_text()) == expected
    with redirect_stdout(io.StringIO()):
        data = coco.COCO("x.json")
    names = [image["file_name"] for image in data.loadImgs(data.getImgIds())]
    assert names == ["a.png", "c.tif", "c.tif", "deep/b.png"]
    _says(_inside(*run, "-o", "out", "--manifest", "m.jsonl"), 1, "results in out, COCO data set")
    by_class = json.loads(Path("x.json").read_text())["annotations"]
    assert len(by_class) == sum(len(r.areas()) for r in pipeline.predict(tmp_path / "in"))
    assert (Path("out") / "a_res.png").is_file()
    for options in (
        ["--no-clobber"],
        ["--shard", "1/2"],
        ["--resume", "--manifest", "new.jsonl"],
        ["--engine", "ray"],
    ):
        _says(_inside(*run, *options), 2, "--coco writes one file of all images, but " + options[0])
    _says(_inside("predict", photos[0], "--per-region"), 2, "it needs --coco FILE")
    before = Path("x.json").read_bytes()
    with patch.object(CocoFile, "add", side_effect=KeyboardInterrupt):
        _says(_inside(*run), 130, "interrupted: x.json is not written")
    assert Path("x.json").read_bytes() == before
    clip = write_clip(tmp_path / "d.mp4", 2)
    _says(_inside(*run[:1], clip, *run[3:], "-o", "out"), 1, "d.mp4 is a video")
    _says(_inside(*run[:1], clip, *run[3:]), 0, "2 segmented")
    assert len(json.loads(Path("x.json").read_text())["images"]) == 2


def test_the_form_of_the_json(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("a.png", tiles)
    model: Words = ["--model_dir", colour_model]
    paddlex: Words = ["--pipeline", "semantic_segmentation", "--input", photo]
    keys = {"input_path", "page_index", "pred"}
    more = {"model", "label_format", "size", "class_names", "areas"}
    for form, options, expected in (
        (["predict", photo], [], "rle"),
        (["predict", photo], ["--label-format", "list"], "list"),
        (["predict", photo], ["--show", "paddlex"], None),
        (paddlex, [], None),
        (paddlex, ["--label-format", "png"], "png"),
    ):
        _says(_inside(*form, *model, "-o", "x.json", *options), 0)
        saved = json.loads(Path("x.json").read_text())
        assert saved.keys() == (keys | more if expected else keys)
        assert saved.get("label_format") == expected


def test_overlay_without_a_place_to_save(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    form: Words = ["--pipeline", "semantic_segmentation", "--input", save_image("a.png", tiles)]
    _says(_inside(*form, "--model_dir", colour_model, "--overlay"), 0, "results in output")
    assert Path("output/a_overlay.png").is_file()


def test_models_downloaded_fetch_and_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path))
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    assert "SegFormer" not in _inside("models", "--downloaded").stdout
    _says(_inside("models", "fetch", "SegFormer-B0"), 1, "SegFormer-B0 (slice)")
    _says(_inside("models", "remove", "SegFormer-B0"), 1, "is not downloaded")
    _says(
        _inside("predict", "a.png", "--model", "segformer-b0"),
        1,
        'segrt models fetch "SegFormer-B0 (slice)"',
    )
    _says(_inside("models", "fetch", "nothing"), 1, "unknown model 'nothing'")


def test_models_fetch_shows_how_to_agree_to_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path))
    for command in (["models", "fetch", "PP-LiteSeg-B"], ["tune", "PP-LiteSeg-B"]):
        _says(_inside(*command), 1, '`segrt models fetch "PP-LiteSeg-B" --yes`, which installs it')
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    _says(
        _segrt("models", "fetch", "PP-LiteSeg-B", "--yes"),
        1,
        "SEGRT_OFFLINE forbids installing it",
    )
    _says(
        _inside("models", "fetch", "--download-only", "PP-LiteSeg-B", "PP-LiteSeg-T"),
        1,
        "PP-LiteSeg-T is not available at",
    )
    _says(_inside("models", "fetch"), 2, "specify one or more models, or --all")
    _says(_inside("models", "fetch", "--all", "PP-LiteSeg-B"), 2, "specify one or more models")
    _says(_inside("models", "remove"), 2, "specify one or more models, or --converter")
    _says(_inside("models", "remove", "--converter"), 1, "there is no converter in")


def test_models_share_lock_and_fetch_from_a_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colour_model: Path
) -> None:
    file = tmp_path / "first" / "onnx" / "PP-LiteSeg-B" / "model.onnx"
    file.parent.mkdir(parents=True)
    shutil.copyfile(colour_model, file)
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "first"))
    monkeypatch.delenv("SEGRT_MIRROR", raising=False)
    shelf, lock = tmp_path / "shelf", tmp_path / "segrt.lock"
    _says(_inside("models", "share", shelf), 0, f"PP-LiteSeg-B is in {shelf}")
    _says(_inside("models", "lock", lock), 0, f"{lock} lists 1 files; set SEGRT_LOCK={lock}")
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("SEGRT_MIRROR", str(shelf))
    monkeypatch.setenv("SEGRT_LOCK", str(lock))
    _says(_inside("models", "fetch", "PP-LiteSeg-B"), 0, "PP-LiteSeg-B is in")
    describe = _inside("models", "describe", "PP-LiteSeg-B")
    assert (describe.returncode, "red, green, blue" in describe.stdout) == (0, True)
    lock.write_text('{"files": {}}')
    _says(_inside("models", "describe", "PP-LiteSeg-B"), 1, "is not in the lock file")


def test_overlay_options(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    options = ["--model_dir", str(colour_model), "--save_path"]
    cut = photo.parent / "cut.png"
    _says(
        _inside("predict", photo, *options, cut, "--only", "Red", "--background", "transparent"),
        0,
        "saved as",
    )
    with Image.open(cut) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (96, 64))
    folder = photo.parent / "none"
    for wrong, message in (
        (
            ("--only", "grey"),
            "there is no class 'grey' (did you mean 'green'?): use red, green, blue",
        ),
        (("--background", "white"), "needs the classes to keep"),
        (("--background", "pink"), 'Choose from: "blur", "white", "transparent"'),
        (("--legend", "left"), 'Choose from: "auto", "right", "below", "inside", "none"'),
        (("--alpha", "7"), "alpha 7.0 is not valid: it must be from 0 to 1"),
    ):
        _says(_inside("predict", photo, *options, folder, *wrong), 2, message)
    assert not folder.exists()


def test_palette_and_label_format(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path
) -> None:
    photo = save_image("photo.png", tiles)
    options = ["--model_dir", str(colour_model), "--save_path", str(photo.parent / "out")]
    _says(
        _inside("predict", photo, *options, "--palette", "distinct", "--label_format", "rle"),
        0,
        "1 segmented",
    )
    assert (
        json.loads((photo.parent / "out" / "photo_res.json").read_text())["label_format"] == "rle"
    )
    assert Image.open(photo.parent / "out" / "photo_res.png").convert("RGB").getpixel((0, 0)) == (
        *distinct_palette(1)[0],
    )
    _says(
        _inside("predict", photo, *options, "--palette", "mine"),
        2,
        "unknown palette 'mine': use voc, distinct, cityscapes",
    )
    _says(_inside("predict", photo, *options, "--label_format", "xml"), 2, "use list, rle, png")


def test_workers(save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path) -> None:
    folder = save_image("d/0.png", tiles).parent
    for i in range(1, 6):
        save_image(f"d/{i}.png", tiles)
    done = _inside(
        "predict", folder, "--model_dir", colour_model, "--workers", "3", "--device", "cpu"
    )
    _says(done, 0, "6 segmented")
    assert [line.split(".png")[0][-1] for line in done.stdout.splitlines()] == list("012345")


def test_slide(save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path) -> None:
    photo = save_image("photo.png", tiles)
    run = ["predict", str(photo), "--model_dir", str(colour_model), "--slide"]
    _says(_inside(*run, "64,48"), 0, "1 segmented")
    _says(_inside(*run, "64"), 2, "slide '64' is not valid: use CROP,STRIDE")
    _says(_inside(*run, "model"), 2, "gives colours no sliding window")


def test_exif_and_pdf_scale(
    tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    picture = Image.fromarray(tiles[..., ::-1])
    picture.save(tmp_path / "page.pdf", resolution=72)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(tmp_path / "turned.jpg", exif=exif)
    common: list[str | Path] = ["--model_dir", colour_model, "--device", "cpu"]
    inputs = [tmp_path / "turned.jpg", tmp_path / "page.pdf"]
    _says(_inside("predict", *inputs, *common, "--save_path", tmp_path / "a"), 0, "2 segmented")
    _says(
        _inside(
            "predict",
            *inputs,
            *common,
            "--no-exif",
            "--pdf_scale",
            "1",
            "--save_path",
            tmp_path / "b",
        ),
        0,
        "2 segmented",
    )
    sizes = [
        Image.open(file).size
        for folder in "ab"
        for file in sorted((tmp_path / folder).glob("*_res.png"))
    ]
    assert sizes == [(192, 128), (64, 96), (96, 64), (96, 64)]
    _says(_inside("predict", *inputs, *common, "--pdf_scale", "0"), 2, "pdf_scale 0.0 is not valid")


def test_both_ways_to_the_pipeline_yaml(tmp_path: Path) -> None:
    form = f"--get_pipeline_config semantic_segmentation --save_path {tmp_path}/my_path"
    _says(_inside(*form.split()), 0, "my_path/semantic_segmentation.yaml is written")
    done = _inside("config")
    assert done.stdout == (tmp_path / "my_path" / "semantic_segmentation.yaml").read_text()
    _says(_inside("--get_pipeline_config", "ocr"), 2, "unknown pipeline 'ocr'")


def test_videos_become_overlay_videos(tmp_path: Path, colour_model: Path) -> None:
    clips = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        clips.append(write_clip(tmp_path / folder / "a.mp4", 5))
    (tmp_path / "broken.mp4").write_bytes(clips[0].read_bytes()[:600])
    out = tmp_path / "out"
    done = _inside(
        "predict", *clips, tmp_path / "broken.mp4", "--model_dir", colour_model, "--save_path", out
    )
    _says(
        done,
        1,
        "2 segmented, 1 failed",
        "broken.mp4: this video can't be read",
        "a_2_overlay.mp4: 5 frames",
    )
    assert "moov atom" not in done.stderr  # FFmpeg says nothing beside
    assert sorted(p.name for p in out.iterdir()) == ["a_2_overlay.mp4", "a_overlay.mp4"]
    printed = _inside("predict", clips[0], "--model_dir", colour_model, "--show", "paddlex").stdout
    assert printed.count("a.mp4") == 5


def test_a_resumed_job_has_the_same_overlays(tmp_path: Path, colour_model: Path) -> None:
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(image)
    command: list[str | Path] = ["predict", image, "--model_dir", colour_model, "-o", out]
    command += ["--manifest", out / "m.jsonl"]
    _says(_inside(*command, "--only", "red"), 0, "1 segmented, 0 failed")
    _says(_inside(*command, "--resume", "--only", "red"), 0, "0 segmented, 0 failed")
    _says(_inside(*command, "--resume", "--alpha", "1"), 2, "begun with alpha None, but this call")


@pytest.mark.parametrize("option", ["--names", "--side-by-side", "--legend=below"])
def test_options_that_videos_do_not_have(tmp_path: Path, colour_model: Path, option: str) -> None:
    clip = write_clip(tmp_path / "a.mp4", 2)
    done = _inside("predict", clip, "--model_dir", colour_model, "-o", tmp_path / "out", option)
    _says(done, 2, f"{option.partition('=')[0]} is for pictures, but {clip} is a video")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path, colour_model: Path) -> None:
    clip, out = write_clip(tmp_path / "a.mp4", 400, side=128, noise=True), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "segrt",
        "predict",
        str(clip),
        "--model_dir",
        str(colour_model),
    ]
    job = subprocess.Popen([*command, "--save_path", str(out)], stderr=subprocess.PIPE)
    while not any(file.stat().st_size > 10_000 for file in out.glob(".*.mp4")):
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    (file,) = out.iterdir()
    assert file.name == "a_overlay.mp4"
    length = video.probe(str(file)).length
    assert length
    if job.returncode:  # else it was done before the signal came
        assert f"holds the first {length} frames" in " ".join(said.decode().split())
    assert sum(1 for _ in video.read(str(file))) == length


def test_a_result_that_cannot_be_saved_fails_alone(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    inputs = [save_image(f"in/{name}.png", tiles) for name in ("a", "b", "x" * 250)]
    (tmp_path / "out" / "a_res.png").mkdir(parents=True)
    run: list[str | Path] = [
        "predict",
        *inputs,
        "--model_dir",
        colour_model,
        "--save_path",
        tmp_path / "out",
    ]
    _says(_inside(*run), 1, "2 segmented, 1 failed", "a.png can't be saved: Is a directory")
    saved = ["a_res.png", "b_res.json", "b_res.png", f"{'x' * 200}_res.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[:4] == saved


def test_no_input_is_overwritten(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    folder = save_image("in/x.png", tiles).parent
    before = save_image("in/x_res.png", tiles).read_bytes()
    clip = write_clip(tmp_path / "a.mp4", 3)
    model: list[str | Path] = ["--model_dir", colour_model]
    _says(_inside("predict", folder, "--save_path", folder, *model), 1, "x_res.png is an input")
    assert sorted(p.name for p in folder.iterdir()) == ["x.png", "x_res.png"]
    assert (folder / "x_res.png").read_bytes() == before
    _says(_inside("predict", clip, "--save_path", clip, *model), 1, "a.mp4 is an input")
    for _ in range(2):  # what the first run saved is no input of the second
        done = _inside("predict", folder, "--save_path", folder / "out", *model)
        _says(done, 0, "2 segmented")


@pytest.mark.parametrize("form", [["predict"], ["--pipeline", "semantic_segmentation", "--input"]])
def test_save_path_is_a_file(
    form: list[str],
    save_image: Save,
    tiles: npt.NDArray[np.uint8],
    colour_model: Path,
    tmp_path: Path,
) -> None:
    photo, out = save_image("photo.png", tiles), tmp_path / "new"
    for name, options in {
        "labels.png": [],
        "photo.json": ["--label_format", "rle"],
        "blended.png": ["--overlay"],
        "blended.jpg": ["--overlay"],
        "labels.bmp": [],
        "lossy.jpg": [],
    }.items():
        run: list[str | Path] = [
            *form,
            photo,
            "--model_dir",
            colour_model,
            "--save_path",
            out / name,
            *options,
        ]
        _says(
            _inside(*run),
            0,
            f"1 segmented, 0 failed ({colour_model.stem}",
            f"saved as {out / name}",
        )
    assert sorted(path.name for path in out.iterdir()) == [
        *("blended.jpg", "blended.png", "labels.bmp", "labels.png"),
        *("lossy.jpg", "lossy.png", "photo.json"),
    ]
    (result,) = segrt.create_pipeline(model_dir=colour_model, device="cpu").predict(photo)
    assert isinstance(result, segrt.SegResult)
    for name in ("labels.png", "lossy.png"):
        assert np.array_equal(np.asarray(Image.open(out / name)), result.labels)
    assert np.array_equal(np.asarray(Image.open(out / "blended.png")), np.asarray(result.overlay()))
    saved = json.loads((out / "photo.json").read_text())
    assert saved["pred"] == result.to_coco_rle()


def test_one_file_for_one_image_only(
    save_image: Save, tiles: npt.NDArray[np.uint8], colour_model: Path, tmp_path: Path
) -> None:
    photo, out = save_image("in/photo.png", tiles), tmp_path / "new"
    scans = tmp_path / "two.tif", tmp_path / "one.tif"
    pages = [Image.fromarray(tiles)] * 2
    pages[0].save(scans[0], save_all=True, append_images=pages[1:])
    pages[0].save(scans[1])
    before = photo.read_bytes()
    cases: list[tuple[list[Path], str | Path, int, str]] = [
        ([photo, photo], out / "x.png", 1, "x.png is one file, but there are 2 inputs"),
        ([photo.parent], out / "x.json", 1, f"x.json is one file, but {photo.parent} is a folder"),
        ([scans[0]], out / "x.png", 1, "two.tif has several pages or frames: save to a folder"),
        ([photo], out / "x.gif", 2, "can't write 'x.gif'"),
        ([photo], out / "x.mp4", 1, "x.mp4 is the name of a video"),
        ([photo], photo, 1, "photo.png is an input of this call"),
        ([photo], photo.with_suffix(".jpg"), 1, "photo.png, which is written next to photo.jpg"),
        ([photo], f"{out / 'x.json'} --overlay", 2, "--overlay saves a picture"),
        ([photo], f"{out / 'x.png'} --label_format rle", 2, "--label_format rle is for JSON"),
    ]
    for inputs, save_path, status, words in cases:
        arguments: list[str | Path] = [
            *inputs,
            "--model_dir",
            colour_model,
            "--save_path",
            *str(save_path).split(),
        ]
        done = _inside("predict", *arguments)
        _says(done, status, words)
        assert done.stderr.count("\n") <= 2, done.stderr
        assert [*photo.parent.iterdir()] == [photo]
        assert photo.read_bytes() == before
        assert not [*out.glob("*")]
    _says(
        _inside("predict", scans[1], "--model_dir", colour_model, "--save_path", out / "x.png"), 0
    )
    assert [*out.iterdir()] == [out / "x.png"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_sliding_window_in_good_order(
    save_image: Save, colour_model: Path, sent: signal.Signals, status: int
) -> None:
    photo = save_image("big.png", np.zeros((2000, 3000, 3), np.uint8))
    options = ["--model_dir", str(colour_model), "--slide", "32,8", "--device", "cpu"]
    command = [sys.executable, "-m", "segrt", "predict", str(photo), *options]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    job.send_signal(sent)
    _, said = job.communicate(timeout=60)
    assert (job.returncode, said.count("\n")) == (status, 1), said
    assert "Traceback" not in said


def test_names_that_stdout_cannot_hold(
    save_image: Save,
    tiles: npt.NDArray[np.uint8],
    colour_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = _segrt("predict", save_image("\u9053.png", tiles), "--model_dir", colour_model)
    _says(done, 0, "1 segmented")
    assert "\\u9053.png" in done.stdout


@pytest.mark.parametrize("answer", ["n\n", "\n", "y\n"])
def test_the_converter_is_offered_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # so that it can't be installed
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    parent, terminal = os.openpty()
    command = [sys.executable, "-m", "segrt", "models", "fetch", "PP-LiteSeg-B"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown, asked = b"", False
        with suppress(OSError):  # the end of a terminal is an error
            while data := os.read(parent, 1 << 16):
                shown += data
                if b"[y/N]" in shown and not asked:
                    os.write(parent, answer.encode())
                    asked = True
    os.close(parent)
    assert process.returncode == 1
    assert (
        b"PP-LiteSeg-B must be converted to ONNX, which requires Paddle: install it, 1.9" in shown
    )
    assert (b"pip can't install Paddle" in shown) == (answer == "y\n")
    assert (b"--yes" in shown) == (answer != "y\n")
