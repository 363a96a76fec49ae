from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segrt import create_pipeline, names
from segrt.errors import InputError
from segrt.names import (
    JobNames,
    Stems,
    file_name,
    is_url,
    same_name,
    short_stem,
    suffix,
    without_page,
)
from segrt.result import SegResult

LONGEST = "_overlay.png"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("http://a/b.png", True),
        ("HTTPS://a/b.png", True),
        ("ftp://a/b.png", False),
        ("a.png", False),
        (b"http://a", False),
        (None, False),
    ],
)
def test_is_url(source: object, expected: bool) -> None:
    assert is_url(source) is expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photos/a.jpg", "a.jpg"),
        ("https://host/x/b.png?x=1#y", "b.png"),
        ("https://host/a%20b.png", "a b.png"),
        ("https://host/a%3Ab%2A.png", "a_b_.png"),
        ("https://host/", ""),
        ("https://host/" + "x" * 300 + ".png", "x" * 300 + ".png"),
        ("photos/a:b*.png", "a:b*.png"),
        ("camera:0", "camera_0"),
    ],
)
def test_file_name(path: str, name: str) -> None:
    assert file_name(path) == name


def test_stems_of_equal_names_are_numbered(caplog: pytest.LogCaptureFixture) -> None:
    stems = Stems()
    with caplog.at_level(logging.WARNING):
        assert [stems.assign(path) for path in ("x/a.png", "y/a.png", "z/A.png")] == [
            "a",
            "a_2",
            "A_3",
        ]
    assert "y/a.png is saved as a_2" in caplog.text


def test_stems_of_inputs_without_a_name() -> None:
    stems = Stems()
    assert [stems.assign(None), stems.assign(None), stems.assign("https://host/")] == [
        "image",
        "image_2",
        "image_3",
    ]


def test_stems_of_pages() -> None:
    stems = Stems()
    assert [stems.assign("a.pdf", page) for page in range(3)] == ["a_0", "a_1", "a_2"]
    assert stems.assign("b/a.pdf", 1) == "a_1_2"
    assert stems.assign("a_2.png") == "a_2_2"


def test_pages_of_a_name_that_other_inputs_have(caplog: pytest.LogCaptureFixture) -> None:
    stems = Stems()
    assert [stems.assign("x/a.png"), stems.assign("y/a.png")] == ["a", "a_2"]
    caplog.clear()
    assert [stems.assign("a.tif", page) for page in (0, 1)] == ["a_0", "a_1"]
    assert not caplog.text
    assert stems.assign("a.tif", 2) == "a_2_2"
    assert "another input of this call is saved as a_2" in caplog.text


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "A", "a_1", "a_1_2", "b"]), st.none() | st.integers(0, 3))
    )
)
def test_stems_are_unique_on_any_file_system(inputs: list[tuple[str, int | None]]) -> None:
    stems = Stems()
    assigned = [stems.assign(f"{name}.png", page).lower() for name, page in inputs]
    assert len(set(assigned)) == len(assigned)


def test_names_in_other_case_or_normalisation_are_one_name() -> None:
    stems = Stems()
    given = ["\u00dcber.png", "u\u0308ber.png", "stra\u00dfe.png", "STRASSE.png", "\u1e9e.png"]
    assert [stems.assign(name) for name in given] == [
        "\u00dcber",
        "u\u0308ber_2",
        "stra\u00dfe",
        "STRASSE_2",
        "\u1e9e",
    ]


@pytest.mark.parametrize(
    ("path", "stem", "end"),
    [
        ("a/road.jpg", "road", ".jpg"),
        ("a/road.tar.JPG", "road.tar", ".JPG"),
        (".jpg", ".jpg", ""),
        ("...jpg", "...jpg", ""),
        ("..a.jpg", "..a", ".jpg"),
        ("a.", "a.", ""),
        ("a. .png", "a. ", ".png"),
        ("a\nb.png", "a\nb", ".png"),
        ("a\\b:c.png", "a\\b:c", ".png"),
        ("f\udcfcr.png", "f\udcfcr", ".png"),
        ("CON.png", "CON", ".png"),
        ("NUL.tar.png", "NUL.tar", ".png"),
        ("https://host/a%5Cb%3Ac.png", "a_b_c", ".png"),
        ("https://host/CON.png", "CON", ".png"),
        ("https://host/nul.tar.png", "nul_.tar", ".png"),
        ("https://host/Com1%20.x.png", "Com1_ .x", ".png"),
        ("https://host/com10.x.png", "com10.x", ".png"),
        ("https://host/..", "..", ""),
        ("https://host/a%2Fb.png", "b", ".png"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="replaces more")
def test_stem_and_suffix(path: str, stem: str, end: str) -> None:
    assert (short_stem(path), suffix(path)) == (stem, end)


def test_windows_gets_names_that_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ON_WINDOWS", True)
    paths = ["a:b?.png", "NUL.tar.png", "nul.png", "lpt\u00b9..png", "a\x1f.png", "conx.y.png"]
    assert [short_stem(path) for path in paths] == [
        "a_b_",
        "NUL_.tar",
        "nul",
        "lpt\u00b9_.",
        "a_",
        "conx.y",
    ]


@pytest.mark.parametrize(
    ("stem", "cut"),
    [
        ("x" * 200, "x" * 200),
        ("x" * 251, "x" * 200),
        ("x" + "\U0001f600" * 62, "x" + "\U0001f600" * 49),  # 4 bytes each
        ("\udcff" * 251, "\udcff" * 200),  # bytes that are not UTF-8
        ("x" * 197 + "e\u0301\u0301" + "y", "x" * 197),  # a base and its marks
        ("x" * 195 + "e\u0301\u0301" + "y", "x" * 195 + "e\u0301\u0301"),
        ("\u0301" * 120, "\u0301" * 100),  # nothing but marks
    ],
)
def test_long_names_are_cut_between_characters(stem: str, cut: str) -> None:
    assert short_stem(f"{stem}.png") == cut


_LETTERS = ["a", "A", "\u00e4", "a\u0308", "\u0301", "\u00df", "SS", "\u0130", "\u03c2", "\u03a3"]
_OTHERS = ["_", "_2", "_02", ".", " ", "\n", "\\", "\udcff", "\U0001f600", "NUL."]
_PARTS = st.sampled_from([*_LETTERS, *_OTHERS, "x" * 90, "\U0001f600" * 30])
_NAMES = st.lists(_PARTS | st.characters(exclude_characters="/\0"), max_size=6).map("".join)
_INPUTS = st.tuples(
    st.sampled_from(["{}", "{}.png", "x/{}.PDF", "https://host/{}.png", "https://host/{}?a=b"]),
    _NAMES,
    st.none() | st.integers(0, 3) | st.integers(10**6, 10**7),
)


@settings(deadline=None)
@given(st.lists(_INPUTS, max_size=8))
def test_results_never_share_a_name_and_always_fit(
    inputs: list[tuple[str, str, int | None]],
) -> None:
    stems = Stems()
    assigned = [stems.assign(form.format(name), page) for form, name, page in inputs]
    for equal in (same_name, str.casefold, str.lower, lambda s: normalize("NFC", s).casefold()):
        assert len({equal(stem) for stem in assigned}) == len(assigned)
    for stem in assigned:
        name = f"{stem}{LONGEST}"
        assert stem
        assert not {"/", "\0"} & set(name)
        assert len(name.encode("utf-8", "surrogatepass")) <= 255 or "\udcff" in name
        assert sum(map(_size, name)) <= 255


def _size(character: str) -> int:
    surrogate = "\udc80" <= character <= "\udcff"
    return 1 if surrogate else len(character.encode("utf-8", "surrogatepass"))


@given(st.text("a\u0308\u0301\u05b0\u093f", min_size=70, max_size=150))
def test_no_name_ends_between_a_character_and_its_mark(text: str) -> None:
    whole, cut = "a" + text, short_stem(f"a{text}")
    assert cut == whole or whole[len(cut)] == "a"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that allows any byte")
def test_results_of_odd_names_are_saved_and_read_again(
    tmp_path: Path, colour_model: Path, tiles: npt.NDArray[np.uint8]
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "output"
    photos.mkdir()
    stems = ["CON", "a\nb", "f\udcfcr", "..", "a. ", "\u00fc", "u\u0308", "x" * 251]
    stems += ["\U0001f600" * 62, "\u00dc", 'q"<>|', "a\\b"]
    for stem in stems:
        Image.fromarray(tiles).save(photos / "x", "PNG")
        (photos / "x").rename(photos / f"{stem}.png")
    inputs = [str(photos / f"{stem}.png") for stem in stems]
    pipeline = create_pipeline(model_dir=colour_model, device="cpu")
    for path, result in zip(inputs, pipeline.predict(inputs), strict=True):
        assert isinstance(result, SegResult)
        result.save_all(output)
        result.save_overlay(output)
        picture = output / f"{result.stem}_res.png"
        assert np.array_equal(np.asarray(Image.open(picture)), result.labels)
        saved = json.loads((output / f"{result.stem}_res.json").read_bytes())
        assert saved["input_path"] == path
        assert saved["pred"] == result.labels[None].tolist()
    assert len(os.listdir(output)) == 3 * len(stems)


def test_paths_that_are_too_long_are_refused_in_one_line(
    tmp_path: Path, colour_model: Path, tiles: npt.NDArray[np.uint8]
) -> None:
    pipeline = create_pipeline(model_dir=colour_model, device="cpu")
    folder = "/".join([str(tmp_path), *["d" * 200] * 21])
    for path in (f"{folder}/a.png", f"{tmp_path}/{'x' * 300}.png"):
        with pytest.raises(InputError) as caught:
            next(pipeline.predict(path))
        message = str(caught.value)
        assert "does not exist" in message or "name too long" in message.lower()
        assert "\n" not in message
    result = next(pipeline.predict(tiles))
    assert isinstance(result, SegResult)
    with pytest.raises(OSError, match="name too long"):
        result.save_to_img(folder)


def test_long_names_stay_different() -> None:
    stems = Stems()
    assert [stems.assign("x" * 250 + end) for end in ("1.png", "2.png")] == [
        "x" * 200,
        "x" * 200 + "_2",
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.from_regex(r"[aA](_[0-3](-2)?){0,3}", fullmatch=True)),
        unique=True,
    )
)
def test_names_in_jobs_differ_for_all_inputs_and_pages(found: list[tuple[str, str]]) -> None:
    inputs = [f"{folder}/{name}.tif" for folder, name in found]
    names = JobNames(inputs)
    stems = {(path, page): names.of(path, page) for path in inputs for page in (None, 0, 1, 2, 3)}
    assert len({same_name(stem) for stem in stems.values()}) == len(stems)
    assert all(
        without_page(stem, page) == names.of(path, None) for (path, page), stem in stems.items()
    )
    for path in inputs:
        alone = names.part([path])
        assert all(alone.of(path, page) == stems[path, page] for page in (None, 0, 1, 2, 3))
    # Part of them was done earlier: the others get the names that they would have had.
    done = inputs[1::2]
    again = JobNames(
        inputs, {path: names.of(path, None) for path in done}, [stems[path, 1] for path in done]
    )
    rest = {
        (path, page): again.of(path, page) for path in inputs[::2] for page in (None, 0, 1, 2, 3)
    }
    assert rest.items() <= stems.items()


def test_names_in_jobs_are_those_of_one_call() -> None:
    inputs = ["x/a.png", "y/A.png", "z/a.jpg", "b.tif", "c/b_1.png", "https://host/a.png?x=1", ""]
    stems, names = Stems(), JobNames(inputs)
    assert [names.of(path, None) for path in inputs] == [stems.assign(path) for path in inputs]
