from __future__ import annotations

import io
import os
import sys
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.cli import DASH, inputs
from segrt.cli.inputs import Shard
from segrt.cli.standard import Piped
from segrt.errors import ConfigError, InputError


def _touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [str(folder / name) for name in names]


@given(st.lists(st.text(), unique=True), st.integers(1, 20))
def test_every_input_is_in_one_shard(names: list[str], count: int) -> None:
    parts = [Shard.parse(f"{number}/{count}").part(names) for number in range(1, count + 1)]
    assert sorted(chain.from_iterable(parts)) == sorted(names)
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "text", ["", "0/4", "5/4", "1", "1/0", "-1/4", "1/4/2", "a/b", "1.5/2", "١/٢"]
)
def test_invalid_shards(text: str) -> None:
    with pytest.raises(ConfigError, match="as in 3/16"):
        Shard.parse(text)


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "b.jpg", "a.jpg", "more/c.jpg", "[x].jpg", "x.jpg", "out/a_res.jpg")
    out = Path("out")
    assert inputs.listed(["?.jpg"], out) == ["a.jpg", "b.jpg", "x.jpg"]
    assert inputs.listed(["[x].jpg"], out) == ["[x].jpg"]  # the file of that name
    found = ["[x].jpg", "a.jpg", "b.jpg", "more/c.jpg", "x.jpg"]
    assert inputs.listed(["**/*.jpg"], out) == found
    assert inputs.listed(["**/*.jpg"], None) == sorted([*found, "out/a_res.jpg"])
    assert "out" not in inputs.listed(["*"], out)
    assert inputs.listed(["https://host/a.jpg?b=[1]"], out) == ["https://host/a.jpg?b=[1]"]
    with pytest.raises(InputError, match=r"no file matches \*\.tif"):
        inputs.listed(["*.tif"], out)


def test_patterns_match_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "a/x.jpg", "a/more/y.jpg")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "more" / "again.jpg").symlink_to("y.jpg")
    files = ["a/more/again.jpg", "a/more/y.jpg", "a/x.jpg"]
    assert sorted(os.path.realpath(f) for f in inputs.listed(["a/**"], None)) == sorted(
        os.path.realpath(f) for f in files
    )
    assert len(inputs.listed(["a/**/*.jpg"], None)) == 3
    assert inputs.listed(["a/m*"], None) == ["a/more"]  # whose images `expand` finds
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(InputError, match="no file matches"):
        inputs.listed(["empty/**"], None)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a.jpg\nb c.jpg\n\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\r\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"a\nb.jpg\0*.jpg\0", ["a\nb.jpg", "*.jpg"]),
        (b"\xb5.jpg\n", [os.fsdecode(b"\xb5.jpg")]),
    ],
)
def test_a_list_on_standard_input(
    monkeypatch: pytest.MonkeyPatch, content: bytes, names: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert inputs.listed(["first.png", DASH], None) == ["first.png", *names]


def test_standard_input_is_read_once() -> None:
    with pytest.raises(InputError, match="- is given twice"):
        inputs.listed([DASH, "a.png", DASH], None)


def test_the_image_on_standard_input_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, "stdin/a.png")
    piped = Piped.of(b"P6")
    assert inputs.expand([piped, "stdin"], None) == [piped, os.path.join("stdin", "a.png")]
    assert not inputs.is_film(piped)
    assert len({piped: 1, "stdin": 2}) == 2


def test_results_in_a_subfolder_are_no_inputs(tmp_path: Path) -> None:
    images = _touch(tmp_path, "a.png", "out/a_res.png", "other/b.png")
    found = inputs.expand([str(tmp_path), "c.png"], tmp_path / "out")
    assert found == [images[0], images[2], "c.png"]
    assert len(inputs.expand([str(tmp_path)], tmp_path)) == 3
    (tmp_path / "a.png").unlink()
    (tmp_path / "other" / "b.png").unlink()
    with pytest.raises(InputError, match="holds results"):
        inputs.expand([str(tmp_path)], tmp_path / "out")
