from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segrt.errors import ConfigError, InputError, TooLargeError
from segrt.reading import Reading
from segrt.serve import decoding
from segrt.serve.decoding import Decoders
from segrt.sources import one_image

MAX_PIXELS = 100_000
Pool = Callable[..., Decoders]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Makes pools, of `odd_decoder` workers unless another module is given."""
    pools: list[Decoders] = []

    def make(workers: int = 1, seconds: float = 30, module: str = "serve.odd_decoder") -> Decoders:
        pools.append(Decoders(workers, max_pixels=MAX_PIXELS, seconds=seconds, module=module))
        return pools[-1]

    yield make
    for decoders in pools:
        decoders.close()


@pytest.fixture
def real() -> Iterator[Decoders]:
    decoders = Decoders(2, max_pixels=MAX_PIXELS, seconds=30)
    yield decoders
    decoders.close()


def _process(decoders: Decoders) -> int:
    """The process id of the worker that decodes next."""
    return int.from_bytes(decoders.decode(b"")[0].tobytes(), "little")


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _ended(process: int) -> bool:
    """Whether a process ends within some seconds. In some containers nobody reaps orphans."""
    for _ in range(600):
        try:
            if _state(process) == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def _encoded(image: npt.NDArray[np.uint8], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (64, 96), (313, 317)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_pixels_are_those_of_one_image(real: Decoders, form: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    data = _encoded(image, form)
    for _ in range(2):
        decoded, _ = real.decode(data)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, one_image(data, Reading()))


def test_pixels_belong_to_the_caller(real: Decoders) -> None:
    black, white = (_encoded(np.full((9, 9, 3), v, np.uint8), "PNG") for v in (0, 255))
    first, _ = real.decode(black)
    first[0, 0] = 7
    real.decode(white)
    assert first[0, 0, 0] == 7
    assert not first[1:].any()


def test_errors_are_those_of_one_image(real: Decoders) -> None:
    noise = _encoded(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8), "PNG")
    large = _encoded(np.zeros((1, MAX_PIXELS + 1, 3), np.uint8), "PNG")
    with pytest.raises(TooLargeError, match="more than 100,000 pixels"):
        real.decode(large)
    for data, message in (
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"%PDF-1.4", "a PDF"),
        (noise[: len(noise) // 2], "can't be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            real.decode(data)
        assert type(caught.value) is InputError


def test_pages_are_decoded_one_by_one(real: Decoders) -> None:
    greys = [Image.new("L", (8, 6), 50 * n) for n in range(3)]
    buffer = io.BytesIO()
    greys[0].save(buffer, "TIFF", save_all=True, append_images=greys[1:])
    for index in (2, 0, 1):
        image, pages = real.decode(buffer.getvalue(), index)
        assert (image == 50 * index).all()
        assert pages == 3
    with pytest.raises(ConfigError, match="there is no page 3: this file has 3 pages"):
        real.decode(buffer.getvalue(), 3)
    with pytest.raises(InputError, match="several images"):
        real.decode(buffer.getvalue())


@pytest.mark.parametrize("how", [b"sleep", b"spin"])
def test_a_decoder_that_hangs_is_killed(
    pool: Pool, how: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    decoders = pool(seconds=0.2)
    before = _process(decoders)
    with pytest.raises(TooLargeError, match=r"more than 0\.2 s"):
        decoders.decode(how)
    assert not Path(f"/proc/{before}").exists()
    assert "status -9" in caplog.text
    assert _process(decoders) != before


@pytest.mark.parametrize(("how", "status"), [(b"crash", "-11"), (b"kill", "-9"), (b"bug", "1")])
def test_a_decoder_that_crashes_costs_one_image(
    pool: Pool,
    how: bytes,
    status: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_EXIT_SECONDS", 20)  # other tests may keep all cores busy
    caplog.set_level(logging.WARNING)
    decoders = pool()
    before = _process(decoders)
    with pytest.raises(InputError, match="crashed"):
        decoders.decode(how)
    assert f"status {status}" in caplog.text
    assert not Path(f"/proc/{before}").exists()  # reaped
    assert _process(decoders) != before


def test_a_decoder_runs_out_of_its_own_memory(pool: Pool) -> None:
    decoders = pool()
    before = _process(decoders)
    with pytest.raises(TooLargeError, match="memory"):
        decoders.decode(b"memory")
    assert _process(decoders) == before


def test_an_idle_worker_that_was_killed_is_replaced(pool: Pool) -> None:
    decoders = pool()
    before = _process(decoders)
    os.kill(before, signal.SIGKILL)
    while _state(before) != "Z":
        time.sleep(0.01)
    assert _process(decoders) != before
    assert not Path(f"/proc/{before}").exists()


def test_others_go_on_while_one_hangs(pool: Pool) -> None:
    decoders = pool(2)
    decoders.start()
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(decoders.decode, b"sleep")
        while decoders._free == 2:
            time.sleep(0.01)
        assert len({_process(decoders) for _ in range(50)}) == 1
        decoders.close()
        assert isinstance(hanging.exception(60), InputError)


def test_close_kills_workers_that_hang(pool: Pool) -> None:
    decoders = pool(2)
    decoders.start()
    barrier = Barrier(3)

    def hang() -> None:
        barrier.wait()
        decoders.decode(b"spin")

    with ThreadPoolExecutor(3) as threads:
        tasks = [threads.submit(hang) for _ in range(3)]  # one waits for a worker
        while decoders._free:
            time.sleep(0.01)
        processes = [worker._process.pid for worker in decoders._busy]
        decoders.close()
        errors = {type(task.exception(60)) for task in tasks}
    assert errors == {InputError, RuntimeError}
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    with pytest.raises(RuntimeError, match="closed"):
        decoders.decode(b"")


def test_signals_to_the_group_do_not_end_a_worker(pool: Pool) -> None:
    decoders = pool()
    process = _process(decoders)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process, number)
    assert _process(decoders) == process


def test_a_worker_that_can_not_start_is_not_the_fault_of_the_image(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="-m no_such_module"):
        pool(module="no_such_module").decode(b"")


@pytest.mark.parametrize("how", [b"", b"sleep"])
def test_workers_end_when_the_server_is_killed(tmp_path: Path, how: bytes) -> None:
    program = (
        "from segrt.serve import decoding\n"
        "decoding._GRACE_SECONDS = 0.5\n"
        "pool = decoding.Decoders(1, max_pixels=9, seconds=0.5, module='serve.odd_decoder')\n"
        "print(int.from_bytes(pool.decode(b'')[0].tobytes(), 'little'), flush=True)\n"
        f"pool._seconds = 1000\npool.decode({how!r})\ninput()"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        server.kill()
    assert _ended(worker)


def test_nothing_is_left_behind(pool: Pool, real: Decoders) -> None:
    before, shared = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    decoders = pool(seconds=0.2)
    for how in (b"", b"sleep", b"crash", b"memory"):
        with suppress(InputError):
            decoders.decode(how)
    decoders.close()
    del decoders
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # the socket of the last worker
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if "segrt" in name}
