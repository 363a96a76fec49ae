"""Decodes images in worker processes, so that a decoder that hangs or crashes costs one request.

Images are untrusted bytes, and their decoders are written in C. Each worker is a fresh Python
process at the other end of a socket: nothing of the server is imported or inherited. An image goes
over as a memory file (`os.memfd_create`), which the worker replaces with the pixels; the server
maps them. These files have no name, so that nothing is left behind however either process ends. The
answer of a worker is JSON, since unpickling what a broken process sends could run code.

A pool of `multiprocessing` or a library on top of it would import the caller's main script into
its workers, share one pipe among them, and unpickle what they return.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Condition
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segrt.errors import ConfigError, InputError, SegrtError, TooLargeError
from segrt.reading import Reading
from segrt.sources import one_image, one_page

log = logging.getLogger("segrt.serve")

_Pixels: TypeAlias = npt.NDArray[np.uint8]
_Decode: TypeAlias = Callable[[bytes, int | None, Reading], tuple[_Pixels, int]]

_ERRORS = {error.__name__: error for error in (ConfigError, InputError, TooLargeError)}
_REQUEST = 32  # bytes, of a number in decimal
_REPLY = 1 << 14  # bytes; messages are shorter

# Address space of a worker on top of its libraries. Pixels take 3 bytes here and 4 in Pillow; the
# coefficients of a progressive JPEG 6, the floats of a TIFF 4 to 16, and turning one upright 4.
_BYTES_PER_PIXEL = 64
_SPARE_BYTES = 256 << 20

_START_SECONDS = 60.0
_EXIT_SECONDS = 0.1

# A worker that the server can no longer kill ends itself after this many further seconds.
_GRACE_SECONDS = 5.0


class Decoders:
    """A pool of worker processes that decode images.

    Workers start when they are needed and stay. Methods may be called from any thread.

    Example:
        >>> decoders = Decoders(2, max_pixels=16_000_000, seconds=10)
        >>> image, _ = decoders.decode(Path("road.jpg").read_bytes())
        >>> decoders.close()
    """

    def __init__(
        self, workers: int, *, max_pixels: int, seconds: float, module: str = __name__
    ) -> None:
        """Create the pool, without starting a process.

        Args:
            workers: maximum number of processes.
            max_pixels: maximum pixels of an image.
            seconds: time limit for one image.
            module: what a worker runs; it calls `main`.

        Raises:
            ConfigError: this is a frozen program that can't run modules, but would start itself.
        """
        if getattr(sys, "frozen", False) and not getattr(sys, "segrt_workers", False):
            raise ConfigError(
                "this frozen program can't start the workers that decode images: build it with "
                "PyInstaller, which finds segrt's hooks by itself"
            )
        self._free, self._seconds = workers, seconds
        self._start = partial(_Worker, module, max_pixels, seconds + _GRACE_SECONDS)
        self._idle: list[_Worker] = []  # the last one was used most recently
        self._busy: set[_Worker] = set()
        self._changed = Condition()
        self._closed = False

    def start(self) -> None:
        """Start all workers now, so that no image waits for one."""
        workers = [self._start() for _ in range(self._free)]
        with self._changed:
            self._idle += workers
        for worker in workers:
            worker.wait()

    def decode(self, content: bytes, page: int | None = None) -> tuple[_Pixels, int]:
        """Decode an image, or one page. Waits for an idle worker.

        Args:
            content: the bytes of a file.
            page: zero-based page of a PDF or TIFF, or frame of an animation; None for a file that
                contains one image.

        Returns:
            tuple: uint8 (H, W, 3), BGR, and the number of pages.

        Raises:
            ConfigError: there is no such page.
            InputError: see `segrt.sources.one_image`; or the decoder crashed.
            TooLargeError: it has too many pixels, or takes too much time or memory.
        """
        with self._worker() as worker:
            worker.wait()
            return worker.decode(content, page, self._seconds)

    def close(self) -> None:
        """Kill all workers, even those that are decoding."""
        with self._changed:
            self._closed = True
            for worker in [*self._idle, *self._busy]:
                worker.kill()
            self._idle.clear()
            self._changed.notify_all()

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free)
            if self._closed:
                raise RuntimeError("the decoders are closed")
            self._free -= 1
            worker = self._idle.pop() if self._idle else None
            if worker and not worker.alive:  # ended by the system, say for want of memory
                worker.kill()
                worker = None
        try:
            if worker is None:
                worker = self._start()
            with self._changed:
                self._busy.add(worker)
                if self._closed:
                    worker.kill()
            yield worker
        finally:
            with self._changed:
                self._free += 1
                if worker:
                    self._busy.discard(worker)
                    if worker.alive and not self._closed:
                        self._idle.append(worker)
                self._changed.notify()


class _Worker:
    """One worker process, used by one thread at a time."""

    def __init__(self, module: str, max_pixels: int, seconds: float) -> None:
        self._module, self._ready = module, False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder),
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", module),
                    *(str(theirs.fileno()), str(max_pixels), str(seconds)),
                ],
                env=environment,
                cwd="/",  # `-m` also imports from the current folder, which may be anyone's
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff prints a line for each unknown tag
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Wait until the process has imported what it needs."""
        if self._ready:
            return
        self._socket.settimeout(_START_SECONDS)
        try:
            self._ready = bool(self._socket.recv(_REPLY))
        except OSError:  # too late, or killed
            self._ready = False
        if not self._ready:
            self._end()
            raise RuntimeError(
                f"a decoder did not start: run `{sys.executable} -m {self._module}` to see why"
            )

    def kill(self) -> None:
        """End the process at once. Whoever waits for it gets an error."""
        self._process.kill()
        self._process.wait()

    def decode(self, content: bytes, page: int | None, seconds: float) -> tuple[_Pixels, int]:
        """See `Decoders.decode`."""
        with _memory_file(content) as file:
            self._socket.settimeout(seconds)
            try:
                socket.send_fds(self._socket, [json.dumps(page).encode()], [file])
                reply = self._socket.recv(_REPLY)
            except TimeoutError:
                self._end()
                raise TooLargeError(
                    f"this image takes more than {seconds:g} s to decode: save it with another "
                    "program, or smaller"
                ) from None
            except OSError:  # the process ended before it took the image
                reply = b""
            if not reply:
                self._end()
                raise InputError(
                    "the decoder crashed on this image: it is damaged, or takes too much memory"
                )
            answer = json.loads(reply)
            if "error" in answer:
                raise _ERRORS[answer["error"]](answer["message"])
            height, width = answer["size"]
            pixels = mmap.mmap(file, height * width * 3)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3), answer["pages"]

    def _end(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)  # for its own status, if it is ending
        self.kill()
        self._socket.close()
        status = self._process.returncode
        log.warning("a decoder ended with status %s; the next image starts another", status)


@contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    file = os.memfd_create("segrt-image")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
        yield file
    finally:
        os.close(file)


def _work(decode: _Decode, reading: Reading, channel: socket.socket, seconds: float) -> None:
    """Decode the images that arrive, until the server is gone; end if one takes too long."""
    channel.send(b"ready")
    while True:
        request, files, _, _ = socket.recv_fds(channel, _REQUEST, 1)
        if not files:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)  # ends the process, even inside a decoder
        with open(files[0], "r+b", buffering=0) as file:
            answer = _reply(file, json.loads(request), reading, decode)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(json.dumps(answer).encode())


def _reply(file: FileIO, page: int | None, reading: Reading, decode: _Decode) -> dict[str, object]:
    """Replace the contents of a file with the pixels of the image it contains."""
    try:
        file.seek(0)
        image, pages = decode(file.readall(), page, reading)
        file.seek(0)
        file.truncate(image.nbytes)
        view = image.data.cast("B")
        while view:
            view = view[file.write(view) :]
        return {"size": image.shape[:2], "pages": pages}
    except MemoryError:
        return {"error": "TooLargeError", "message": "decoding it takes too much memory"}
    except SegrtError as error:
        kind = type(error).__name__
        return {"error": kind if kind in _ERRORS else "InputError", "message": str(error)[:1000]}


def _limit_memory(max_pixels: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _SPARE_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )


def _decode(content: bytes, page: int | None, reading: Reading) -> tuple[_Pixels, int]:
    return (one_image(content, reading), 1) if page is None else one_page(content, page, reading)


def main(decode: _Decode = _decode) -> None:
    """Run a worker, with the arguments that `Decoders` gives it."""
    # The server ends this process. Signals to its process group (Ctrl-C) or control group (systemd)
    # must not cost requests in progress.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    handle, max_pixels, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    reading = Reading(max_pixels=max_pixels)
    _limit_memory(max_pixels)
    with suppress(ConnectionError):
        _work(decode, reading, socket.socket(fileno=handle), seconds)


if __name__ == "__main__":
    main()
