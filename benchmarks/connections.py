"""`/health` while other clients hold connections open without completing a request.

    python benchmarks/connections.py [--idle 1100] [--slow 200] [--seconds 60] [--files 1024]

The server runs with a limit on open files. Idle clients send half of a request's headers; slow
clients send the headers of a request, then one byte of its body per second. A client whose
connection is closed opens the next one a second later. Meanwhile `/health` is requested four times
a second on a new connection. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
from serve_load import serving

HALF = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Half: "
SLOW = (
    b"POST /semantic-segmentation HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    b"Content-Length: 1000000\r\n\r\n"
)


async def client(host: str, port: int, head: bytes, counts: Any) -> None:
    """Hold a connection open; open another one when the server closes it."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, port)
            counts[0] += 1
            try:
                writer.write(head)
                while not writer.is_closing():
                    with suppress(asyncio.TimeoutError):
                        if not await asyncio.wait_for(reader.read(1 << 16), 1):
                            break
                    if head is SLOW:
                        writer.write(b"a")
                        await writer.drain()
            finally:
                counts[1] += 1
                writer.close()
        await asyncio.sleep(1)


def attack(address: httpx.URL, heads: Sequence[bytes], counts: Any) -> None:
    """Run all idle and slow clients; counts connections opened and closed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each client needs a descriptor

    async def run() -> None:
        port = address.port or 80
        await asyncio.gather(*(client(address.host, port, head, counts) for head in heads))

    asyncio.run(run())


def watch(address: str, seconds: float) -> tuple[list[float], list[str]]:
    """Request `/health` on new connections: the seconds of each answer, and the errors."""
    times, errors = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        try:
            httpx.get(f"{address}/health", timeout=5).raise_for_status()
            times.append(time.perf_counter() - begin)
        except httpx.HTTPError as error:
            errors.append(f"{type(error).__name__}: {error}")
        time.sleep(0.25)
    return times, errors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle", type=int, default=1100)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--files", type=int, default=1024, help="limit on the server's open files")
    parser.add_argument("options", nargs="*", help="options of segrt serve, after --")
    arguments = parser.parse_args()
    heads = [HALF] * arguments.idle + [SLOW] * arguments.slow
    counts = multiprocessing.Array("q", 2, lock=False)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.files, hard))  # the server inherits it
    with serving(*arguments.options) as server:
        url = httpx.URL(server.address)
        attacker = multiprocessing.Process(target=attack, args=(url, heads, counts))
        attacker.start()
        try:
            times, errors = watch(server.address, arguments.seconds)
        finally:
            attacker.kill()
        size = sum(map(len, server.log))
    milliseconds = 1000 * np.array(times or [np.inf])
    print(
        f"{arguments.idle} idle and {arguments.slow} slow clients, {arguments.files} files, "
        f"{arguments.seconds:g} s:\n"
        f"/health: {len(times)} answered, {len(errors)} failed; median "
        f"{np.median(milliseconds):.0f} ms, max {milliseconds.max():.0f} ms\n"
        f"connections opened {counts[0]}, closed by the server {counts[1]}\n"
        f"log: {size / 1e6:.2f} MB",
        *dict.fromkeys(errors),
        sep="\n",
    )


if __name__ == "__main__":
    main()
