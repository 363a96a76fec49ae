"""Run the clients in examples/clients against a live server: `make clients-test`."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import live
import numpy as np
import pytest
from PIL import Image

import segrt

pytestmark = pytest.mark.clients

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
GSON = "/usr/share/java/gson.jar"
NEWTONSOFT = "/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll"

Recipe = tuple[list[str], Callable[[Path], list[str]]]
"""How to run a client: the commands and files it requires, and a function that builds it in a
folder and returns its command line."""


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=180, check=False
    )


def _build(*command: object) -> None:
    done = _run(*command)
    assert done.returncode == 0, done.stderr


def _cpp(folder: Path) -> list[str]:
    flags = _run("pkg-config", "--cflags", "--libs", "cpp-httplib").stdout.split()
    _build(
        "g++",
        "-std=c++17",
        "-O2",
        "-Wall",
        CLIENTS / "cpp/client.cpp",
        "-o",
        folder / "client",
        *flags,
        "-pthread",
    )
    return [str(folder / "client")]


def _go(folder: Path) -> list[str]:
    _build("go", "build", "-o", folder / "client", CLIENTS / "go/client.go")
    return [str(folder / "client")]


def _csharp(folder: Path) -> list[str]:
    shutil.copy(NEWTONSOFT, folder)
    program = folder / "Client.exe"
    _build(
        "mcs",
        f"-out:{program}",
        "-r:System.Net.Http.dll",
        f"-r:{NEWTONSOFT}",
        CLIENTS / "csharp/Client.cs",
    )
    return ["mono", str(program)]


RECIPES: dict[str, Recipe] = {
    "python": ([], lambda _: [sys.executable, str(CLIENTS / "python/client.py")]),
    "cpp": (
        ["g++", "pkg-config", "/usr/include/httplib.h", "/usr/include/nlohmann/json.hpp"],
        _cpp,
    ),
    "java": (
        ["java", "javac", GSON],
        lambda _: ["java", "-cp", GSON, str(CLIENTS / "java/Client.java")],
    ),
    "go": (["go"], _go),
    "csharp": (["mcs", "mono", NEWTONSOFT], _csharp),
    "node": (["node"], lambda _: ["node", str(CLIENTS / "node/client.mjs")]),
    "php": (["php"], lambda _: ["php", str(CLIENTS / "php/client.php")]),
    "shell": (["curl", "jq"], lambda _: [str(CLIENTS / "shell/client.sh")]),
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live.server() as address:
        yield address


@pytest.fixture(scope="module", params=RECIPES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a client, which is built first."""
    required, build = RECIPES[request.param]
    if missing := [need for need in required if not (shutil.which(need) or Path(need).is_file())]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    return build(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crop of the sample with odd sides, in a file whose name contains a space."""
    path = tmp_path_factory.mktemp("pictures") / "a road.png"
    with Image.open(SAMPLE) as sample:
        sample.crop((100, 90, 577, 403)).save(path)
    return path


@pytest.fixture(scope="module")
def expected(picture: Path) -> str:
    """The output that matches the library's labels."""
    (result,) = segrt.create_pipeline("semantic_segmentation", device="cpu").predict(picture)
    assert isinstance(result, segrt.SegResult)
    height, width = result.labels.shape
    counts = np.bincount(result.labels.ravel())
    order = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
    assert len(order) > 5
    shares = [
        f"{100 * counts[c] / (width * height):6.2f} %  {result.class_names[c]}" for c in order
    ]
    return "\n".join([f"{width} x {height}", *shares, ""])


def test_labels_and_picture(
    client: list[str], address: str, picture: Path, expected: str, tmp_path: Path
) -> None:
    output = tmp_path / "result.jpg"
    done = _run(*client, address, picture, output)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected
    request = {"image": base64.b64encode(picture.read_bytes()).decode()}
    answer = httpx.post(f"{address}/semantic-segmentation", json=request, timeout=60).json()
    assert output.read_bytes() == base64.b64decode(answer["result"]["image"])
    assert Image.open(io.BytesIO(output.read_bytes())).size == (477, 313)


def test_errors_of_the_server_are_printed(client: list[str], address: str, tmp_path: Path) -> None:
    broken, output = tmp_path / "broken.png", tmp_path / "result.jpg"
    broken.write_text("not a picture")
    request = {"image": base64.b64encode(broken.read_bytes()).decode()}
    answer = httpx.post(f"{address}/semantic-segmentation", json=request, timeout=60)
    assert answer.status_code == 400
    done = _run(*client, address, broken, output)
    assert done.returncode == 1
    assert done.stderr.strip() == answer.json()["errorMsg"]
    assert done.stdout == ""
    assert not output.exists()


def test_an_unreachable_server_is_an_error(
    client: list[str], picture: Path, tmp_path: Path
) -> None:
    done = _run(*client, "http://127.0.0.1:9", picture, tmp_path / "result.jpg")
    assert done.returncode != 0
    assert done.stderr
    assert done.stdout == ""
