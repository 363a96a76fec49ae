"""Frames per second of overlay videos, compared with another checkout of segrt.

    python benchmarks/video.py --against CHECKOUT [--frames 200] [--rounds 5] \\
        [--sizes 480x360,1280x720] [-o benchmarks/results/video.md]

A clip of each size is generated. Each round runs both checkouts, one after the other, in
subprocesses with the same interpreter and packages, in alternating order. Each is measured twice:

- function: `save_overlay_video`, after a first run that is not measured. Files are read, segmented
  and written; the model is loaded before, and both processes stay. Once by the clock, and once by
  the seconds of CPU, which other processes disturb less.
- command: `segrt predict CLIP`, from the start of the process to its end.

Ratios are computed within each round. First, it is checked that both write all frames.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

import av
import numpy as np
from common import Rates, Worker, run, timed

FUNCTION = """
import resource, sys, time, segrt
clip, out, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
for _ in sys.stdin:
    start, before = time.perf_counter(), used()
    segrt.save_overlay_video(pipeline, clip, out, size)
    print(time.perf_counter() - start, used() - before, flush=True)
"""
COMMAND = "import sys; from segrt.cli import main; sys.exit(main())"


def write_clip(path: Path, width: int, height: int, frames: int) -> None:
    """Write an H.264 clip of a moving gradient with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    noise = random.integers(0, 16, (height, width, 3), np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            waves = np.stack([columns + 4 * index, rows + index, rows + columns], -1) % 240
            picture = av.VideoFrame.from_ndarray(waves.astype(np.uint8) + noise, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def command_rate(checkout: Path, clip: Path, out: Path, size: int, frames: int) -> float:
    """Frames per second of `segrt predict`."""
    options = ["--save-path", str(out), "--target-size", str(size), "--device", "cpu"]
    return frames / timed(lambda: run(checkout, COMMAND, "predict", str(clip), *options))


def count(folder: Path) -> int:
    """The frames of the only video in a folder."""
    (path,) = folder.iterdir()
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="480x360,1280x720")
    parser.add_argument("--target-size", type=int, default=256)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    here, size, frames = Path(__file__).parents[1], arguments.target_size, arguments.frames
    lines = ["| | this, frames/s | other, frames/s | ratio (range) |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sizes.split(","):
            width, height = map(int, name.split("x"))
            clip = Path(temporary, f"{name}.mp4")
            write_clip(clip, width, height, frames)
            checkouts = (here, "ours"), (arguments.against, "theirs")
            folders = {label: Path(temporary, label + name) for _, label in checkouts}
            wall, cpu, command = Rates(), Rates(), Rates()
            workers = {k: Worker(c, FUNCTION, clip, folders[k], size) for c, k in checkouts}
            for number in range(arguments.rounds):
                for _, label in checkouts[:: -1 if number % 2 else 1]:
                    seconds = workers[label].ask()
                    getattr(wall, label).append(frames / seconds[0])
                    getattr(cpu, label).append(frames / seconds[1])
                    assert count(folders[label]) == frames
                print(f"{name} function: {wall.ours[-1]:.1f} and {wall.theirs[-1]:.1f}/s")
            for worker in workers.values():
                worker.close()
            for number in range(arguments.rounds):
                for checkout, label in checkouts[:: -1 if number % 2 else 1]:
                    rate = command_rate(checkout, clip, folders[label], size, frames)
                    getattr(command, label).append(rate)
                print(f"{name} command: {command.ours[-1]:.1f} and {command.theirs[-1]:.1f}/s")
            lines += [
                wall.line(f"{name}, function"),
                cpu.line(f"{name}, function, per second of CPU"),
                command.line(f"{name}, command"),
            ]
    title = (
        f"Clips of {frames} frames at --target-size {size} with the bundled model; "
        f"{platform.machine()}, {os.cpu_count()} cores, {arguments.rounds} interleaved rounds"
    )
    text = "\n".join([title, "", *lines])
    print(text)
    if arguments.output:
        arguments.output.write_text(f"# Overlay videos\n\n{text}\n")


if __name__ == "__main__":
    main()
