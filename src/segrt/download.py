"""One URL to one file: resumed, bounded in time and size, and never glued from two versions."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrt.errors import DownloadError

if TYPE_CHECKING:
    import httpx

Advance = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many (None: not known)."""


@dataclass(frozen=True)
class Limits:
    """When a download is given up.

    Attributes:
        connect_s: seconds to connect.
        read_s: seconds without a byte.
        window_s: seconds over which the rate is measured.
        min_bytes_per_s: the rate below which a server counts as stalled.
        attempts: how often one file is tried; each goes on where the one before broke off, if the server can.
        backoff_s: seconds before the second attempt, twice as many before each further one.
        redirects: how many are followed.
        max_bytes: size of the file.
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


class _AgainError(Exception):
    """This attempt failed; the next one may not."""


def download(url: str, part: Path, limits: Limits, advance: Advance) -> str:
    """Download `url` to `part`, going on with what is in it if the server says that the file is still the same.

    Args:
        url: http or https.
        part: the file to write. If the download breaks off it stays, with a small JSON file beside it, to go on from.
        limits: when to give up.
        advance: told of each block.

    Returns:
        str: empty if the file is there; else why there is nothing at that address, as in "HTTP 404".

    Raises:
        DownloadError: the server fails, stalls, sends too much or redirects elsewhere.
        OSError: `part` can't be written.
    """
    import httpx

    failure = ""
    try:
        timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)
        client = httpx.Client(
            timeout=timeout, headers={"Accept-Encoding": "identity", "User-Agent": "segrt"}
        )
    except (ImportError, ValueError, OSError) as error:
        raise DownloadError(
            f"the proxy or certificates that the environment names can't be used: {error}"
        ) from error
    with client:
        for attempt in range(limits.attempts):
            if attempt:
                time.sleep(limits.backoff_s * 2 ** (attempt - 1))
            try:
                return _attempt(client, url, part, limits, advance)
            except (_AgainError, httpx.TransportError) as error:
                failure = str(error) or type(error).__name__
            except httpx.InvalidURL as error:
                raise DownloadError(f"{public(url)} is not a valid address: {error}") from error
    raise DownloadError(
        f"{public(url)} can't be downloaded, after {limits.attempts} attempts: {failure}; run the same again to go on "
        "from there, or set SEGRT_MIRROR"
    )


def public(url: str) -> str:
    """`url` without user name and password, to be shown."""
    return re.sub(r"//[^/]*@", "//", url)


def discard(part: Path) -> None:
    """Delete a part and what is noted of it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def check_size(size: int | None, limits: Limits, part: Path, source: object) -> None:
    """Give up on a file that is too large.

    Raises:
        DownloadError: it is; the part is deleted then.
    """
    if size is not None and size > limits.max_bytes:
        discard(part)
        raise DownloadError(
            f"{source} is larger than a model may be: over {limits.max_bytes} bytes"
        )


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """Bytes in `part`, and what the server called the version that they are of; (0, "") to begin anew."""
    try:
        note = json.loads(_note(part).read_text("utf-8"))
        if note["url"] == public(url) and isinstance(note["validator"], str):
            return part.stat().st_size, note["validator"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        pass  # nothing there, or a note that was cut off
    return 0, ""


def _attempt(client: httpx.Client, url: str, part: Path, limits: Limits, advance: Advance) -> str:
    have, validator = _resumable(part, url)
    # The server sends the rest only if the file is still the one that the part came from; otherwise all of it.
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    with redirected(client, url, headers, limits.redirects) as response:
        status = response.status_code
        if status in (403, 404, 410):  # some object stores say 403 of what they don't have
            return f"HTTP {status}"
        if status >= 500 or status in (408, 429):
            raise _AgainError(f"HTTP {status}")
        if status == 200:
            length = response.headers.get("content-length")
            have, total = 0, int(length) if length else None
            discard(part)
            if validator := _validator(response):
                note = json.dumps({"url": public(url), "validator": validator})
                _note(part).write_text(note, "utf-8")
        elif status in (206, 416):
            total = _continues(response, have, validator)
            if total is None:
                discard(part)
                raise _AgainError(
                    f"HTTP {status}, which does not go on where the download broke off"
                )
        else:
            raise DownloadError(f"{public(url)}: HTTP {status}")
        check_size(total, limits, part, public(url))
        have = _save(response, part, limits, lambda have: advance(have, total))
        check_size(have, limits, part, public(url))
    if total is not None and have != total:
        raise _AgainError(f"{have} bytes came of {total}")
    return ""


def _save(
    response: httpx.Response, part: Path, limits: Limits, advance: Callable[[int], None]
) -> int:
    """Append the body to `part`; returns the size of it then."""
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
                    raise _AgainError(f"stalled: {have - have_at_start} bytes in {seconds:.1f} s")
                start, have_at_start = time.monotonic(), have
        return file.tell()


def _validator(response: httpx.Response) -> str:
    """What the server calls this version of the file, in a form that If-Range allows; empty if it does not say."""
    tag: str = response.headers.get("etag", "")
    modified: str = response.headers.get("last-modified", "")
    return tag if tag.startswith('"') else modified


def _continues(response: httpx.Response, have: int, validator: str) -> int | None:
    """The size of the whole file, if the response goes on where the part ends; else None.

    Some servers heed Range and pass over If-Range, so the version is compared here too.
    """
    same = validator in (response.headers.get("etag"), response.headers.get("last-modified"))
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("content-range", ""))
    if have and same and span and int(span[1]) == have and int(span[2]) + 1 == int(span[3]):
        return int(span[3])
    return None


@contextmanager
def redirected(
    client: httpx.Client,
    url: str,
    headers: dict[str, str] | None = None,
    redirects: int = LIMITS.redirects,
) -> Iterator[httpx.Response]:
    """GET with redirects. httpx, left to itself, reads their bodies whole and goes from https to http.

    Raises:
        DownloadError: too many redirects, or one that leaves https or http(s).
    """
    target = url
    for _ in range(redirects + 1):
        with client.stream("GET", target, headers=headers) as response:
            if not response.has_redirect_location:
                yield response
                return
            to = response.url.join(response.headers["location"])
        if to.scheme not in ("http", "https") or (url.startswith("https:") and to.scheme == "http"):
            raise DownloadError(
                f"{public(url)} redirects to {public(str(to))}: only http(s) is followed, https to https"
            )
        target = str(to)
    raise DownloadError(f"{public(url)} redirects more than {redirects} times")


def commit(temp: Path, path: Path) -> None:
    """Give a finished file its name, so that not even a power cut leaves half of it under that name.

    Raises:
        OSError: the disk is full, or `path` can't be written.
    """
    with temp.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temp, path)
    if os.name == "posix":  # elsewhere a folder can't be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
