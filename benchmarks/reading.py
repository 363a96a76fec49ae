"""Photos per second that are read from a folder, compared with another checkout of segrt.

    python benchmarks/reading.py PHOTOS --against CHECKOUT [--count 500] [--rounds 9] \\
        [-o benchmarks/results/reading.md]

The photos are copied into a temporary folder as JPEGs, repeatedly until there are `--count`. Each
round reads the folder once with both checkouts, in alternating order, in processes that stay.
Ratios are computed within each round. First, it is checked that both give the same pixels.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from itertools import cycle, islice
from pathlib import Path

from common import Rates, Worker
from PIL import Image

CODE = """
import sys, time, zlib
from segrt.sources import frames
for number, _ in enumerate(sys.stdin):
    start, check, count = time.perf_counter(), 0, 0
    for frame in frames(sys.argv[1]):
        count += 1
        if number == 0:
            check = zlib.crc32(frame.image, check)
    print(time.perf_counter() - start, count, check, flush=True)
"""


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rates = Rates()
    with tempfile.TemporaryDirectory() as folder:
        photos = islice(cycle(sorted(arguments.photos.iterdir())), arguments.count)
        for number, photo in enumerate(photos):
            with Image.open(photo) as image:
                image.convert("RGB").save(Path(folder, f"{number:05}.jpg"), quality=90)
        both = [Worker(c, CODE, folder) for c in (Path(__file__).parents[1], arguments.against)]
        ours, theirs = both
        assert ours.first[1:] == theirs.first[1:] == [arguments.count, ours.first[2]]
        for number in range(arguments.rounds):
            for worker in both[:: -1 if number % 2 else 1]:
                found = rates.ours if worker is ours else rates.theirs
                found.append(arguments.count / worker.ask()[0])
        for worker in both:
            worker.close()
    lines = [
        f"A folder of {arguments.count} JPEGs; {platform.machine()}, {os.cpu_count()} cores, "
        f"{arguments.rounds} interleaved rounds",
        "",
        "| | this, photos/s | other, photos/s | ratio (range) |",
        "|---|---|---|---|",
        rates.line("reading"),
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(["# Reading a folder", "", *lines, ""]))


if __name__ == "__main__":
    main()
