"""`segrt serve` under load, from a second process on the loopback interface.

    python benchmarks/serve_load.py PHOTOS [--count 200] [--rounds 3] [-o benchmarks/results/serving.md]

Throughput: in turns, `Pipeline.predict` over the photos' files in one process, and 16 clients that send the same files
to the server, which then answers with label PNGs. Then 200 clients at once, memory over 5,000 small requests, SIGTERM
under load, and the time from kill -9 to ready again. Every answer's labels are compared with the library's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

import segrt
from segrt.backends import catalog

PATH = "/semantic-segmentation"
Labels = npt.NDArray[np.uint8]


class Server:
    """`segrt serve` in a process of its own."""

    def __init__(self, *options: str) -> None:
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "segrt.cli",
            "serve",
            "--port",
            "0",
            "--device",
            "cpu",
            *options,
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = ""
        while not (found := re.search(r"serving .* at\s+(http://[\d.]+:\d+)", said)):
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(said)
            said += line
        self.address = found[1]
        self.log: list[str] = []
        self._reader = Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        while httpx.get(self.address + "/ready").status_code != 200:
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - start

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self, number: int) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        return status


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server that does not outlive the block."""
    server = Server(*options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


async def load(
    address: str,
    bodies: Sequence[bytes],
    expected: Sequence[Labels],
    *,
    clients: int,
    count: int,
    query: dict[str, str] | None = None,
) -> tuple[float, dict[int, list[float]], int]:
    """Send `count` requests from `clients` clients; returns seconds, latencies by status, and wrong answers."""
    numbers, latencies, wrong = iter(range(count)), dict[int, list[float]](), 0
    params = {"labelFormat": "png", "visualize": "false", **(query or {})}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=120) as http:

        async def client() -> None:
            nonlocal wrong
            for number in numbers:
                start = time.perf_counter()
                answer = await http.post(
                    PATH,
                    content=bodies[number % len(bodies)],
                    params=params,
                    headers={"Content-Type": "image/png"},
                )
                latencies.setdefault(answer.status_code, []).append(time.perf_counter() - start)
                if answer.status_code == 200 and expected:
                    data = base64.b64decode(answer.json()["result"]["labelMap"])
                    got = np.asarray(Image.open(io.BytesIO(data)))
                    wrong += not np.array_equal(got, expected[number % len(expected)])

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.perf_counter() - start, latencies, wrong


async def until_stopped(server: Server, body: bytes, seconds: float) -> tuple[Counter[str], int]:
    """Ask from 16 clients without keep-alive, SIGTERM after some seconds; returns outcomes and the exit status."""
    outcomes: Counter[str] = Counter()
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.address, limits=limits, timeout=60) as http:

        async def client() -> None:
            while True:
                try:
                    answer = await http.post(
                        PATH,
                        content=body,
                        params={"labelFormat": "png"},
                        headers={"Content-Type": "image/png"},
                    )
                    outcomes[str(answer.status_code)] += 1
                except (httpx.ConnectError, httpx.ReadError):
                    outcomes["not accepted"] += 1
                    return

        tasks = [asyncio.create_task(client()) for _ in range(16)]
        await asyncio.sleep(seconds)
        status = asyncio.get_running_loop().run_in_executor(None, server.stop, signal.SIGTERM)
        await asyncio.gather(*tasks)
        return outcomes, await status


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed, in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=200, help="requests of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, default=5000, help="requests over which memory is watched"
    )
    parser.add_argument("--max_batch", default="8")
    parser.add_argument("--mode", default="normal")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    files = sorted(file for file in options.photos.iterdir() if file.suffix in (".png", ".jpg"))
    bodies = [file.read_bytes() for file in files]
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu", mode=options.mode)
    expected = [labels(result) for result in pipeline.predict(files)]
    serve = ("--mode", options.mode, "--max-batch", options.max_batch)
    lines: list[str] = []

    with serving(*serve) as server:
        asyncio.run(load(server.address, bodies, expected, clients=16, count=32))
        ratios, times, wrong = [], list[float](), 0
        for _ in track(range(options.rounds), description="throughput"):
            many = list(islice(cycle(files), options.count))
            start = time.perf_counter()
            for _result in pipeline.predict(many, batch_size=int(options.max_batch)):
                pass
            alone = time.perf_counter() - start
            seconds, latencies, bad = asyncio.run(
                load(server.address, bodies, expected, clients=16, count=options.count)
            )
            assert set(latencies) == {200}, {
                status: len(found) for status, found in latencies.items()
            }
            times += latencies[200]
            wrong += bad
            ratios.append(alone / seconds)
        median, last = percentile(times, 0.5), percentile(times, 0.99)
        lines.append(
            f"| 16 clients, {len(times)} requests | throughput {statistics.median(ratios):.2f} of `predict` alone"
            f" ({min(ratios):.2f} to {max(ratios):.2f}); latency median {median:.0f} ms, p99 {last:.0f} ms,"
            f" {last / median:.2f} times; {wrong} wrong, no error |"
        )
        _, latencies, wrong = asyncio.run(
            load(server.address, bodies, expected, clients=200, count=200)
        )
        full = latencies.get(503, [])
        lines.append(
            f"| 200 clients at once | {len(latencies[200])} answered, {wrong} wrong; {len(full)} answered 503,"
            f" median {percentile(full, 0.5) if full else 0:.0f} ms; others {sorted(set(latencies) - {200, 503})} |"
        )
        memory = []
        for _ in track(range(10), description="memory"):
            small = {"targetSize": "128"}
            asyncio.run(
                load(
                    server.address, bodies, [], clients=16, count=options.memory // 10, query=small
                )
            )
            memory.append(server.memory())
        shown = ", ".join(f"{size:.0f}" for size in memory)
        lines.append(f"| memory after each tenth of {options.memory} requests | {shown} MiB |")
        outcomes, status = asyncio.run(until_stopped(server, bodies[0], 5))
        lines.append(f"| SIGTERM under load | {dict(outcomes)}; exit status {status} |")
    with serving(*serve) as server:
        server.stop(signal.SIGKILL)
    with serving(*serve) as server:
        lines.append(f"| kill -9, then started again | ready after {server.ready_s:.2f} s |")

    here = catalog.read(gpus=False)
    head = (
        "# The server under load\n\nMade by `benchmarks/serve_load.py`: "
        f"{pipeline.model_name} on {pipeline.session.provider} {pipeline.session.precision}, photos of "
        f"{expected[0].shape[0]}x{expected[0].shape[1]}, batches of at most {options.max_batch}, {here.cpu.name}, "
        f"{here.cpu.cores} cores that clients and server share, load average {os.getloadavg()[0]:.1f} at the end.\n\n"
        "| | |\n|---|---|\n"
    )
    report = head + "\n".join(lines) + "\n"
    print(report)
    if options.output:
        options.output.write_text(report)


def labels(result: segrt.SegResult | segrt.SegFailure) -> Labels:
    """The labels of a result, as its PNG has them."""
    assert isinstance(result, segrt.SegResult)
    return result.labels.astype(np.uint8)


if __name__ == "__main__":
    main()
