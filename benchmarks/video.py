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
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import av
import numpy as np
from common import timed

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


@dataclass
class Rates:
    """Frames per second of each round."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def line(self, title: str) -> str:
        """A row of the table."""
        ratios = sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        ours, theirs = median(self.ours), median(self.theirs)
        return f"| {title} | {ours:.1f} | {theirs:.1f} | {median(ratios):.3f} ({span}) |"


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


def run(checkout: Path, code: str, *arguments: str) -> str:
    """Run code with the segrt of a checkout; returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


class Worker:
    """A process that calls `save_overlay_video` with the segrt of a checkout."""

    def __init__(self, checkout: Path, clip: Path, out: Path, size: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FUNCTION, str(clip), str(out), str(size)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seconds()

    def seconds(self) -> tuple[float, float]:
        """Seconds of one call, by the clock and of CPU."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, cpu = self._process.stdout.readline().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


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
            workers = {k: Worker(c, clip, folders[k], size) for c, k in checkouts}
            for number in range(arguments.rounds):
                for _, label in checkouts[:: -1 if number % 2 else 1]:
                    seconds = workers[label].seconds()
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
