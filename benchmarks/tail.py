"""Time preprocessing and postprocessing on one core.

    python benchmarks/tail.py [--repeat 50] [--logits logits.npy --stride 8]

Without `--logits`, the logits are noise, smoothed to a given share of mixed cells: cells of the
low-resolution grid whose four corners don't share the class with the largest logit. "full size" is
the straightforward way: upsample all classes, then argmax.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from segrt.postprocess import labels_from_logits
from segrt.preprocess import Normalize, Transforms

Logits = NDArray[np.float32]


def calm_logits(classes: int, height: int, width: int, mixed: float) -> Logits:
    """Noise (1, classes, height, width), smoothed until at most `mixed` of the cells are mixed."""
    noise = np.random.default_rng(0).standard_normal((classes, height, width)).astype(np.float32)
    sigma = 1.0
    logits = noise[None]
    while mixed_share(logits) > mixed:
        sigma *= 1.1
        logits = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in noise])[None]
    return np.asarray(10 * logits / logits.std(), np.float32)


def mixed_share(logits: Logits) -> float:
    """Share of the cells whose corners have different classes."""
    winner = logits.argmax(1)
    a, b, c, d = winner[:, :-1, :-1], winner[:, :-1, 1:], winner[:, 1:, :-1], winner[:, 1:, 1:]
    return float(((a != b) | (a != c) | (a != d)).mean())


def full_size(logits: Logits, size: tuple[int, int]) -> NDArray[np.int64]:
    """Upsample with OpenCV's half-pixel bilinear resize, then argmax."""
    return np.asarray(np.argmax([cv2.resize(plane, size[::-1]) for plane in logits[0]], axis=0))


def inputs_of(arguments: argparse.Namespace) -> list[tuple[Logits, tuple[int, int]]]:
    """Logits and the size (height, width) of their source image."""
    if arguments.logits:
        stack, stride = np.load(arguments.logits), arguments.stride
        return [(one[None], (one.shape[1] * stride, one.shape[2] * stride)) for one in stack]
    return [
        (calm_logits(150, 64, 128, 0.15), (512, 1024)),
        (calm_logits(11, 90, 120, 0.15), (720, 960)),
        (calm_logits(11, 90, 120, 0.25), (720, 960)),
        (calm_logits(19, 128, 256, 0.15), (1024, 2048)),
        (calm_logits(11, 47, 63, 0.15), (375, 500)),
    ]


def cases_of(inputs: list[tuple[Logits, tuple[int, int]]]) -> dict[str, Callable[[], object]]:
    """The functions to time, by name."""
    cases: dict[str, Callable[[], object]] = {}
    for logits, size in inputs:
        name = (
            f"{logits.shape[1]} classes, {logits.shape[2]}x{logits.shape[3]} -> "
            f"{size[0]}x{size[1]}, {mixed_share(logits):.1%} mixed"
        )
        cases[f"postprocess  {name}"] = partial(labels_from_logits, logits, size)
        cases[f"with scores  {name}"] = partial(labels_from_logits, logits, size, with_scores=True)
        cases[f"full size    {name}"] = partial(full_size, logits, size)
    transforms = Transforms(Normalize())
    for size in dict.fromkeys(size for _, size in inputs):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        cases[f"preprocess   {size[0]}x{size[1]}"] = partial(
            transforms.write, image, np.empty((3, *size), np.float32)
        )
    return cases


def main() -> None:
    """Print a line per case: median and fastest of `--repeat` interleaved runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--logits", help=".npy file, float32 (N, C, h, w); each is timed")
    parser.add_argument("--stride", type=int, default=8, help="stride of the logits in that file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    cases = cases_of(inputs_of(arguments))
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(arguments.repeat):
        for name, case in cases.items():
            if name.startswith("p") or turn % 10 == 0:
                start = time.perf_counter()
                case()
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(
            f"{name:72} median {np.median(times) * 1e3:8.2f} ms   "
            f"fastest {min(times) * 1e3:8.2f} ms"
        )


if __name__ == "__main__":
    main()
