"""Peak memory and time of a sliding window over a large memory-mapped image.

    python benchmarks/slide_memory.py [--side 20000] [--slide 1024,768] [--model_dir MODEL.onnx]

The image is noise that repeats, in a temporary .npy file of side x side x 3 bytes. The peak is that of the resident
set: the pages of the mapped image count while they are in memory, though the system can drop them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import Progress

import segrt


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--slide", default="1024,768")
    parser.add_argument("--model_dir")
    arguments = parser.parse_args()
    pipeline = segrt.create_pipeline("semantic_segmentation", model_dir=arguments.model_dir)
    with tempfile.TemporaryDirectory() as folder, Progress() as bar:
        file = Path(folder, "image.npy")
        image = np.lib.format.open_memmap(file, "w+", np.uint8, (arguments.side, arguments.side, 3))
        noise = np.random.default_rng(0).integers(0, 256, (64, arguments.side, 3), np.uint8)
        for top in range(0, arguments.side, 64):
            image[top : top + 64] = noise[: arguments.side - top]
        del image
        mapped = np.load(file, mmap_mode="r")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        task = bar.add_task("crops")
        start = time.perf_counter()
        results = pipeline.predict(
            mapped, -1, slide=arguments.slide, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )
        for result in results:
            assert result.error is None
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{arguments.side} x {arguments.side}, {pipeline.model_name}, window {arguments.slide}: "
        f"peak {peak:.2f} GiB (before: {before:.2f}), {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
