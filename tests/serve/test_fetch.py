from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpcore
import pytest

from segrt.errors import InputError, TooLargeError
from segrt.http import download
from segrt.serve import fetch


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    hits: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.hits.append((self.path, self.headers["Host"]))
        status, headers, body = self.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server on the loopback interface."""
    _Handler.answers, _Handler.hits = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def _get(
    url: str,
    resolve: Callable[[str, int], list[str]] | None = None,
    seconds: float = 5,
    max_bytes: int = 1000,
) -> bytes:
    with fetch.PublicTransport(seconds, resolve or fetch.resolve) as transport:
        return download(url, transport=transport, seconds=seconds, max_bytes=max_bytes)


PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_non_public_addresses_are_refused(address: str) -> None:
    assert not fetch.is_public(address)
    with pytest.raises(InputError, match="only public ones"):
        _get("http://example.org/", lambda host, port: [address])
    with pytest.raises(InputError, match="only public ones"):  # one bad address among good ones
        _get("http://example.org/", lambda host, port: ["8.8.8.8", address])


def test_public_addresses() -> None:
    for address in ("8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001:81b::200e"):
        assert fetch.is_public(address)


ATTEMPTS = [
    "http://127.0.0.1:{port}/secret",
    "http://localhost:{port}/secret",
    "http://LOCALHOST.:{port}/secret",
    "http://2130706433:{port}/secret",
    "http://017700000001:{port}/secret",
    "http://0x7f000001:{port}/secret",
    "http://0x7f.0.0.1:{port}/secret",
    "http://0177.0.0.1:{port}/secret",
    "http://127.1:{port}/secret",
    "http://127.0.1:{port}/secret",
    "http://0:{port}/secret",
    "http://0.0.0.0:{port}/secret",
    "http://[::1]:{port}/secret",
    "http://[::]:{port}/secret",
    "http://[::ffff:127.0.0.1]:{port}/secret",
    "http://[::ffff:7f00:1]:{port}/secret",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/secret",
    "http://[::127.0.0.1]:{port}/secret",
    "http://[64:ff9b::127.0.0.1]:{port}/secret",
    "http://[2002:7f00:0001::]:{port}/secret",
    "http://[fe80::1%25lo]:{port}/secret",
    "http://user:pass@127.0.0.1:{port}/secret",
    "http://example.org@127.0.0.1:{port}/secret",
    "http://127.0.0.1:{port}\\@example.org/secret",
    "http://①②⑦.⓪.⓪.①:{port}/secret",
    "http://127。0。0。1:{port}/secret",
    "http://%31%32%37.0.0.1:{port}/secret",
    "https://127.0.0.1:{port}/secret",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "ftp://127.0.0.1:{port}/secret",
    "http:///secret",
    "http://",
]


@pytest.mark.parametrize("url", ATTEMPTS)
def test_urls_into_the_servers_own_network_are_refused(web: int, url: str) -> None:
    _Handler.answers["/secret"] = (200, {}, b"secret")
    with pytest.raises(InputError) as caught:
        _get(url.format(port=web))
    assert "secret" not in str(caught.value).replace("/secret", "")
    assert _Handler.hits == []


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, web: int) -> Callable[[str, int], list[str]]:
    """A resolver for which `outside` is public; all connections lead to the test's web server."""
    connect = httpcore.SyncBackend.connect_tcp
    connected: list[str] = []

    def connect_tcp(self: Any, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        connected.append(host)
        return connect(self, "127.0.0.1", web, *args, **kwargs)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    pretended: Callable[[str, int], list[str]] = lambda host, port: (  # noqa: E731
        ["93.184.216.34"] if host == "outside" else ["127.0.0.1"]
    )
    return pretended


def test_the_host_header_is_the_name_of_the_host(pretend: Any) -> None:
    _Handler.answers["/a.png?x=1"] = (200, {}, b"picture")
    assert _get("http://outside/a.png?x=1", pretend) == b"picture"
    assert _Handler.hits == [("/a.png?x=1", "outside")]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/secret",
        "http://inside/secret",
        "//127.0.0.1/secret",
        "http://[::1]/secret",
        "file:///etc/passwd",
    ],
)
def test_redirects_are_checked_like_the_first_url(pretend: Any, target: str) -> None:
    _Handler.answers["/go"] = (302, {"Location": target}, b"")
    _Handler.answers["/secret"] = (200, {}, b"secret")
    with pytest.raises(InputError):
        _get("http://outside/go", pretend)
    assert [path for path, _ in _Handler.hits] == ["/go"]


def test_redirects_to_public_hosts_are_followed_up_to_a_limit(pretend: Any) -> None:
    _Handler.answers["/go"] = (302, {"Location": "/a.png"}, b"")
    _Handler.answers["/a.png"] = (200, {}, b"picture")
    _Handler.answers["/round"] = (302, {"Location": "/round"}, b"")
    assert _get("http://outside/go", pretend) == b"picture"
    with pytest.raises(InputError, match="redirects more than 5 times"):
        _get("http://outside/round", pretend)


def test_dns_rebinding_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once, and the connection goes to the address that was checked."""
    resolved: list[str] = []
    connected: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["93.184.216.34"] if len(resolved) == 1 else ["127.0.0.1"]

    def connect_tcp(self: Any, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("refused")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    with pytest.raises(InputError):
        _get("http://rebinding/", rebinding)
    assert (resolved, connected) == (["rebinding"], ["93.184.216.34"])
    with pytest.raises(InputError, match="only public ones"):
        _get("http://rebinding/", rebinding)
    assert connected == ["93.184.216.34"]


def test_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, pretend: Any, web: int
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{web}")
    _Handler.answers["/a"] = (200, {}, b"direct")
    assert _get("http://outside/a", pretend) == b"direct"
    assert _Handler.hits == [("/a", "outside")]  # a proxy would have received the whole URL


def test_size_limit_and_error_status(pretend: Any) -> None:
    _Handler.answers["/big"] = (200, {}, bytes(1001))
    with pytest.raises(TooLargeError, match="larger than"):
        _get("http://outside/big", pretend)
    with pytest.raises(InputError, match="answers 404"):
        _get("http://outside/gone", pretend)


def test_a_server_that_sends_slowly_is_abandoned_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        connect, port = httpcore.SyncBackend.connect_tcp, listener.getsockname()[1]
        monkeypatch.setattr(
            httpcore.SyncBackend,
            "connect_tcp",
            lambda self, host, _, *args, **kwargs: connect(
                self, "127.0.0.1", port, *args, **kwargs
            ),
        )
        with pytest.raises(InputError, match=r"took more than 0\.5 s"):
            _get("http://outside/", lambda host, port: ["93.184.216.34"], seconds=0.5)
        stop.set()
        thread.join(5)
