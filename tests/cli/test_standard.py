from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from segrt.cli import standard
from segrt.cli.saving import OutputOptions
from segrt.cli.standard import STDOUT, Piped
from segrt.errors import ConfigError, InputError
from segrt.sources import frames


def _read(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return standard.read_inputs()


def _encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (1, 2, 3)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    "form", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "PDF"]
)
def test_an_image(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = _read(_encoded(form), monkeypatch)
    assert isinstance(found, Piped)
    assert found.content == _encoded(form)
    (frame,) = frames(standard.opened(found))
    assert frame.input_path == "stdin"


def test_names_that_begin_like_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("P1 (2).jpg", "DDS scans", "icns.png", "P6", "<b>.png"):
        (tmp_path / name).write_bytes(b"x")
        for end in ("\n", "\0", "\r\n", ""):
            assert _read(f"{name}{end}".encode(), monkeypatch) == [name]
    assert _read(b"https://host/a%PDF-1.png", monkeypatch) == ["https://host/a%PDF-1.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n", "which is empty"),
        (b"", "which is empty"),
        (b"<svg>\n</svg>", "no list of names"),
        (b"<!DOCTYPE html>", "no list of names"),
        (b"/* XPM */\nstatic", "no list of names"),
        (b"#define w 8\n", "no list of names"),
        (_encoded("ICO"), "no list of names"),
        (_encoded("TGA"), "no list of names"),
        (b"\0\0\0\x18ftypmp42" + bytes(400), "is a video"),
    ],
)
def test_what_is_neither(content: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=words):
        _read(content, monkeypatch)


def test_no_picture_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Terminal()))
    with pytest.raises(ConfigError, match=r"which is a terminal: add  > labels\.png"):
        OutputOptions(save_path=STDOUT).file  # noqa: B018
    assert OutputOptions(save_path=Path("standard output")).file is None
