"""The error that becomes an HTTP response."""

from __future__ import annotations


class ApiError(Exception):
    """Ends a request with an error response.

    Example:
        >>> raise ApiError(413, "The body is larger than 1,000 bytes: send a smaller image.")

    Attributes:
        status: HTTP status, and the `errorCode`.
        message: one sentence, the `errorMsg`.
        headers: additional response headers.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}

    @classmethod
    def from_error(cls, status: int, error: Exception) -> ApiError:
        """An ApiError with the message of another error, as a sentence."""
        text = str(error).rstrip(".")
        return cls(status, f"{text[:1].upper()}{text[1:]}.")
