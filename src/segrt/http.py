"""HTTP downloads: a small body into memory, or a large file to disk, resumable and bounded.

Servers are not trusted: nothing is decompressed, and a deadline covers all that a server can delay.

httpx is imported by the first download: it takes 50 ms.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrt.errors import DownloadError, InputError, TooLargeError

if TYPE_CHECKING:
    import httpx

URL_SECONDS = 30.0
"""Default time limit of `download`, in seconds."""

URL_BYTES = 256 << 20
"""Default size limit of `download`, in bytes."""

Advance = Callable[[int, int | None], None]
"""Progress callback: bytes received so far, and the total (None if unknown)."""

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "segrt"}


@dataclass(frozen=True)
class Limits:
    """When `download_file` gives up.

    Attributes:
        connect_s: seconds to connect.
        read_s: seconds until the headers, redirects included, and without a byte of the body.
        window_s: seconds over which the transfer rate is measured.
        min_bytes_per_s: transfer rate below which the download counts as stalled.
        attempts: number of attempts per file; each resumes the previous one if the server can.
        backoff_s: seconds before the second attempt; doubled for each further one.
        redirects: maximum number of redirects.
        max_bytes: maximum file size.
    """

    connect_s: float = 10
    read_s: float = 30
    window_s: float = 30
    min_bytes_per_s: int = 1024
    attempts: int = 4
    backoff_s: float = 0.5
    redirects: int = 5
    max_bytes: int = 1 << 30


LIMITS = Limits()


class _RetryError(Exception):
    """This attempt failed, but another one may succeed."""


def redact(url: str) -> str:
    """Remove the user name and password from a URL, for messages.

    Example:
        >>> redact("https://me:secret@host/a.png")
        'https://host/a.png'
    """
    return re.sub(r"//[^/]*@", "//", url)


@contextmanager
def redirected(
    client: httpx.Client,
    url: str,
    headers: dict[str, str] | None = None,
    redirects: int = LIMITS.redirects,
) -> Iterator[httpx.Response]:
    """Stream a GET request, following redirects; the body must be read as it is, with `iter_raw`.

    httpx on its own would read the bodies of redirects completely and follow https to http.

    Raises:
        DownloadError: too many redirects, a redirect to an invalid address, to another scheme or
            from https to http, or a compressed body.
    """
    import httpx

    target = url
    for _ in range(redirects + 1):
        with client.stream("GET", target, headers=_HEADERS | (headers or {})) as response:
            if not response.has_redirect_location:
                _check_encoding(response, url)
                yield response
                return
            location = response.headers["location"]
            try:
                to = response.url.join(location)
                target = str(to)
                to.host.encode("idna")  # httpx decodes xn-- only when it is asked for the host
            except (httpx.InvalidURL, ValueError):
                raise DownloadError(
                    f"{redact(url)} redirects to {redact(location)!r:.200}, which is not a valid "
                    "address"
                ) from None
        if to.scheme not in ("http", "https") or (url.startswith("https:") and to.scheme == "http"):
            raise DownloadError(
                f"{redact(url)} redirects to {redact(target)!r:.200}: only http(s) redirects are "
                "followed, and not from https to http"
            )
    raise DownloadError(f"{redact(url)} redirects more than {redirects} times")


def _check_encoding(response: httpx.Response, url: str) -> None:
    """Refuse a compressed body: 271 bytes can decompress to gigabytes."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadError(
            f"{redact(url)} is sent with Content-Encoding {encoding!r:.60}, although the request "
            "accepts only identity: the server must send the file as it is"
        )


def download(
    url: str,
    *,
    transport: httpx.BaseTransport | None = None,
    seconds: float | None = None,
    max_bytes: int | None = None,
) -> bytes:
    """Download a URL into memory.

    Example:
        >>> data = download("https://example.org/road.png", seconds=10, max_bytes=16 << 20)

    Args:
        url: http or https; redirects are followed, but not from https to http.
        transport: makes the connections, and must keep the time limit; None for a `Transport`,
            which honours the proxy environment variables.
        seconds: time limit of the whole download; None for `URL_SECONDS`.
        max_bytes: size limit; None for `URL_BYTES`.

    Raises:
        InputError: the download fails or takes too long.
        TooLargeError: the body is too large.
    """
    import httpx

    from segrt.transport import Transport

    seconds = URL_SECONDS if seconds is None else seconds
    max_bytes = URL_BYTES if max_bytes is None else max_bytes
    shown = redact(url)
    try:
        with (
            httpx.Client(transport=transport or Transport(seconds), timeout=seconds) as client,
            redirected(client, url) as response,
        ):
            return _body(response, shown, max_bytes)
    except httpx.TimeoutException:
        raise InputError(f"{shown} took more than {seconds:g} s to download") from None
    except InputError:
        raise
    except DownloadError as error:
        raise InputError(str(error)) from None
    except httpx.HTTPError as error:
        raise InputError(f"{shown} can't be downloaded: {error}") from None
    except (httpx.InvalidURL, ValueError) as error:  # ValueError: a name that IDNA rejects
        raise InputError(f"{shown} is not a valid address: {error}") from None


def _body(response: httpx.Response, shown: str, max_bytes: int) -> bytes:
    if not response.is_success:
        raise InputError(f"{shown} can't be downloaded: the server answers {response.status_code}")
    too_large = TooLargeError(f"{shown} is larger than {max_bytes / 2**20:g} MiB")
    if (_length(response) or 0) > max_bytes:
        raise too_large
    body = bytearray()  # rather than a list, because a server may send chunks of one byte
    for part in response.iter_raw():
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def download_file(url: str, part: Path, limits: Limits, advance: Advance) -> str:
    """Download a URL to `part`, resuming it if the server confirms that the file is unchanged.

    Args:
        url: http or https.
        part: the file to write. An interrupted download stays, with a small JSON file next to it,
            and is resumed by the next call.
        limits: when to give up.
        advance: progress callback.

    Returns:
        str: empty on success; otherwise why there is no file at this URL, as in "HTTP 404".

    Raises:
        DownloadError: the server fails, stalls, sends too much or redirects to another scheme.
        OSError: `part` can't be written.
    """
    import httpx

    from segrt.transport import Transport

    failure = ""
    transport = Transport(limits.read_s)
    timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)
    with httpx.Client(transport=transport, timeout=timeout) as client:
        for attempt in range(limits.attempts):
            if attempt:
                time.sleep(limits.backoff_s * 2 ** (attempt - 1))
            transport.allow(limits.read_s)
            try:
                return _attempt(client, url, part, limits, advance)
            except (_RetryError, httpx.TransportError) as error:
                failure = str(error) or type(error).__name__
            except (httpx.InvalidURL, ValueError) as error:
                raise DownloadError(f"{redact(url)} is not a valid address: {error}") from error
    raise DownloadError(
        f"{redact(url)} can't be downloaded, after {limits.attempts} attempts: {failure}; run the "
        "same command again to resume, or set SEGRT_MIRROR"
    )


def discard(part: Path) -> None:
    """Delete a partial download and its JSON file."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def check_size(size: int | None, limits: Limits, part: Path, source: object) -> None:
    """Give up on a file that is too large.

    Raises:
        DownloadError: it is too large; the part is deleted.
    """
    if size is not None and size > limits.max_bytes:
        discard(part)
        raise DownloadError(
            f"{source} is larger than a model may be: over {limits.max_bytes} bytes"
        )


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """Bytes in `part` and the validator (ETag or date) of their version; (0, "") to start over."""
    try:
        note = json.loads(_note(part).read_text("utf-8"))
        if note["url"] == redact(url) and isinstance(note["validator"], str):
            return part.stat().st_size, note["validator"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        pass  # no partial download, or a truncated note
    return 0, ""


def _attempt(client: httpx.Client, url: str, part: Path, limits: Limits, advance: Advance) -> str:
    have, validator = _resumable(part, url)
    # The server sends the rest only if the file is unchanged; otherwise it sends all of it.
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    with redirected(client, url, headers, limits.redirects) as response:
        status = response.status_code
        if status in (403, 404, 410):  # some object stores answer 403 for missing objects
            return f"HTTP {status}"
        if status >= 500 or status in (408, 429):
            raise _RetryError(f"HTTP {status}")
        if status == 200:
            length = response.headers.get("content-length")
            have, total = 0, int(length) if length else None
            discard(part)
            if validator := _validator(response):
                note = json.dumps({"url": redact(url), "validator": validator})
                _note(part).write_text(note, "utf-8")
        elif status in (206, 416):
            total = _total_if_resumed(response, have, validator)
            if total is None:
                discard(part)
                raise _RetryError(f"HTTP {status}, which does not resume the interrupted download")
        else:
            raise DownloadError(f"{redact(url)}: HTTP {status}")
        check_size(total, limits, part, redact(url))
        have = _append(response, part, limits, lambda have: advance(have, total))
        check_size(have, limits, part, redact(url))
    if total is not None and have != total:
        raise _RetryError(f"received {have} bytes of {total}")
    return ""


def _append(
    response: httpx.Response, part: Path, limits: Limits, advance: Callable[[int], None]
) -> int:
    """Append the body to `part`; returns the new size of the file."""
    with part.open("ab") as file:
        start, have_at_start = time.monotonic(), file.tell()
        for block in response.iter_raw():
            file.write(block)
            have = file.tell()
            advance(have)
            if have > limits.max_bytes:
                break
            seconds = time.monotonic() - start
            if seconds > limits.window_s:
                if have - have_at_start < limits.min_bytes_per_s * seconds:
                    raise _RetryError(f"stalled: {have - have_at_start} bytes in {seconds:.1f} s")
                start, have_at_start = time.monotonic(), have
        return file.tell()


def _validator(response: httpx.Response) -> str:
    """The file version (ETag or date) in a form that If-Range allows; empty if unknown."""
    tag: str = response.headers.get("etag", "")
    modified: str = response.headers.get("last-modified", "")
    return tag if tag.startswith('"') else modified


def _total_if_resumed(response: httpx.Response, have: int, validator: str) -> int | None:
    """The size of the whole file if the response continues the part; otherwise None.

    Some servers honour Range but ignore If-Range, so the version is compared here as well.
    """
    same = validator in (response.headers.get("etag"), response.headers.get("last-modified"))
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("content-range", ""))
    if have and same and span and int(span[1]) == have and int(span[2]) + 1 == int(span[3]):
        return int(span[3])
    return None
