"""Fetches URLs sent by clients, without giving them access to the server's own network.

The host is resolved once, every address it resolves to is checked, and the connection goes to a
checked address. This happens when the connection is made, so redirects are checked like the first
URL, and a name that resolves differently the second time has no effect. The Host header and the
TLS server name remain those of the URL.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from segrt.errors import InputError
from segrt.http import download

Resolve = Callable[[str, int], list[str]]
"""Returns the addresses of a host, from the host and the port."""

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Inside 2000::/3, but leading to IPv4 addresses or assigned to no host.
_TUNNELS = [
    ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
# Public according to some versions of Python, but two clouds serve instance metadata there.
_METADATA = [ipaddress.ip_network(net) for net in ("168.63.129.16/32", "192.0.0.0/24")]


def fetch(url: str, *, seconds: float, max_bytes: int) -> bytes:
    """Fetch a public http(s) URL.

    Example:
        >>> data = fetch("https://example.org/road.png", seconds=10, max_bytes=16 << 20)

    Args:
        url: the URL; redirects are followed.
        seconds: time limit of the whole transfer.
        max_bytes: size limit.

    Raises:
        InputError: it can't be downloaded, or its address is not public.
        TooLargeError: it is too large.
    """
    with PublicTransport(seconds) as transport:
        return download(url, transport=transport, seconds=seconds, max_bytes=max_bytes)


def is_public(address: str) -> bool:
    """Whether an address belongs to a host on the public internet.

    Private, loopback, link-local (used for cloud metadata), shared, multicast and reserved
    addresses do not, nor do IPv6 addresses that embed IPv4: mapped, compatible, 6to4, Teredo and
    NAT64.

    Example:
        >>> is_public("8.8.8.8"), is_public("169.254.169.254")
        (True, False)
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # an IPv6 zone, as in fe80::1%eth0, which some Python versions reject
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip not in _GLOBAL_UNICAST or any(ip in net for net in _TUNNELS)
    ):
        return False
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or any(ip in net for net in _METADATA)
    )


def resolve(host: str, port: int) -> list[str]:
    """Resolve a host name with the system's resolver.

    Raises:
        InputError: the host is unknown.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"{host} can't be found: no such host") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PublicTransport(httpx.BaseTransport):
    """Connects only to public addresses, within a time limit, and without a proxy.

    Args:
        seconds: time limit of all transfers together.
        resolve: resolves host names.
    """

    def __init__(self, seconds: float, resolve: Resolve = resolve) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=_PublicBackend(time.monotonic() + seconds, resolve),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; each redirect is another call."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise InputError(f"a URL must begin with http:// or https://, not {url.scheme}:")
        core = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = self._pool.handle_request(core)
        assert isinstance(response.stream, Iterable)
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response.stream)
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._stream

    def close(self) -> None:
        self._stream.close()


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.TransportError(str(error)) from None


class _PublicBackend(httpcore.SyncBackend):
    def __init__(self, deadline: float, resolve: Resolve) -> None:
        self._deadline = deadline
        self._resolve = resolve

    def connect_tcp(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> httpcore.NetworkStream:
        refused = InputError(
            f"{host} is not an address that this server fetches from: only public ones are"
        )
        if _is_disguised(host):
            raise refused
        addresses = self._resolve(host, port)
        if not addresses or not all(map(is_public, addresses)):
            raise refused
        for address in addresses:
            try:
                stream = super().connect_tcp(address, port, timeout=_left(self._deadline))
                return _Limited(stream, self._deadline)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class _Limited(httpcore.NetworkStream):
    """A connection with one deadline for all reads and writes together."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Limited:
        tls = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Limited(tls, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time limit is exceeded")
    return left


def _is_disguised(host: str) -> bool:
    """Whether a host is an IPv4 address in an unusual form: decimal, octal, hex or shortened."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) != host
    except OSError:
        return False
