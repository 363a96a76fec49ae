"""The requests of the clients in PaddleX's tutorial that don't use Python: `make clients-test`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import live
import pytest
from PIL import Image

import segrt

pytestmark = pytest.mark.clients

FOLDER = Path(__file__).with_name("tutorial")
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live.server() as address:
        yield address


def _command(language: str, folder: Path) -> list[str]:
    if language == "go":
        program = str(folder / "client")
        subprocess.run(["go", "build", "-o", program, FOLDER / "client.go"], check=True)
        return [program]
    if language == "php":
        modules = subprocess.run(["php", "-m"], capture_output=True, text=True, check=True).stdout
        if "curl" not in modules.split():
            pytest.skip("PHP has no cURL: install php-curl")
    return [language, str(FOLDER / f"client.{'js' if language == 'node' else language}")]


@pytest.mark.parametrize("language", ["node", "go", "php"])
def test_client(language: str, address: str, tmp_path: Path) -> None:
    if not shutil.which(language):
        pytest.skip(f"{language} is not installed")
    picture, output = tmp_path / "demo.jpg", tmp_path / "out.jpg"
    with Image.open(SAMPLE) as sample:
        sample.crop((0, 0, 320, 200)).convert("RGB").save(picture)
    done = subprocess.run(
        [*_command(language, tmp_path), address, str(picture), str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{320 * 200} labels\n", "")
    with Image.open(output) as result:
        assert (result.format, result.size) == ("JPEG", (320, 200))
