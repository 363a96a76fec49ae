"""Shared by the scripts that measure `.onnx` files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
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
