"""What the server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from segrt.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and access.

    Attributes:
        max_body: most bytes of a request's body, and of what a URL answers.
        max_pixels: most pixels of an image, of the size at which it is inferred, and of a batch.
        timeout: seconds from the first byte of a request to its answer; then it is 504.
        token: what clients must send as `Authorization: Bearer TOKEN`; None: everybody may ask.
        cors_origins: origins of web pages that may use the server, such as https://example.org; "*" for all.
        allow_urls: whether `image` may be an http(s) URL.
        max_batch: most requests that go through the network together.
        max_delay_ms: milliseconds that the first request of a batch waits for others.
        max_queue: most requests that wait or run; the next one is answered 503.
        workers: batches that run at once. They share one model and its threads.
    """

    max_body: int = 16 << 20
    max_pixels: int = 16_000_000
    timeout: float = 60.0
    token: str | None = None
    cors_origins: tuple[str, ...] = ()
    allow_urls: bool = False
    max_batch: int = 8
    max_delay_ms: float = 2.0
    max_queue: int = 64
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("max_body", "max_pixels", "timeout", "max_batch", "max_queue", "workers"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} is not valid: it must be above 0")
        if not 0 <= self.max_delay_ms <= 10_000:
            raise ConfigError(
                f"max_delay_ms {self.max_delay_ms:g} is not valid: it must be from 0 to 10000"
            )
        if self.token is not None and not (
            self.token.isascii() and self.token.isprintable() and self.token.strip()
        ):
            raise ConfigError("the token is not valid: it must be printable ASCII, and not empty")

    @property
    def body_memory(self) -> int:
        """Most bytes that all bodies held at once may take."""
        return max(256 << 20, 4 * self.max_body)
