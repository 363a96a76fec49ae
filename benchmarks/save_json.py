"""Time `save_to_json` for a label map of 2048 x 1024 in each label format.

    python benchmarks/save_json.py [--classes 19] [--repeat 20]

The labels are those of smoothed noise. "json.dumps" is the standard library's way to write the
list: `json.dumps(result.json["res"])`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from segrt.palette import voc_palette
from segrt.result import SegResult, Timings


def make_result(classes: int, height: int = 1024, width: int = 2048) -> SegResult:
    """A result with regions of a few hundred pixels."""
    noise = (
        np.random.default_rng(0)
        .standard_normal((classes, height // 8, width // 8))
        .astype(np.float32)
    )
    smooth = [cv2.resize(cv2.GaussianBlur(plane, (0, 0), 3), (width, height)) for plane in noise]
    return SegResult(
        labels=np.argmax(smooth, axis=0).astype(np.int32),
        image=np.zeros((height, width, 3), np.uint8),
        input_path="photo.jpg",
        page_index=None,
        class_names=tuple(f"class_{i}" for i in range(classes)),
        palette=voc_palette(),
        model_name="noise",
        provider="",
        precision="",
        timings=Timings(0, 0, 0),
        stem="photo",
    )


def main() -> None:
    """Print a line per format: fastest and median milliseconds, and the size of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    result = make_result(arguments.classes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.json")
        cases: dict[str, Callable[[], object]] = {
            "list": partial(result.save_to_json, file),
            "list, indent 4": partial(result.save_to_json, file, 4),
            "rle": partial(result.save_to_json, file, label_format="rle"),
            "png": partial(result.save_to_json, file, label_format="png"),
            "json.dumps": lambda: file.write_text(json.dumps(result.json["res"])),
        }
        for name, save in cases.items():
            seconds = []
            for _ in range(arguments.repeat if name != "json.dumps" else 2):
                start = time.perf_counter()
                save()
                seconds.append(time.perf_counter() - start)
            print(
                f"{name:15} fastest {min(seconds) * 1e3:8.1f} ms   "
                f"median {np.median(seconds) * 1e3:8.1f} ms   {file.stat().st_size / 1e6:7.2f} MB"
            )


if __name__ == "__main__":
    main()
