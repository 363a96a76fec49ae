"""The options of the server: limits, batching and access."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from segrt.backends.memory import BUDGET
from segrt.errors import ConfigError
from segrt.request import MAX_BATCH

_LIMITS = Parameter(group=Group("Limits", sort_key=21))
_BATCHING = Parameter(group=Group("Batching", sort_key=22))
_ACCESS = Group("Access", sort_key=23)
_RESPONSES = Group("Responses", sort_key=24)

_MAX_TIMEOUT = 86_400  # a day

# As browsers send it: in lower case, without a path, and without the port that a scheme implies.
_ORIGIN = re.compile(
    r"(?!https://.*:443$|http://.*:80$)"
    r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)


@Parameter(name="*")  # each field is an option of `segrt serve`
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits, batching and access.

    Each field is also an option of `segrt serve`, with the text below the field as its help.

    Example:
        >>> create_app(pipeline, Settings(max_queue=16, token="s3cret"))
    """

    max_body: Annotated[int, _LIMITS] = 16 << 20
    """maximum bytes of a request body, or of a fetched URL."""

    max_pixels: Annotated[int, _LIMITS] = 16_000_000
    """maximum pixels of an image and of its inference size."""

    max_queue: Annotated[int, _LIMITS] = 64
    """maximum requests waiting or running; further ones get 503."""

    max_connections: Annotated[int, _LIMITS] = 512
    """maximum open connections; with more, idle ones are closed."""

    timeout: Annotated[float, _LIMITS] = 60
    """seconds until a request is answered with 504."""

    max_batch: Annotated[int, _BATCHING] = 8
    """maximum images that run together."""

    max_delay_ms: Annotated[float, _BATCHING] = 2
    """milliseconds the first image of a batch waits for others."""

    workers: Annotated[int, _BATCHING] = 1
    """number of batches that run in parallel, on one model."""

    visualize: Annotated[
        bool | None, Parameter(group=_RESPONSES, negative="--no-visualize", show_default=False)
    ] = None
    """include the picture unless the request says; default: the YAML's."""

    kserve: Annotated[bool, Parameter(group=_RESPONSES, negative="", show_default=False)] = False
    """also speak the Open Inference Protocol (KServe v2) under /v2."""

    token: Annotated[str | None, Parameter(group=_ACCESS, env_var="SEGRT_TOKEN")] = None
    """require this bearer token; safer in the environment."""

    cors_origins: Annotated[
        tuple[str, ...],
        Parameter(group=_ACCESS, name="--cors-origin", negative="", show_default=False),
    ] = ()
    """origin of web pages that may call the server; repeatable."""

    public_page: Annotated[bool, Parameter(group=_ACCESS, negative="", show_default=False)] = False
    """the web page and /docs don't require the token."""

    allow_urls: Annotated[bool, Parameter(group=_ACCESS, negative="", show_default=False)] = False
    """fetch images from public http(s) URLs in requests."""

    def __post_init__(self) -> None:
        for name in ("max_body", "max_pixels", "max_queue", "max_connections", "workers"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} is not valid: it must be above 0")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise ConfigError(
                f"max_batch {self.max_batch} is not valid: it must be from 1 to {MAX_BATCH}"
            )
        if not 0 < self.timeout <= _MAX_TIMEOUT:  # not nan either
            raise ConfigError(
                f"timeout {self.timeout:g} is not valid: it must be above 0, and at most "
                f"{_MAX_TIMEOUT}"
            )
        if not 0 <= self.max_delay_ms <= 10_000:
            raise ConfigError(
                f"max_delay_ms {self.max_delay_ms:g} is not valid: it must be from 0 to 10000"
            )
        if self.token is not None and not (
            self.token
            and self.token.isascii()
            and self.token.isprintable()
            and self.token == self.token.strip()
        ):
            raise ConfigError(
                "the token is not valid: it must be printable ASCII, not empty, and without spaces "
                "at its ends"
            )
        for origin in self.cors_origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"the CORS origin {origin!r} is not valid: write it as browsers send it, such "
                    "as https://example.org, without a slash at its end"
                )

    @property
    def body_memory(self) -> int:
        """Maximum bytes of all request bodies in memory together."""
        share = BUDGET.total // 16
        return max(2 * self.max_body, min(share, max(256 << 20, 4 * self.max_body)))
