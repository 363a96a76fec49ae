from __future__ import annotations

from typing import Any

import pytest

from segrt import ConfigError
from segrt.request import MAX_BATCH
from segrt.serve.settings import Settings

INF, NAN = float("inf"), float("nan")

WRONG: list[tuple[str, Any, str]] = [
    ("max_body", 0, "max_body 0 is not valid: it must be above 0"),
    ("workers", -1, "workers -1 is not valid"),
    ("max_batch", 0, "max_batch 0 is not valid: it must be from 1 to"),
    ("max_batch", MAX_BATCH + 1, f"it must be from 1 to {MAX_BATCH}"),
    ("timeout", 0, "timeout 0 is not valid: it must be above 0"),
    ("timeout", INF, "timeout inf is not valid"),
    ("timeout", NAN, "timeout nan is not valid"),
    ("max_delay_ms", -1, "max_delay_ms -1 is not valid"),
    ("max_delay_ms", INF, "max_delay_ms inf is not valid"),
    ("max_delay_ms", NAN, "max_delay_ms nan is not valid"),
    ("token", "", "the token is not valid"),
    ("token", " secret", "without spaces at its ends"),
    ("token", "secret\n", "the token is not valid"),
    ("token", "sécret", "printable ASCII"),
    *(
        ("cors_origins", ("https://ok.example", origin), repr(origin))
        for origin in (
            *("", "foo", "a.b", "https://", "https://a.b/", "https://a.b/page", "https://A.b"),
            *("https://a.b:443", "http://a.b:80", "https://u@a.b", "https://*.a.b", " https://a.b"),
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_wrong_settings_are_refused_in_one_line(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_at_their_limits() -> None:
    Settings(max_batch=MAX_BATCH, timeout=86_400, max_delay_ms=0, token="two words")
    origins = ("*", "null", "https://a.b", "http://a.b:443", "http://localhost:3000")
    Settings(cors_origins=(*origins, "http://[::1]:8080", "chrome-extension://abc"))
