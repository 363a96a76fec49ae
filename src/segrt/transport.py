"""Connections under one deadline: for names, TLS, headers, redirects and bodies together."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Thread
from typing import Any

import httpcore
import httpx

from segrt.errors import DownloadError, InputError

Resolve = Callable[[str, int], list[str]]
"""Returns the addresses of a host, from the host and the port."""


def resolve(host: str, port: int) -> list[str]:
    """Resolve a host name with the system's resolver, in its order of preference.

    Raises:
        httpcore.ConnectError: the host is unknown.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Transport(httpx.BaseTransport):
    """Makes connections under one deadline: for names, TLS, headers, redirects and bodies together.

    The timeouts of httpx apply to each read and write, so a server that sends a byte now and then
    never exceeds them.

    Example:
        >>> with httpx.Client(transport=Transport(30)) as client:
        ...     client.get("https://example.org/")

    Args:
        seconds: time limit of everything that is sent and received, until `allow` sets another.
        resolve: resolves host names; it may take as long as it likes.
        trust_env: whether the environment sets proxies and certificates, as for httpx.

    Raises:
        DownloadError: the proxies or certificates set in the environment can't be used.
    """

    def __init__(
        self, seconds: float, *, resolve: Resolve = resolve, trust_env: bool = True
    ) -> None:
        self._backend = _Backend(resolve)
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        try:
            self._ssl = httpx.create_ssl_context(trust_env=trust_env)
            self._proxies = _environment_proxies() if trust_env else {}
        except (ImportError, ValueError, OSError) as error:
            raise DownloadError(
                f"the proxy or certificates set in the environment can't be used: {error}"
            ) from error
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._backend.deadline = time.monotonic() + seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; each redirect is another call."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise InputError(f"a URL must begin with http:// or https://, not {url.scheme}:")
        core = httpcore.Request(
            method=request.method,
            url=_core_url(url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = self._pool(url).handle_request(core)
        assert isinstance(response.stream, Iterable)
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response.stream)
        )

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, url: httpx.URL) -> httpcore.ConnectionPool:
        """The connections to the host of a URL: direct ones, or through a proxy."""
        proxy = self._proxies.get(url.scheme)
        if proxy and urllib.request.proxy_bypass(url.host):
            proxy = None
        key = url.scheme if proxy else ""
        if key not in self._pools:
            self._pools[key] = httpcore.ConnectionPool(
                ssl_context=self._ssl, network_backend=self._backend, proxy=proxy
            )
        return self._pools[key]


def _environment_proxies() -> dict[str, httpcore.Proxy]:
    """The proxies set in the environment, by the scheme of the URLs that they are for."""
    proxies, found = {}, urllib.request.getproxies()
    for scheme in ("http", "https"):
        if address := found.get(scheme) or found.get("all"):
            proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
            if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
                raise ImportError("a SOCKS proxy needs socksio: run  pip install 'httpx[socks]'")
            proxies[scheme] = httpcore.Proxy(url=_core_url(proxy.url), auth=proxy.raw_auth)
    return proxies


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


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
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise httpx.TransportError(str(error)) from None


class _Backend(httpcore.SyncBackend):
    """Connects within a deadline."""

    def __init__(self, resolve: Resolve) -> None:
        self.deadline = 0.0
        self._resolve = resolve

    def left(self, timeout: float | None) -> float:
        """Seconds until the deadline, at most `timeout`."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time limit is exceeded")
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that answers."""
        addresses = self._addresses(host, port, self.left(timeout))
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for number, address in enumerate(addresses):
            # An address that does not answer leaves time for the others.
            share = self.left(timeout) / (len(addresses) - number)
            try:
                stream = super().connect_tcp(address, port, share, *args, **kwargs)
                return _Stream(stream, self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Resolve a name in another thread, because the system's resolver has no timeout."""
        found: Future[list[str]] = Future()

        def work() -> None:
            try:
                found.set_result(self._resolve(host, port))
            except Exception as error:
                found.set_exception(error)

        Thread(target=work, name="segrt-resolve", daemon=True).start()
        try:
            return found.result(seconds)
        except FutureTimeoutError:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None


class _Stream(httpcore.NetworkStream):
    """A connection whose reads and writes end at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, backend: _Backend) -> None:
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left(timeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Stream:
        left = self._backend.left(timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._backend)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
