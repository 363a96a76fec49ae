from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.names import Stems, file_name, is_url


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
        ("https://host/" + "x" * 200 + ".png", "x" * 96 + ".png"),
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


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "A", "a_1", "a_1_2", "b"]), st.none() | st.integers(0, 3))
    )
)
def test_stems_are_unique_on_any_file_system(inputs: list[tuple[str, int | None]]) -> None:
    stems = Stems()
    assigned = [stems.assign(f"{name}.png", page).lower() for name, page in inputs]
    assert len(set(assigned)) == len(assigned)


@given(st.lists(st.text("x\u00e4\u9053\U0001f600", min_size=1, max_size=255), max_size=5))
def test_stems_are_short_enough_for_any_result(names: list[str]) -> None:
    stems = Stems()
    assigned = [stems.assign(f"{name}.tif", 9_999) for name in names]
    assert all(len(f"{stem}_overlay.png".encode()) <= 255 for stem in assigned)
    assert len(set(assigned)) == len(assigned)


def test_long_names_stay_different() -> None:
    stems = Stems()
    assert [stems.assign("x" * 250 + end) for end in ("1.png", "2.png")] == [
        "x" * 200,
        "x" * 200 + "_2",
    ]
