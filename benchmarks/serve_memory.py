"""`segrt serve` under a memory limit: thousands of requests of mixed sizes, some of them hostile.

    python benchmarks/serve_memory.py [--count 3000] [--max-memory 2GiB] [--address-space 3] \\
        [-o benchmarks/results/serve_memory.md]

The images are of smoothed noise, from 1 x 1 to 16 megapixels, with and without a sliding window and
scores. Every answer must be the documented JSON. The table has the peak and the idle memory of the
server's process, and the peak together with its decoder processes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import resource
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
from PIL import Image
from rich.progress import Progress
from serve_load import PATH, serving

import segrt

DOCUMENTED = {200, 400, 408, 413, 415, 422, 503, 504}
SMALL = ((1, 1), (1, 700), (64, 64), (120, 333), (360, 480), (512, 512))
MEDIUM = ((720, 960), (1, 65_000), (1080, 1920))
LARGE = ((2400, 2400), (4000, 4000), (1, 15_999_999), (15_999_999, 1), (200, 60_000))


@dataclass(frozen=True)
class Body:
    """A request.

    Attributes:
        kind: for the table.
        content: the body.
        query: the options.
        media_type: the Content-Type.
    """

    kind: str
    content: bytes
    query: dict[str, str] = field(default_factory=dict)
    media_type: str = "image/png"


def png(height: int, width: int) -> bytes:
    """A PNG of smoothed noise."""
    rng = np.random.default_rng(height * 31 + width)
    small = rng.integers(0, 256, (max(1, height // 40), max(1, width // 40), 3), np.uint8)
    image = cv2.resize(small, (width, height))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def hostile() -> list[Body]:
    """Bodies that cost little to send and much to decode, or are damaged."""
    photo = png(360, 480)
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    progressive = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(progressive, "JPEG", progressive=True)
    jpeg = progressive.getvalue()
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return [
        Body("hostile", bomb.getvalue()),
        Body("hostile", jpeg[:-2] + scan * 10_000 + jpeg[-2:], media_type="image/jpeg"),
        Body("hostile", photo[: len(photo) // 2]),
        Body("hostile", photo[:33] + zlib.compress(bytes(1 << 24)) + photo[33:]),
        Body("hostile", photo, {"slide": "8,1"}),
        Body("hostile", photo, {"targetSize": "60000,60000"}),
        Body("hostile", b'{"image": ' + b"[" * 100_000, media_type="application/json"),
        Body("hostile", b"%PDF-1.7" + bytes(1000)),
        Body("hostile", photo, {"slide": "9" * 400 + ",1"}),
        Body("hostile", png(1, 15_999_999), {"targetSize": "2000,2000", "slide": "2000,64"}),
    ]


def bodies(count: int) -> list[Body]:
    """`count` requests in random order: 95% small, 4% medium, 1% large, 50 of them hostile."""
    options: list[dict[str, str]] = [
        {},
        {"scores": "true"},
        {"labelFormat": "png"},
        {"slide": "256,192"},
    ]
    chosen = random.Random(0)
    pictures = {size: png(*size) for size in (*SMALL, *MEDIUM, *LARGE)}
    found = hostile() * 5
    for sizes, kind, share in ((LARGE, "large", 0.01), (MEDIUM, "medium", 0.04)):
        for number in range(int(share * count)):
            query = {} if kind == "large" and number % 4 else chosen.choice(options)
            if kind == "large" and number % 4 == 1:
                query = {"slide": "2400,228"} if number % 8 == 1 else {"targetSize": "1024"}
            found.append(Body(kind, pictures[sizes[number % len(sizes)]], query))
    while len(found) < count:
        size = SMALL[len(found) % len(SMALL)]
        found.append(Body("small", pictures[size], chosen.choice(options)))
    chosen.shuffle(found)
    return found


def memory_of(pid: int, key: str) -> float:
    """VmRSS or VmHWM of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) / 1024


def family(pid: int) -> float:
    """The proportional memory of a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for one in (str(pid), *children):
        try:
            smaps = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(smaps.split("Pss:")[1].split()[0])
    return total / 1024


async def send(
    address: str, requests: list[Body], pid: int, clients: int
) -> tuple[Counter[str], float]:
    """Send all requests; returns how many had which outcome, and the peak of the family."""
    outcomes: Counter[str] = Counter()
    pending, peak = iter(requests), 0.0
    limits = httpx.Limits(max_connections=clients)
    with Progress() as progress:
        task = progress.add_task("requests", total=len(requests))
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=300) as http:

            async def client() -> None:
                nonlocal peak
                for body in pending:
                    headers = {"Content-Type": body.media_type}
                    answer = await http.post(
                        PATH, content=body.content, params=body.query, headers=headers
                    )
                    status = answer.status_code
                    code = answer.json()["errorCode"]
                    right = status in DOCUMENTED and code == (0 if status == 200 else status)
                    outcomes[f"{body.kind}: {status if right else f'WRONG {status}'}"] += 1
                    peak = max(peak, family(pid))
                    progress.advance(task)

            await asyncio.gather(*(client() for _ in range(clients)))
    return outcomes, peak


def main() -> None:
    """Run the server under the limits, and print or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--max-memory", default="2GiB")
    parser.add_argument("--address-space", type=float, default=0, help="GiB, as `ulimit -v`")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    requests = bodies(options.count)
    if options.address_space:
        limit = int(options.address_space * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with serving("--max-memory", options.max_memory, "--timeout", "20") as server:
        pid = server.process.pid
        time.sleep(3)
        first = memory_of(pid, "VmRSS")
        start = time.perf_counter()
        outcomes, peak = asyncio.run(send(server.address, requests, pid, options.clients))
        seconds = time.perf_counter() - start
        time.sleep(40)  # the network gives up what it can do without after 30 s
        idle, high = memory_of(pid, "VmRSS"), memory_of(pid, "VmHWM")
        mapped = memory_of(pid, "VmPeak")
        alive = httpx.get(server.address + "/health").status_code == 200
        logged = sum(map(len, server.log))
    space = f"address space limited to {options.address_space:g} GiB"
    space = space if options.address_space else "address space not limited"
    lines = [
        f"# The server under --max-memory {options.max_memory}",
        "",
        f"Made by `benchmarks/serve_memory.py` with segrt {segrt.__version__}: "
        f"{len(requests)} requests from {options.clients} clients in {seconds:.0f} s, {space}.",
        "",
        "| | |",
        "|---|---|",
        f"| alive at the end | {alive} |",
        f"| idle memory at first | {first:.0f} MiB |",
        f"| peak of the server's process | {high:.0f} MiB |",
        f"| peak of its address space | {mapped:.0f} MiB |",
        f"| peak with its decoders (Pss, sampled) | {peak:.0f} MiB |",
        f"| idle memory afterwards | {idle:.0f} MiB, {idle / first:.2f} times the first |",
        f"| log | {logged / 1e6:.2f} MB |",
        *(f"| {outcome} | {number} |" for outcome, number in sorted(outcomes.items())),
    ]
    report = "\n".join(lines) + "\n"
    print(report)
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main()
