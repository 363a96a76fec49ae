from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrt.errors import ConfigError, DeviceError
from segrt.types import MAX_SIDE, Device, Mode, parse_target_size


@pytest.mark.parametrize(
    ("text", "kind", "ids"),
    [
        ("cpu", "cpu", ()),
        ("gpu", "gpu", (0,)),
        ("GPU:1", "gpu", (1,)),
        ("gpu:0,1,0", "gpu", (0, 1)),
        ("npu:3", "npu", (3,)),
    ],
)
def test_device_parses(text: str, kind: str, ids: tuple[int, ...]) -> None:
    device = Device.parse(text)
    assert (device.kind, device.ids) == (kind, ids)
    assert Device.parse(str(device)) == device


@pytest.mark.parametrize(
    "text", ["", "cuda", "cpu:0", "gpu:", "gpu:-1", "gpu:a", "gpu:0,", "tpu:0"]
)
def test_unknown_device_error_lists_the_valid_ones(text: str) -> None:
    with pytest.raises(
        DeviceError,
        match=r"use cpu, or one of gpu, xpu, npu, mlu, dcu, gcu, iluvatar_gpu, metax_gpu",
    ):
        Device.parse(text)


def test_mode() -> None:
    assert Mode.parse("high-performance") is Mode.HIGH_PERFORMANCE
    with pytest.raises(ConfigError, match="normal, high-performance"):
        Mode.parse("fast")


@pytest.mark.parametrize("text", ["(512,256)", "[512,256]", "512,256", " [ 512 , 256 ] "])
def test_target_size_pair_spellings(text: str) -> None:
    assert parse_target_size(text) == (512, 256)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("None", None),
        ("null", None),
        (-1, -1),
        ("-1", -1),
        ("512", 512),
        ([-1, -1], -1),
        ("[-1,-1]", -1),
    ],
)
def test_other_target_sizes(value: object, expected: object) -> None:
    assert parse_target_size(value) == expected


@given(st.tuples(st.integers(1, MAX_SIDE), st.integers(1, MAX_SIDE)))
def test_target_size_pair_in_every_spelling(pair: tuple[int, int]) -> None:
    assert {
        parse_target_size(v)
        for v in (pair, list(pair), str(pair), str(list(pair)), f"{pair[0]},{pair[1]}")
    } == {pair}


@pytest.mark.parametrize(
    "value",
    [0, -2, True, 1.5, "abc", "1,2,3", (1, -1), (0, 5), "(5", MAX_SIDE + 1, b"5", {}, "1,,2"],
)
def test_invalid_target_sizes(value: object) -> None:
    with pytest.raises(ConfigError, match="target_size"):
        parse_target_size(value)


@pytest.mark.parametrize(
    "value", [10**400, [10**5000], -(10**400), "9" * 5000, "1" * 400], ids=range(5)
)
def test_huge_numbers_are_one_short_line(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target_size(value)
    assert len(str(caught.value)) < 300
