"""What PaddleX's tutorial of this pipeline shows, with the name of the package changed.

The clients in other languages are in tests/clients.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import live
import pytest
from PIL import Image

import segrt

SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
DEMO = "makassaridn-road_demo.png"

SCRIPT = """
from segrt import create_pipeline
pipeline = create_pipeline(pipeline={pipeline!r})
output = pipeline.predict(input={input!r}, target_size = -1)
for res in output:
    res.print()
    res.save_to_img(save_path="./output/")
    res.save_to_json(save_path="./output/")
"""

MODULE = """
SubModules:
  SemanticSegmentation:
    module_name: semantic_segmentation
    model_name: PP-LiteSeg-T
    model_dir: {model_dir} # the fine-tuned model
    batch_size: 1
    target_size: None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with Image.open(SAMPLE) as sample:
        sample.crop((0, 0, 320, 200)).save(DEMO)
    return tmp_path


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the tutorial, line continuations included, in bash."""
    return subprocess.run(
        ["bash", "-c", f'paddlex() {{ "{sys.executable}" -m segrt "$@"; }}\n{command}'],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def _check_output() -> None:
    assert sorted(os.listdir("output")) == [
        "makassaridn-road_demo_res.json",
        f"{DEMO[:-4]}_res.png",
    ]
    content = json.loads(Path("output", f"{DEMO[:-4]}_res.json").read_text())
    assert (len(content["pred"][0]), len(content["pred"][0][0])) == (200, 320)
    assert content["page_index"] is None


def test_scripts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(SCRIPT.format(pipeline="semantic_segmentation", input=DEMO), {})
    printed = {"res": {"input_path": DEMO, "page_index": None, "pred": "..."}}
    assert json.loads(capsys.readouterr().out) == printed
    _check_output()
    got = _shell("paddlex --get_pipeline_config semantic_segmentation --save_path ./my_path")
    assert got.returncode == 0, got.stderr
    yaml = "./my_path/semantic_segmentation.yaml"
    exec(SCRIPT.format(pipeline=yaml, input=f"./{DEMO}"), {})
    assert json.loads(capsys.readouterr().out)["res"]["input_path"].endswith(DEMO)


def test_attributes_of_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (res,) = segrt.create_pipeline(pipeline="semantic_segmentation").predict(DEMO)
    assert isinstance(res, segrt.SegResult)
    assert res.img["res"].size == (320, 200)
    res.save_to_json("out.json")
    assert json.loads(Path("out.json").read_text()) == res.json["res"]
    res.save_to_img("out.png")
    assert Path("out.png").is_file()
    with pytest.raises(segrt.ConfigError, match="can't write"):
        res.save_to_img("out.gif")
    assert sorted(os.listdir()) == [DEMO, "out.json", "out.png"]
    for arguments in ({"format_json": True}, {"json_format": True, "indent": 2}):
        res.print(**arguments, ensure_ascii=True)
        assert json.loads(capsys.readouterr().out) == res.str


def test_command_lines(folder: Path) -> None:
    command = (
        "paddlex --pipeline semantic_segmentation \\\n"
        f"        --input {DEMO} \\\n"
        "        --target_size -1 \\\n"
        "        --save_path ./output \\\n"
        "        --device {} \\\n"
    )
    done = _shell(command.format("cpu"))
    assert done.returncode == 0, done.stderr
    assert (
        f"{{'res': {{'input_path': '{DEMO}', 'page_index': None, 'pred': '...'}}}}" in done.stdout
    )
    _check_output()
    for device in ("gpu:0", "npu:0"):  # there, or an error: never on the CPU instead
        done = _shell(command.format(device))
        assert done.returncode == 0 or f"device '{device}' can't run here" in done.stderr


def test_yaml_of_a_fine_tuned_model(folder: Path, colour_model: Path) -> None:
    Path("p.yaml").write_text(
        f"pipeline_name: semantic_segmentation\n{MODULE.format(model_dir=colour_model)}"
    )
    pipeline = segrt.create_pipeline(pipeline="p.yaml", device="cpu")
    assert pipeline.class_names[:3] == ("red", "green", "blue")
    assert len(list(pipeline.predict(input=DEMO, target_size=-1))) == 1


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("segrt.serve.app", reason="needs the serve extra")
    with live.server() as address:
        yield address


# The headers that the clients of the tutorial send.
HEADERS = {
    "Python": {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"},
    "C++": {"Content-Type": "application/json", "User-Agent": "cpp-httplib/0.11"},
    "Java": {"Content-Type": "application/json; charset=utf-8", "Accept-Encoding": "gzip"},
    "Go": {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"},
    "C#": {"Content-Type": "application/json; charset=utf-8"},
    "Node.js": {
        "Accept": "application/json, text/plain, */*",
        "Content-Type": "application/x-www-form-urlencoded",
    },
    "PHP": {"Content-Type": "application/json", "Accept": "*/*"},
}


@pytest.mark.parametrize("language", HEADERS)
def test_requests_of_the_clients(language: str, address: str, folder: Path) -> None:
    payload = {"image": base64.b64encode(Path(DEMO).read_bytes()).decode("ascii")}
    indent = 2 if language == "C#" else None  # JObject.ToString
    answer = httpx.post(
        f"{address}/semantic-segmentation",
        content=json.dumps(payload, indent=indent).encode(),
        headers=HEADERS[language],
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    Path("out.jpg").write_bytes(base64.b64decode(result["image"]))
    with Image.open("out.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 200))
    assert result["size"] == [200, 320]
    assert len(result["labelMap"]) == 200 * 320
