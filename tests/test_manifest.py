from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segrt
from segrt import manifest
from segrt.errors import InputError
from segrt.manifest import Row

SETTINGS: manifest.Settings = {"model": "colours", "target_size": None}
NAMES = ["a.png", "b\udcb5.png", r"c\udcb5.png", r"d\u005cudcb5.png", "e\n.png", "ü.png"]


def _rows() -> list[Row]:
    done = {"outputs": ["a_res.png"], "shares": {"red": 0.75, "blue": 0.25}, "stem": "a"}
    rows = [Row(input=name, index=index, **done) for index, name in enumerate(NAMES)]  # type: ignore[arg-type]
    return [*rows, Row(input="bad.png", outputs=[], shares={}, error="bad.png: it's bad")]


def _write_lines(file: Path, rows: list[Row]) -> Path:
    lines = [manifest.header(SETTINGS), *(row.to_json() for row in rows)]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def test_a_row_says_what_became_of_an_image(
    colour_model: Path,
    save_image: Callable[[str, npt.NDArray[np.uint8]], Path],
    tiles: npt.NDArray[np.uint8],
) -> None:
    photo = save_image("photo.png", tiles)
    pipeline = segrt.create_pipeline("semantic_segmentation", model_dir=str(colour_model))
    good, bad = pipeline.predict([photo, "gone.png"], on_error="yield")
    row = Row.of(good, ["photo_res.png"], last=False)
    assert row.key == (str(photo), None)
    assert (row.height, row.width, row.model, row.stem) == (64, 96, "colours", "photo")
    assert row.shares == {"red": 1 / 3, "green": 1 / 3, "blue": 1 / 3}
    assert (row.provider, row.precision) == ("CPUExecutionProvider", "fp32")
    assert row.milliseconds
    assert row.milliseconds > 0
    assert not row.last
    row = Row.of(bad)
    assert row == Row(input="gone.png", outputs=[], shares={}, error="gone.png does not exist")


def test_json_lines_come_back(tmp_path: Path) -> None:
    file = _write_lines(tmp_path / "m.jsonl", _rows())
    file.read_bytes().decode("ascii")
    assert [json.loads(line) for line in file.open()]
    settings, rows = manifest.read(file)
    assert settings == SETTINGS
    assert [*rows] == _rows()


@given(st.data())
def test_a_torn_last_line_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = _write_lines(tmp_path_factory.mktemp("torn") / "m.jsonl", _rows())
    whole = file.read_bytes()
    start = whole.index(b"\n") + 1
    cut = whole[: data.draw(st.integers(start, len(whole)))]
    file.write_bytes(cut)
    assert [*manifest.read(file)[1]] == _rows()[: cut.count(b"\n") - 1]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b'{"segrt_manifest": 1', "no header"),
        (b'{"a": 1}\n', "line 1: its first line is not the header"),
        (b'{"segrt_manifest": 2, "settings": {}}\n', "format 2"),
        (manifest.header({}) + b"\n{}\n", "line 2: a row has no 'input'"),
        (manifest.header({}) + b"\n\xff\n", "line 2"),
        (manifest.header({}) + b"\n[1]\n", "line 2: a row must be an object"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=what):
        [*manifest.read(file)[1]]


@pytest.mark.parametrize("name", manifest.COLUMNS)
def test_columns_of_a_wrong_type_are_refused(name: str) -> None:
    data = _rows()[0].to_dict() | {name: object}
    with pytest.raises(ValueError, match=name):
        manifest._checked(data)


def test_parquet_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "m.parquet"
    manifest.write_parquet(file, _rows(), SETTINGS)
    settings, rows = manifest.read(file)
    assert settings == SETTINGS
    assert [*rows] == _rows()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        manifest.read(file)


@given(st.text(st.sampled_from("\\udc85\udc85\udcffé0")))
def test_any_name_comes_back_from_parquet(name: str) -> None:
    escaped = manifest._escape(name)
    assert escaped is not None
    escaped.encode()
    assert (manifest._unescape(escaped) or "") == name
