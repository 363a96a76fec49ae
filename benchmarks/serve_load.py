"""`segrt serve` under load, from a second process on the loopback interface.

    python benchmarks/serve_load.py PHOTOS [--count 200] [--rounds 3] \\
        [-o benchmarks/results/serving.md]

Throughput, in alternation: `Pipeline.predict` over the files in one process, and 16 clients that
send the same files to the server, which answers with label PNGs. Then, again in alternation, 8
clients alone and together with 16 hostile JPEGs; 200 clients at once, memory over 5,000 small
requests, SIGTERM under load and with hostile JPEGs in progress, and the time from kill -9 to ready
again. The labels of every answer are compared with those of the library.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from segrt.bench.pairs import Ratio

PATH = "/semantic-segmentation"
Labels = npt.NDArray[np.uint8]


class Server:
    """`segrt serve` in a separate process."""

    def __init__(self, *options: str) -> None:
        start = time.perf_counter()
        command = [sys.executable, "-m", "segrt", "serve", "--port", "0", "--device", "cpu"]
        self.process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        printed = ""
        while not (found := re.search(r"serving .* at\s+(http://[\d.]+:\d+)", printed)):
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(printed)
            printed += line
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
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        return status


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server that is killed at the end of the block."""
    server = Server(*options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@dataclass(frozen=True)
class Photos:
    """The files to send.

    Attributes:
        files: their paths.
        bodies: their bytes.
        expected: the library's labels.
    """

    files: list[Path]
    bodies: list[bytes]
    expected: list[Labels]


@dataclass
class Load:
    """The outcome of many requests.

    Attributes:
        seconds: wall time.
        latencies: seconds of each request, by HTTP status.
        wrong: number of answers with other labels than expected.
    """

    seconds: float
    latencies: dict[int, list[float]]
    wrong: int


async def load(
    address: str,
    photos: Photos,
    *,
    clients: int,
    count: int,
    query: dict[str, str] | None = None,
) -> Load:
    """Send `count` requests from `clients` clients; labels are checked if there is no `query`."""
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
                    content=photos.bodies[number % len(photos.bodies)],
                    params=params,
                    headers={"Content-Type": "image/png"},
                )
                latencies.setdefault(answer.status_code, []).append(time.perf_counter() - start)
                if answer.status_code == 200 and not query:
                    data = base64.b64decode(answer.json()["result"]["labelMap"])
                    got = np.asarray(Image.open(io.BytesIO(data)))
                    expected = photos.expected[number % len(photos.expected)]
                    wrong += not np.array_equal(got, expected)

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return Load(time.perf_counter() - start, latencies, wrong)


def hostile_jpegs() -> list[bytes]:
    """Progressive JPEGs: one with 10,000 scans, and one as slow to decode as the limits permit."""
    found = []
    for side, scans in ((480, 10_000), (4000, 20)):
        buffer = io.BytesIO()
        picture = Image.effect_noise((side // 40, side // 40), 90).convert("RGB")
        picture.resize((side, side)).save(buffer, "JPEG", progressive=True, quality=20)
        jpeg = buffer.getvalue()
        missing = scans - jpeg.count(b"\xff\xda")
        found.append(jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * missing + jpeg[-2:])
    return found


async def send_hostile(address: str) -> Counter[int]:
    """Send 16 hostile JPEGs at once; the number of answers by status."""
    async with httpx.AsyncClient(base_url=address, timeout=120) as http:
        headers = {"Content-Type": "image/jpeg"}
        answers = await asyncio.gather(
            *(
                http.post(PATH, content=body, headers=headers, params={"targetSize": "64"})
                for body in hostile_jpegs() * 8
            )
        )
        return Counter(answer.status_code for answer in answers)


async def until_stopped(server: Server, body: bytes, seconds: float) -> tuple[Counter[str], int]:
    """Send requests from 16 clients without keep-alive, and SIGTERM after some seconds.

    Returns:
        tuple: number of requests by outcome, and the exit status.
    """
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
    """The smallest value not exceeded by `share` of the values, in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure_throughput(
    server: Server, pipeline: segrt.Pipeline, photos: Photos, options: argparse.Namespace
) -> str:
    """16 clients compared with `Pipeline.predict`, as a row of the table."""
    asyncio.run(load(server.address, photos, clients=16, count=32))
    ratios, times, wrong = list[float](), list[float](), 0
    for _ in track(range(options.rounds), description="throughput"):
        many = list(islice(cycle(photos.files), options.count))
        start = time.perf_counter()
        for _result in pipeline.predict(many, batch_size=int(options.max_batch)):
            pass
        alone = time.perf_counter() - start
        done = asyncio.run(load(server.address, photos, clients=16, count=options.count))
        statuses = {status: len(found) for status, found in done.latencies.items()}
        assert set(statuses) == {200}, statuses
        times += done.latencies[200]
        wrong += done.wrong
        ratios.append(alone / done.seconds)
    median, p99 = percentile(times, 0.5), percentile(times, 0.99)
    return (
        f"| 16 clients, {len(times)} requests | throughput relative to `predict`: "
        f"{Ratio(tuple(ratios))}; latency median {median:.0f} ms, p99 {p99:.0f} ms, "
        f"{p99 / median:.2f} times the median; {wrong} wrong, no error |"
    )


def measure_hostile(server: Server, photos: Photos, rounds: int) -> str:
    """8 clients alone, and with 16 hostile JPEGs, as a row of the table."""

    async def both() -> tuple[Load, Counter[int]]:
        hostile = asyncio.create_task(send_hostile(server.address))
        return await load(server.address, photos, clients=8, count=100), await hostile

    alone, together, statuses, wrong = list[float](), list[float](), Counter[int](), 0
    for _ in track(range(rounds), description="hostile"):
        alone += asyncio.run(load(server.address, photos, clients=8, count=100)).latencies[200]
        done, answered = asyncio.run(both())
        together += done.latencies[200]
        statuses += answered
        wrong += done.wrong
    before, after = percentile(alone, 0.99), percentile(together, 0.99)
    return (
        f"| 16 hostile JPEGs at once | p99 of 8 other clients {before:.0f} ms alone, {after:.0f} "
        f"ms with them, {after / before:.2f} times; {len(together)} answered, {wrong} wrong; the "
        f"hostile ones: {dict(statuses)} |"
    )


async def stop_with_hostile(server: Server) -> float:
    """Seconds from SIGTERM to the exit, with 16 hostile JPEGs in progress."""
    hostile = asyncio.create_task(send_hostile(server.address))
    await asyncio.sleep(0.5)
    start = time.perf_counter()
    await asyncio.get_running_loop().run_in_executor(None, server.stop, signal.SIGTERM)
    seconds = time.perf_counter() - start
    await asyncio.gather(hostile, return_exceptions=True)
    return seconds


def measure_overload(server: Server, photos: Photos) -> str:
    """200 clients at once, as a row of the table."""
    done = asyncio.run(load(server.address, photos, clients=200, count=200))
    full = done.latencies.get(503, [])
    others = sorted(set(done.latencies) - {200, 503})
    return (
        f"| 200 clients at once | {len(done.latencies[200])} answered, {done.wrong} wrong; "
        f"{len(full)} answered 503, median {percentile(full, 0.5) if full else 0:.0f} ms; other "
        f"statuses: {others} |"
    )


def measure_memory(server: Server, photos: Photos, count: int) -> str:
    """Memory after each tenth of `count` small requests, as a row of the table."""
    memory = []
    query = {"targetSize": "128"}
    for _ in track(range(10), description="memory"):
        asyncio.run(load(server.address, photos, clients=16, count=count // 10, query=query))
        memory.append(f"{server.memory():.0f}")
    return f"| memory after each tenth of {count} requests | {', '.join(memory)} MiB |"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=200, help="requests per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, default=5000, help="requests during which memory is measured"
    )
    parser.add_argument("--max_batch", default="8")
    parser.add_argument("--mode", default="normal")
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, and print or write the table."""
    options = parse_arguments()
    files = sorted(file for file in options.photos.iterdir() if file.suffix in (".png", ".jpg"))
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu", mode=options.mode)
    expected = [labels(result) for result in pipeline.predict(files)]
    photos = Photos(files, [file.read_bytes() for file in files], expected)
    serve = ("--mode", options.mode, "--max-batch", options.max_batch)
    with serving(*serve) as server:
        lines = [
            measure_throughput(server, pipeline, photos, options),
            measure_hostile(server, photos, options.rounds),
            measure_overload(server, photos),
            measure_memory(server, photos, options.memory),
        ]
        outcomes, status = asyncio.run(until_stopped(server, photos.bodies[0], 5))
        lines.append(f"| SIGTERM under load | {dict(outcomes)}; exit status {status} |")
    with serving(*serve) as server:
        seconds = asyncio.run(stop_with_hostile(server))
        lines.append(f"| SIGTERM with 16 hostile JPEGs in progress | exit after {seconds:.1f} s |")
    with serving(*serve) as server:
        server.stop(signal.SIGKILL)
    with serving(*serve) as server:
        lines.append(f"| kill -9, then restart | ready after {server.ready_s:.2f} s |")
    cpu = catalog.read(gpus=False).cpu
    head = (
        f"# The server under load\n\nMade by `benchmarks/serve_load.py`: {pipeline.model_name} on "
        f"{pipeline.session.provider} {pipeline.session.precision}, photos of "
        f"{expected[0].shape[0]}x{expected[0].shape[1]}, batches of at most {options.max_batch}, "
        f"{cpu.name}, {cpu.cores} cores shared by clients and server, load average "
        f"{os.getloadavg()[0]:.1f} at the end.\n\n| | |\n|---|---|\n"
    )
    report = head + "\n".join(lines) + "\n"
    print(report)
    if options.output:
        options.output.write_text(report)


def labels(result: segrt.SegResult | segrt.SegFailure) -> Labels:
    """The labels of a result, as its PNG contains them."""
    assert isinstance(result, segrt.SegResult)
    return result.labels.astype(np.uint8)


if __name__ == "__main__":
    main()
