"""Shared by the scripts that measure `.onnx` files, or compare two checkouts."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt


def arguments_for_files(description: str | None, *, repeat: int) -> argparse.ArgumentParser:
    """A parser for model files, the size of the input, and the number of runs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=repeat)
    return parser


def noise(channels: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """Standard normal noise, float32 (1, channels, height, width)."""
    shape = (1, channels, height, width)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def timed(run: Callable[[], object]) -> float:
    """Seconds one run takes."""
    start = perf_counter()
    run()
    return perf_counter() - start


@dataclass
class Rates:
    """Items per second of each round, of two checkouts."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def line(self, title: str) -> str:
        """A row of the table."""
        ratios = sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        ours, theirs = median(self.ours), median(self.theirs)
        return f"| {title} | {ours:.1f} | {theirs:.1f} | {median(ratios):.3f} ({span}) |"


def run(checkout: Path, code: str, *arguments: str) -> str:
    """Run code with the segrt of a checkout; returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


class Worker:
    """A process that runs code with the segrt of a checkout, and answers each line it gets.

    Args:
        checkout: its folder.
        code: reads lines from stdin, and prints a line with numbers for each.
        arguments: of the code.
    """

    def __init__(self, checkout: Path, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(checkout / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self.ask()  # which is not measured

    def ask(self) -> list[float]:
        """The numbers of the next answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [*map(float, self._process.stdout.readline().split())]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
