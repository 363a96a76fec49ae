"""A server in a thread, and clients that use sockets."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse
from threading import Thread
from typing import Any

import numpy as np
import pytest
from serve.conftest import PATH, png

from segrt import ConfigError, Pipeline
from segrt.serve import connections, middleware, server
from segrt.serve.settings import Settings

Connect = Callable[[], socket.socket]
HALF = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Half: "
HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
POST = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n".encode()
UPLOAD = POST + b"Content-Length: 100000\r\n\r\n"
IMAGE = png(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@contextmanager
def _serving(pipeline: Pipeline, settings: Settings) -> Iterator[Connect]:
    listening = server.bind("127.0.0.1", 0)
    address = listening.getsockname()
    running = server.Server(pipeline, settings)
    thread = Thread(target=running.run, args=([listening],))
    thread.start()
    with ExitStack() as stack:
        try:
            while not running.started:
                time.sleep(0.01)
            yield lambda: stack.enter_context(
                closing(socket.create_connection(address, timeout=20))
            )
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def serve(pipeline: Pipeline) -> Iterator[Callable[..., Connect]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_serving(pipeline, Settings(**options)))


def _rest(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(1 << 16):
        received += part
    return received


def _is_closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1)
    except ConnectionError:
        return True


def _send_until_closed(client: socket.socket, data: bytes) -> None:
    end = time.monotonic() + 15
    with pytest.raises(ConnectionError):  # noqa: PT012 - one of many sends fails
        while time.monotonic() < end:
            client.sendall(data)
            time.sleep(0.001)


def _failure(response: bytes, status: int, words: str) -> None:
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), response
    assert b"connection: close" in head.lower()
    content = json.loads(body)
    assert content["errorCode"] == status
    assert words in content["errorMsg"]


def _status(client: socket.socket) -> int:
    """Read a response."""
    response = HTTPResponse(client)
    response.begin()
    response.read()
    return response.status


def _health(connect: Connect) -> None:
    client = connect()
    client.sendall(HEALTH)
    assert _status(client) == 200


def test_idle_clients_make_room(serve: Callable[..., Connect]) -> None:
    connect = serve(max_connections=16)
    idle = [connect() for _ in range(40)]
    for client in idle:
        client.sendall(HALF)
    for _ in range(20):
        _health(connect)
    assert _is_closed(idle[0])  # the first to come is the first to go


def test_old_uploads_make_room_but_not_requests_at_work(
    serve: Callable[..., Connect], gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_UPLOAD_SECONDS", 0.0)
    connect = serve(max_connections=3, max_batch=1)
    working = [connect(), connect()]
    for client in working:
        client.sendall(POST + f"Content-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE)
    assert gate.entered.wait(20)
    upload = connect()
    upload.sendall(UPLOAD + b"abc")
    time.sleep(0.2)
    _health(connect)
    assert _is_closed(upload)
    third = connect()
    third.sendall(POST + f"Content-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE)
    time.sleep(0.2)
    _failure(_rest(connect()), 503, "too many connections")
    gate.open.set()
    for client in [*working, third]:
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_slow_headers_are_408(
    serve: Callable[..., Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    connect = serve()
    client = connect()
    client.sendall(HALF)
    _failure(_rest(client), 408, "headers")
    used = connect()
    used.sendall(HEALTH)
    assert _status(used) == 200
    used.sendall(HALF)  # the limit applies to each request of a connection
    _failure(_rest(used), 408, "headers")


def test_a_client_that_reads_nothing_is_disconnected(
    serve: Callable[..., Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = serve(timeout=1.0)
    client = connect()
    # In a buffer smaller than a packet of the loopback, the kernel would drop acknowledgements too.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    # The server stops reading, and then closes.
    _send_until_closed(client, request * 100)


PROTOCOL_ERRORS = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "not valid HTTP"),  # TLS
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2.0"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host"),
    (HALF + b"x" * 70_000, 431, "not valid HTTP"),
    (HALF + b"x" * 17_000 + b"\r\n\r\n", 431, "not valid HTTP"),
    (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "Content-Length"),
    (POST + b"Content-Length: +1\r\n\r\na", 400, "Content-Length"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "Transfer-Encoding"),
    (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "length"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "chunk"),
]


def test_protocol_errors_are_json(serve: Callable[..., Connect]) -> None:
    connect = serve()
    for sent, status, words in PROTOCOL_ERRORS:
        client = connect()
        client.sendall(sent)
        _failure(_rest(client), status, words)


def test_headers_of_16_kib_are_accepted(serve: Callable[..., Connect]) -> None:
    client = serve()()
    client.sendall(HALF + b"x" * 16_000 + b"\r\n\r\n")
    assert _status(client) == 200


def test_a_second_request_cannot_be_hidden_in_a_body(serve: Callable[..., Connect]) -> None:
    connect = serve()
    client = connect()
    hidden = b"0\r\n\r\n" + HEALTH
    length = f"Content-Length: {len(hidden)}\r\n".encode()
    client.sendall(POST + length + b"Transfer-Encoding: chunked\r\n\r\n" + hidden)
    assert _rest(client).count(b"HTTP/1.1 ") == 1


def test_early_errors_arrive(serve: Callable[..., Connect]) -> None:
    connect = serve(max_body=100_000)
    for head, status in (
        (POST + b"Content-Length: 10000000\r\n", 413),
        (POST + b"Content-Encoding: br\r\nContent-Length: 10000000\r\n", 415),
        (POST.replace(PATH.encode(), b"/none") + b"Content-Length: 10000000\r\n", 404),
    ):
        client = connect()
        client.sendall(head + b"Connection: close\r\n\r\n")
        for _ in range(10):
            client.sendall(bytes(1_000_000))
        _failure(_rest(client), status, "")


def test_expect_continue(serve: Callable[..., Connect]) -> None:
    connect = serve(max_body=100_000)
    client = connect()
    expecting = b"Expect: 100-continue\r\n\r\n"
    client.sendall(POST + f"Content-Length: {len(IMAGE)}\r\n".encode() + expecting)
    assert client.recv(100).startswith(b"HTTP/1.1 100 ")
    client.sendall(IMAGE)
    assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    refused = connect()
    refused.sendall(POST + b"Content-Length: 10000000\r\n" + expecting)
    assert refused.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_rest_of_a_body_is_read_for_a_while_only(
    serve: Callable[..., Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_REST_SECONDS", 0.2)
    monkeypatch.setattr(connections, "_END_SECONDS", 0.2)
    client = serve(max_body=100_000)()
    client.sendall(POST + b"Content-Length: 10000000000\r\n\r\n")
    _send_until_closed(client, bytes(10_000))


def _chunks(size: int, count: int) -> bytes:
    return b"%x\r\n%s\r\n" % (size, bytes(size)) * count


def test_tiny_chunks(serve: Callable[..., Connect]) -> None:
    connect = serve()
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    client = connect()
    client.sendall(head + _chunks(1, 100_000))
    _failure(_rest(client), 400, "chunks are too small")
    for body in (_chunks(1, 900), _chunks(200, 5000)):
        client = connect()
        client.sendall(head + body + b"0\r\n\r\n")
        assert _status(client) == 400  # not an image
        client.sendall(HEALTH)
        assert _status(client) == 200


def test_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert connections.limited(100) == 100
    assert connections.limited(5000) == 1024 - 320
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    with pytest.raises(ConfigError, match="ulimit -n"):
        connections.limited(100)
