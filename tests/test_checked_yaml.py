from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrt import checked_yaml
from segrt.backends.plan import HpiConfig
from segrt.config import load
from segrt.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
NESTED = "more than 50 lists and mappings|maximum nesting depth"  # the latter of libyaml
HOSTILE = {
    "alias bomb": (BOMB, "more than 100,000 values"),
    "itself": ("a: &a [*a]", "refers to nothing before it"),
    "a mapping of itself": ("&a {b: *a}", "refers to nothing before it"),
    "list key": ("a: 1\n[1, 2]: 3", r":2: a list or mapping can't be a key"),
    "mapping key": ("{{a: 1}: 2}", "can't be a key"),
    "date": ("a: 1\nb: 2020-13-45", r":2: '2020-13-45' is not a valid value"),
    "number": ("a: !!int abc", "'abc' is not a valid value"),
    "float": ("a: !!float x", "'x' is not a valid value"),
    "5,000 digits": (f"a: {'9' * 5000}", "is too long"),
    "depth of lists": ("[" * 3000 + "]" * 3000, NESTED),
    "depth of mappings": ("{a: " * 3000 + "}" * 3000, NESTED),
    "open lists": ("[" * 100_000, NESTED),
    "size": ("a: " + "x" * (1 << 20), "larger than 1,048,576 bytes"),
    "tag": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "control character": ("a: \x00", "special characters are not allowed|control characters"),
    "two documents": ("a: 1\n---\nb: 2", ":2: "),
    "twice": ("a: 1\na: 2", r":2: a: the key stands in line 1 already"),
}


@pytest.mark.parametrize(("text", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        checked_yaml.parse(text, "x.yml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=str(file)):
        load(file, None)
    with pytest.raises(ConfigError, match="hpi_config"):
        HpiConfig.parse(text)


def test_aliases_are_read() -> None:
    text = "a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}"
    one = {"b": 1}
    assert checked_yaml.parse(text, "x") == {"a": one, "c": [one, one], "d": {"b": 1, "e": 2}}


def test_bytes_that_are_not_text_are_one_line() -> None:
    for data in (b"\xff\xfe\x00", b"a: \xe4", b"\x80"):
        with pytest.raises(ConfigError, match=r"^x"):
            checked_yaml.parse(data, "x")


yaml_like = st.text(st.sampled_from("ab01:-[]{}&*!<>|'\"\n ,.?#%@\t"), max_size=60)


@settings(deadline=None, max_examples=400)
@given(yaml_like | st.text(max_size=40) | st.binary(max_size=40))
def test_any_text_gives_a_value_or_a_config_error(text: Any) -> None:
    with suppress(ConfigError):
        checked_yaml.parse(text, "x")
