"""nginx in front of the server, with deploy/nginx.conf."""

from __future__ import annotations

import getpass
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import live
import pytest

import segrt

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
]

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
PATH = "/semantic-segmentation"
PNG = {"Content-Type": "image/png"}

Proxy = Callable[..., AbstractContextManager[httpx.Client]]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _nginx(folder: Path, text: str, port: int) -> Iterator[None]:
    (folder / "main.conf").write_text(
        f"user {getpass.getuser()}; daemon off; pid nginx.pid; error_log stderr; events {{}}\n"
        "http { access_log off; client_body_temp_path body; proxy_temp_path proxy;"
        " fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n" + text + "}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "main.conf")]
    with subprocess.Popen(command) as process:
        try:
            end = time.monotonic() + 20
            while True:
                assert process.poll() is None
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    """Starts nginx in front of an address; further arguments are changes of the configuration."""

    @contextmanager
    def start(address: str, *changes: tuple[str, str]) -> Iterator[httpx.Client]:
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
        options = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        options += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *options],
            check=True,
            capture_output=True,
        )
        port, trusted = _free_port(), ssl.create_default_context(cafile=certificate)
        text = CONFIG.read_text(encoding="utf-8")
        for old, new in (
            ("127.0.0.1:8080", address.removeprefix("http://")),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/certs/segrt.pem", str(certificate)),
            ("/etc/ssl/private/segrt.key", str(key)),
            *changes,
        ):
            assert old in text
            text = text.replace(old, new)
        with (
            _nginx(tmp_path, text, port),
            httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=60
            ) as client,
        ):
            yield client

    return start


CHANGES = {
    "as it is": [],
    "without buffering": [("proxy_pass", "proxy_request_buffering off; proxy_pass")],
    "HTTP/1.0": [("proxy_http_version 1.1;", ""), ('proxy_set_header Connection "";', "")],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_answers_arrive(proxy: Proxy, changes: list[tuple[str, str]]) -> None:
    large = bytes(20_000_000)
    with (
        live.server("--max-body", "10000000") as address,
        proxy(address, *changes) as client,
    ):
        for _ in range(5):
            answer = client.post(PATH, content=SAMPLE.read_bytes(), headers=PNG)
            assert answer.json()["errorCode"] == 0, answer.text
            answer = client.post(PATH, content=iter([SAMPLE.read_bytes()]), headers=PNG)
            assert answer.json()["errorCode"] == 0, answer.text
            # Errors that the server sends before it has received the body.
            for url, headers, status in (
                (PATH, PNG, 413),
                (PATH, {**PNG, "Content-Encoding": "br"}, 415),
                ("/none", PNG, 404),
            ):
                answer = client.post(url, content=large, headers=headers)
                assert answer.status_code == answer.json()["errorCode"] == status


def test_no_request_is_lost_between_two_keep_alive_limits(proxy: Proxy) -> None:
    with live.server() as address, proxy(address) as client:

        def post(pause: float) -> int:
            time.sleep(pause)
            answer = client.post(PATH, content=SAMPLE.read_bytes(), headers=PNG)
            return int(answer.status_code)

        with ThreadPoolExecutor(8) as pool:  # around the 5 s of an idle connection
            pauses = [4.6 + turn / 40 for turn in range(32)]
            assert set(pool.map(post, pauses)) == {200}


def test_each_client_has_a_limit(proxy: Proxy) -> None:
    with (
        live.server() as address,
        proxy(address, ("limit_conn segrt 32", "limit_conn segrt 2")) as client,
    ):

        def post(_: int) -> int:
            answer = client.post(PATH, content=SAMPLE.read_bytes(), headers=PNG)
            return int(answer.status_code)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(post, range(24))) == {200, 429}
