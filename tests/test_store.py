from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from tars import MODEL, model_tar, tar_of

from segrt import lock, package_data, store, zoo
from segrt.errors import ConfigError, DownloadError, ModelError
from segrt.http import redirected
from segrt.store import Limits

BODY = model_tar()
NAME = "PP-LiteSeg-B"
SLICED = "SegFormer-B0 (slice)"
QUICK = Limits(
    connect_s=2, read_s=0.5, window_s=0.2, min_bytes_per_s=100_000, attempts=3, backoff_s=0.01
)


class Site:
    """A server on 127.0.0.1. Each request consumes one of `answers`; the last one is repeated."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[Answer] = [Answer()]
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append(
                    (self.path, {name.lower(): value for name, value in self.headers.items()})
                )
                answer = site.answers[0] if len(site.answers) == 1 else site.answers.pop(0)
                self.close_connection = True
                answer.send(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/base"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.requests]


@dataclass
class Answer:
    """How the server responds to one request.

    Attributes:
        status: if not 200, only it and `headers` are sent.
        body: the file.
        headers: additional headers.
        etag: version of the file; empty to send none.
        length: send Content-Length.
        cut: stop after this many bytes ...
        hold: ... or wait for this event, then send the rest.
        drip: seconds between single bytes.
        ranges: honour Range.
        ignores_if_range: resume without comparing If-Range.
    """

    status: int = 200
    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = '"1"'
    length: bool = True
    cut: int | None = None
    hold: threading.Event | None = None
    drip: float = 0
    ranges: bool = True
    ignores_if_range: bool = False

    def send(self, request: BaseHTTPRequestHandler) -> None:
        status, start = self.status, 0
        requested = request.headers.get("Range")
        if (
            status == 200
            and requested
            and self.ranges
            and (self.ignores_if_range or request.headers["If-Range"] == self.etag)
        ):
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(self.body) else 416
        body = self.body[start:] if status in (200, 206) else b""
        request.send_response(status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        if self.etag:
            request.send_header("ETag", self.etag)
        if status == 206:
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            )
        request.end_headers()
        with suppress(OSError):  # the client may have disconnected
            if self.drip:
                for position in range(len(body)):
                    request.wfile.write(body[position : position + 1])
                    time.sleep(self.drip)
            request.wfile.write(body[: self.cut])
            if self.hold and self.cut:
                self.hold.wait(20)
                request.wfile.write(body[self.cut :])


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SEGRT_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("SEGRT_HOME", str(home))
    monkeypatch.setenv("SEGRT_MIRROR", "http://127.0.0.1:1")  # nothing listens on this port
    return home


@pytest.fixture
def mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("SEGRT_MIRROR", site.url)
    return site


def files(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if path.is_file() and path.name != ".lock")


def get(name: str = NAME, limits: Limits = QUICK) -> Path:
    return store.fetch(zoo.get(name), progress=False, limits=limits)


def part(home: Path) -> Path:
    return home / "paddle" / NAME / f"{NAME}_infer.tar.part"


def failing(name: str = NAME, limits: Limits = QUICK) -> str:
    with pytest.raises(DownloadError) as caught:
        get(name, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def child(
    code: str, *, stdout: int | None = None, stderr: int | None = None
) -> subprocess.Popen[str]:
    lines = (
        "from segrt import store, zoo\n"
        f"fetch = lambda: store.fetch(zoo.get({NAME!r}), progress=False)\n{code}"
    )
    command = [sys.executable, "-c", lines]
    return subprocess.Popen(command, text=True, stdout=stdout, stderr=stderr)


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- successful downloads ---


def test_good_archive(mirror: Site, home: Path) -> None:
    path = get()
    assert path == home / "paddle" / NAME / f"{NAME}_infer.tar"
    assert path.read_bytes() == BODY
    assert files(home) == [path.name, path.name + ".json"]
    record = json.loads(path.with_name(path.name + ".json").read_text("utf-8"))
    assert record == {
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "source": f"{mirror.url}/official_inference_model/paddle3.0rc0/{NAME}_infer.tar",
    }
    assert get() == path
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("slash", ["", "/"])
def test_blanks_are_percent_encoded(
    site: Site, monkeypatch: pytest.MonkeyPatch, home: Path, slash: str
) -> None:
    monkeypatch.setenv("SEGRT_MIRROR", site.url + slash)
    path = get(SLICED)
    assert (
        site.requests[0][0]
        == "/base/official_inference_model/paddle3.0rc0/SegFormer-B0%20(slice)_infer.tar"
    )
    assert path == home / "paddle" / "SegFormer-B0_slice" / "SegFormer-B0 (slice)_infer.tar"


def test_folder_names_differ_even_if_case_is_ignored() -> None:
    specs = zoo.load().models
    assert len({str(store.onnx_path(spec)).lower() for spec in specs}) == len(specs)
    assert all(not set(" ()") & set(store.onnx_path(spec).parent.name) for spec in specs)


def test_server_that_sends_neither_version_nor_length(mirror: Site) -> None:
    mirror.answers = [Answer(etag="", length=False)]
    assert get().read_bytes() == BODY


def test_progress_is_shown_on_a_terminal_only(
    mirror: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store.fetch(zoo.get(NAME))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich assume a terminal
    store.fetch(zoo.get("PP-LiteSeg-T"))
    out, err = capfd.readouterr()
    assert out == ""
    assert "PP-LiteSeg-T" in err
    assert "1.0/1.0 MB" in err


def test_second_address_is_tried_if_the_first_has_no_file(mirror: Site) -> None:
    mirror.answers = [Answer(404), Answer()]
    assert get(SLICED).name == "SegFormer-B0_infer.tar"
    assert [unquote(path.rpartition("/")[2]) for path, _ in mirror.requests] == [
        "SegFormer-B0 (slice)_infer.tar",
        "SegFormer-B0_infer.tar",
    ]
    assert get(SLICED).name == "SegFormer-B0_infer.tar"
    assert len(mirror.requests) == 2


def test_server_error_is_retried(mirror: Site) -> None:
    mirror.answers = [Answer(500), Answer(503), Answer()]
    assert get().read_bytes() == BODY


def test_redirect_is_followed(mirror: Site, site: Site) -> None:
    mirror.answers = [
        Answer(302, headers={"Location": "/elsewhere"}),
        Answer(307, headers={"Location": "x"}),
        Answer(),
    ]
    assert get().read_bytes() == BODY
    assert [path for path, _ in site.requests[1:]] == ["/elsewhere", "/x"]


# --- interrupted downloads ---


def test_truncated_download_is_resumed(mirror: Site, home: Path) -> None:
    mirror.answers = [Answer(cut=300_000), Answer(cut=300_000), Answer()]
    assert get().read_bytes() == BODY
    assert mirror.ranges == [None, "bytes=300000-", "bytes=600000-"]
    assert files(home) == [f"{NAME}_infer.tar", f"{NAME}_infer.tar.json"]


def test_always_truncated(mirror: Site, home: Path) -> None:
    mirror.answers = [Answer(cut=1000, ranges=False)]
    assert "after 3 attempts" in failing()
    assert part(home).stat().st_size == 1000


@pytest.mark.parametrize(
    "later",
    [
        Answer(ranges=False),
        Answer(etag='"2"'),
        Answer(body=model_tar("other"), etag='"2"'),
        Answer(body=model_tar("other"), etag='"2"', ignores_if_range=True),
        Answer(body=model_tar("other"), etag="", ignores_if_range=True),
        Answer(body=BODY[:1000]),
    ],
    ids=[
        "no ranges",
        "new tag",
        "changed",
        "changed, If-Range ignored",
        "changed, If-Range ignored, no tag",
        "shorter",
    ],
)
def test_parts_of_different_versions_are_never_joined(
    mirror: Site, home: Path, later: Answer
) -> None:
    mirror.answers = [Answer(cut=500_000)]
    failing(limits=Limits(read_s=1, attempts=1))
    assert part(home).stat().st_size == 500_000
    mirror.answers = [later]
    if len(later.body) == 1000:
        assert "is not a Paddle model" in failing()
        assert files(home) == []
    else:
        assert get().read_bytes() == later.body


def test_part_from_another_address_is_not_resumed(
    mirror: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.answers = [Answer(cut=500_000)]
    failing(limits=Limits(read_s=1, attempts=1))
    monkeypatch.setenv("SEGRT_MIRROR", mirror.url + "/other")
    mirror.answers = [Answer()]
    get()
    assert mirror.ranges == [None, None]


def test_part_of_a_copied_file_is_not_resumed(
    mirror: Site, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.answers = [Answer(cut=500_000)]
    failing(limits=Limits(read_s=1, attempts=1))
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path))
    file = tmp_path / zoo.get(NAME).archives[0].path
    file.parent.mkdir(parents=True)
    file.write_bytes(model_tar("other", weights=bytes(400_000)))
    with monkeypatch.context() as context:  # as if it had been killed after copying
        context.setattr(store, "_accept", lambda *_: None)
        get()
    monkeypatch.setenv("SEGRT_MIRROR", mirror.url)
    mirror.answers = [Answer()]
    assert get().read_bytes() == BODY


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 1}', b"\xff"])
def test_damaged_resume_information_restarts_the_download(
    mirror: Site, home: Path, note: bytes
) -> None:
    part(home).parent.mkdir(parents=True)
    part(home).write_bytes(b"x" * 1000)
    part(home).with_name(part(home).name + ".json").write_bytes(note)
    assert get().read_bytes() == BODY
    assert mirror.ranges == [None]


def test_killed_download_is_resumed(mirror: Site, home: Path) -> None:
    hold = threading.Event()
    mirror.answers = [Answer(cut=700_000, hold=hold), Answer()]
    process = child("fetch()")
    wait_for(lambda: part(home).exists() and part(home).stat().st_size > 600_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hold.set()
    size = part(home).stat().st_size
    assert get().read_bytes() == BODY
    assert mirror.ranges == [None, f"bytes={size}-"]
    assert files(home) == [f"{NAME}_infer.tar", f"{NAME}_infer.tar.json"]


def test_two_processes_download_once(mirror: Site, home: Path) -> None:
    hold = threading.Event()
    mirror.answers = [Answer(cut=500_000, hold=hold)]
    with child("fetch()") as first:
        wait_for(lambda: mirror.requests)
        with child("print(fetch())", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            assert second.stderr
            line = second.stderr.readline()
            assert "waiting for another process that is downloading PP-LiteSeg-B" in line
            hold.set()
            out, _ = second.communicate(timeout=20)
    assert (first.returncode, second.returncode) == (0, 0)
    assert Path(out.strip()).read_bytes() == BODY
    assert len(mirror.requests) == 1


def test_full_disk_is_reported_and_leaves_no_partial_file(mirror: Site, home: Path) -> None:
    with child(
        "import resource\nfrom segrt.errors import DownloadError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    fetch()\nexcept DownloadError as error:\n    print(error)",
        stdout=subprocess.PIPE,
    ) as process:
        out, _ = process.communicate(timeout=20)
    assert "File too large; free some space, or set SEGRT_HOME to a folder on another disk" in out
    assert out.count("\n") == 1
    assert files(home) == []


# --- downloads that must fail ---


def test_stalled_download_fails(mirror: Site) -> None:
    mirror.answers = [Answer(drip=0.02)]
    began = time.monotonic()
    assert "stalled: " in failing(limits=Limits(read_s=1, window_s=0.2, attempts=2, backoff_s=0))
    assert time.monotonic() - began < 3


def test_silent_server_times_out(mirror: Site) -> None:
    hold = threading.Event()
    mirror.answers = [Answer(cut=10, hold=hold)]
    assert "timed out" in failing(limits=Limits(read_s=0.1, attempts=2, backoff_s=0))
    hold.set()


def test_unreachable_server() -> None:
    assert "after 3 attempts" in failing()


def test_invalid_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRT_MIRROR", "http://a\u2028b/x")
    assert "is not a valid address" in failing()


def test_not_found_message_lists_every_address(mirror: Site, home: Path) -> None:
    mirror.answers = [Answer(404)]
    message = failing(SLICED)
    assert "SegFormer-B0%20(slice)_infer.tar (HTTP 404), nor at " in message
    assert "paddle3.0.0/SegFormer-B0_infer.tar (HTTP 404); set SEGRT_MIRROR" in message
    assert len(mirror.requests) == 2
    assert files(home) == []


def test_other_client_errors_are_not_retried(mirror: Site) -> None:
    mirror.answers = [Answer(401)]
    assert "HTTP 401" in failing()
    assert len(mirror.requests) == 1


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "redirects to 'file:/etc/passwd': only http"),
        ("ftp://127.0.0.1/x", "only http"),
        ("/again", "redirects more than 5 times"),
        ("http://127.0.0.1:port/", "after 3 attempts: Invalid URL in location header"),
    ],
)
def test_bad_redirects(mirror: Site, location: str, why: str) -> None:
    mirror.answers = [Answer(301, headers={"Location": location})]
    assert why in failing()


def test_redirect_from_https_to_http_is_not_followed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            302, headers={"Location": str(request.url.copy_with(scheme="http", host="b"))}
        )

    client = httpx.Client(transport=httpx.MockTransport(answer))
    with (
        pytest.raises(DownloadError, match="https://a/x redirects to 'http://b/x'"),
        redirected(client, "https://a/x", {}, QUICK.redirects),
    ):
        pass


@pytest.mark.parametrize("length", [True, False])
def test_too_large(mirror: Site, home: Path, length: bool) -> None:
    mirror.answers = [Answer(length=length)]
    assert "larger than a model may be: over 1000 bytes" in failing(limits=Limits(max_bytes=1000))
    assert files(home) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>Please log in</html>", "neither a tar nor a tar.gz archive"),
        (tar_of(("readme", b"x")), "contains no Paddle model, only readme"),
        (tar_of(("../evil", b"x")), "not a safe name"),
    ],
)
def test_other_files_are_neither_kept_nor_recorded(
    mirror: Site, home: Path, body: bytes, why: str
) -> None:
    mirror.answers = [Answer(body=body)]
    message = failing()
    source = f"{mirror.url}/official_inference_model/paddle3.0rc0/{NAME}_infer.tar"
    assert f"the file from {source} is not a Paddle model" in message
    assert why in message
    assert files(home) == []


def test_known_hash(mirror: Site, home: Path) -> None:
    spec = zoo.get(NAME)

    def known(sha256: str) -> zoo.ModelSpec:
        return spec.model_copy(
            update={"archives": (spec.archives[0].model_copy(update={"sha256": sha256}),)}
        )

    why = f"has sha256 [0-9a-f]{{64}}, not {'0' * 64}: it was changed at the source or in transit"
    with pytest.raises(DownloadError, match=why):
        store.fetch(known("0" * 64), progress=False, limits=QUICK)
    assert files(home) == []
    assert (
        store.fetch(
            known(hashlib.sha256(BODY).hexdigest()), progress=False, limits=QUICK
        ).read_bytes()
        == BODY
    )


def test_recorded_hash_is_enforced_after_removal(mirror: Site, home: Path) -> None:
    get()
    store.remove(NAME)
    mirror.answers = [Answer(body=model_tar("other"), etag='"2"')]
    message = failing()
    record = home / "paddle" / NAME / f"{NAME}_infer.tar.json"
    assert f"it differs from the first download; if that is intended, delete {record}" in message
    assert files(home) == [record.name]
    record.unlink()
    assert get().read_bytes() == model_tar("other")


def test_archive_damaged_in_the_cache(mirror: Site) -> None:
    path = get()
    path.write_bytes(BODY + b"x")
    assert 'it is damaged; run `segrt models remove "PP-LiteSeg-B"` and fetch it again' in failing()
    store.remove(NAME)
    assert get().read_bytes() == BODY


def test_damaged_record(mirror: Site) -> None:
    path = get()
    path.with_name(path.name + ".json").write_bytes(b"{")
    assert "json is damaged; delete it to accept" in failing()


def test_archive_placed_by_hand(home: Path) -> None:
    path = home / "paddle" / NAME / f"{NAME}_infer.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no tar")
    with pytest.raises(ModelError, match="neither a tar nor"):
        get()
    path.write_bytes(BODY)
    assert get() == path
    assert files(home) == [path.name, path.name + ".json"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write anywhere"
)
def test_read_only_cache_folder(home: Path) -> None:
    home.mkdir(mode=0o500)
    assert "Permission denied; set SEGRT_HOME" in failing()


def test_home_that_is_a_file(home: Path) -> None:
    home.touch()
    assert "set SEGRT_HOME to a writable folder" in failing()


# --- mirrors and offline use ---


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://localhost{}"])
def test_mirror_may_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    source = tmp_path / "a mirror"
    monkeypatch.setenv(
        "SEGRT_MIRROR", form.format(source).replace(" ", "%20" if "file:" in form else " ")
    )
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    with pytest.raises(ConfigError, match="is not valid: there is no such folder"):
        get()
    source.mkdir()
    message = failing()
    assert (
        f"{source}/official_inference_model/paddle3.0rc0/{NAME}_infer.tar (no readable file)"
        in message
    )
    file = source / "official_inference_model" / "paddle3.0rc0" / f"{NAME}_infer.tar"
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    assert "larger than a model may be" in failing(limits=Limits(max_bytes=1000))
    assert get().read_bytes() == BODY


@pytest.mark.parametrize(
    "mirror",
    [
        "ftp://me:secret@host/x",
        "http://",
        "http://[",
        "http://host/x?y=1",
        "http://host:port",
        "file://host/x",
    ],
)
def test_invalid_mirror(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("SEGRT_MIRROR", mirror)
    with pytest.raises(ConfigError, match=r"SEGRT_MIRROR '.*' is not valid: use http") as caught:
        get()
    assert "secret" not in str(caught.value)


def test_password_of_a_mirror_is_sent_but_never_shown(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_MIRROR", site.url.replace("//", "//me:secret@"))
    site.answers = [Answer(404), Answer(cut=10), Answer()]
    assert "secret" not in failing()
    assert "secret" not in failing(limits=Limits(read_s=1, attempts=1))
    assert b"secret" not in b"".join(
        path.read_bytes() for path in home.rglob("*") if path.is_file()
    )
    assert b"secret" not in get().with_name(f"{NAME}_infer.tar.json").read_bytes()
    assert site.requests[0][1]["authorization"].startswith("Basic ")


def test_offline(mirror: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    message = failing(SLICED)
    assert "SEGRT_OFFLINE forbids network access: put 'SegFormer-B0 (slice)_infer.tar'" in message
    assert f"into {home / 'paddle' / 'SegFormer-B0_slice'}" in message
    assert mirror.requests == []
    monkeypatch.setenv("SEGRT_OFFLINE", "0")
    path = get()
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    assert get() == path
    monkeypatch.setenv("SEGRT_OFFLINE", "perhaps")
    with pytest.raises(ConfigError, match="SEGRT_OFFLINE 'perhaps' is not valid: use 1 or 0"):
        get(SLICED)


def test_mirrors_are_tried_in_order(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, empty = "http://127.0.0.1:1/x", tmp_path / "empty"
    monkeypatch.setenv("SEGRT_MIRROR", f"{dead}, {empty} ,{site.url}")
    site.answers = [Answer(404), Answer()]
    message = failing()
    assert f"not available at {dead} ({dead}/official" in message
    assert f"nor at {empty}/official_inference_model" in message
    assert "(HTTP 404)" in message
    assert get().read_bytes() == BODY
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    message = failing("PP-LiteSeg-T")
    assert f"{site.url} (SEGRT_OFFLINE forbids network access)" in message
    assert len(site.requests) == 2


def test_mirror_folder_whose_name_has_a_comma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a,b" / zoo.get(NAME).archives[0].path
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    monkeypatch.setenv("SEGRT_MIRROR", str(tmp_path / "a,b"))
    assert get().read_bytes() == BODY


def test_lock_file_is_enforced_on_download_and_later(
    mirror: Site, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key = tmp_path / "segrt.lock", f"paddle/{NAME}/{NAME}_infer.tar"
    good = lock.Locked(sha256=hashlib.sha256(BODY).hexdigest(), size=len(BODY))
    monkeypatch.setenv("SEGRT_LOCK", str(file))
    lock.write(file, {key: good.model_copy(update={"sha256": "0" * 64})})
    assert f"{key} has sha256 {good.sha256}, not {'0' * 64} as in the lock file" in failing()
    lock.write(file, {})
    assert f"{key} is not in the lock file {file}, which SEGRT_LOCK enforces" in failing()
    assert not [path for path in files(home) if path.endswith((".tar", ".part"))]
    lock.write(file, {key: good})
    assert get().read_bytes() == BODY
    lock.write(file, {})
    assert "is not in the lock file" in failing()


def test_unusable_proxy(mirror: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    assert "the proxy or certificates set in the environment can't be used" in failing()


def test_official_address_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGRT_MIRROR")
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    base = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model"
    assert f"(from {base}/paddle3.0rc0/PP-LiteSeg-B_infer.tar)" in failing()


# --- cached models ---


def test_require_reports_the_commands_to_run(mirror: Site, home: Path) -> None:
    spec = zoo.get(SLICED)
    command = 'run `segrt models fetch "SegFormer-B0 (slice)"`'
    with pytest.raises(ModelError) as caught:
        store.require(spec)
    assert str(caught.value) == f"SegFormer-B0 (slice) is not downloaded: {command}"
    get(SLICED)
    with pytest.raises(ModelError) as caught:
        store.require(spec)
    assert (
        str(caught.value)
        == f"SegFormer-B0 (slice) is downloaded but not yet converted to ONNX: {command}"
    )
    onnx = store.onnx_path(spec)
    assert onnx == home / "onnx" / "SegFormer-B0_slice" / "model.onnx"
    onnx.parent.mkdir(parents=True)
    onnx.write_bytes(b"onnx")
    assert store.require(spec) == store.locate(spec) == onnx


def _move_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = package_data.path

    def path(name: str) -> Path:
        return folder / name if name.startswith("models/") else packaged(name)

    monkeypatch.setattr(package_data, "path", path)


def test_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _move_models(tmp_path, monkeypatch)
    spec = zoo.get(zoo.DEFAULT_MODEL)
    assert store.locate(spec) is None
    with pytest.raises(ModelError, match="is missing: reinstall segrt"):
        store.require(spec)
    file = tmp_path / "models" / "PP-LiteSeg-T_camvid" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"onnx")
    assert store.require(spec) == file
    assert store.downloaded() == [store.Stored(spec, None, file, 4)]
    for refused in (lambda: store.fetch(spec), lambda: store.remove(spec.name)):
        with pytest.raises(ModelError, match="is bundled with segrt"):
            refused()


def test_downloaded_and_remove(
    mirror: Site, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _move_models(tmp_path, monkeypatch)
    assert store.downloaded() == []
    with pytest.raises(
        ModelError,
        match=f"{NAME} is not downloaded; models that can be removed: none",
    ):
        store.remove(NAME)
    assert not home.exists()
    archive = get()
    spec = zoo.get(NAME)
    assert store.downloaded() == [store.Stored(spec, archive, None, len(BODY))]
    onnx = store.onnx_path(spec)
    onnx.parent.mkdir(parents=True)
    onnx.write_bytes(b"onnx")
    assert store.downloaded() == [store.Stored(spec, archive, onnx, len(BODY) + 4)]
    with pytest.raises(ModelError, match=f"can be removed: {NAME}$"):
        store.remove("PP-LiteSeg-T")
    assert store.remove(NAME.lower()) == len(BODY) + 4
    assert store.downloaded() == []
    assert files(home) == [f"{NAME}_infer.tar.json"]
    assert not onnx.parent.exists()


def test_remove_deletes_interrupted_downloads(mirror: Site, home: Path) -> None:
    mirror.answers = [Answer(cut=1000)]
    failing(limits=Limits(read_s=1, attempts=1))
    assert len(files(home)) == 2
    assert store.remove(NAME) > 1000
    assert files(home) == []


def test_fetched_archive_can_be_unpacked(mirror: Site, tmp_path: Path) -> None:
    store.unpack(get(), tmp_path / "out")
    folder = store.find_model_dir(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODEL


def test_default_home_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRT_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert "segrt" in str(store.home())
    monkeypatch.setenv("SEGRT_HOME", "~/models")
    assert store.home() == Path.home() / "models"


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_a_user_without_a_home_gets_a_folder_that_no_other_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("SEGRT_HOME", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = store.home()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert store.home() == folder
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="set SEGRT_HOME"):
        store.home()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="set SEGRT_HOME"):
        store.home()
