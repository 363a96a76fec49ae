"""Time the exports of label maps: polygons, GeoJSON and COCO.

    python benchmarks/polygons.py [labels.png ...] [--repeat 10]

Without files, the labels are smoothed noise of 2048 x 1024, and noise of 512 x 512.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import timed
from PIL import Image
from save_json import make_result

from segrt.result import SegResult


def _result(labels: object) -> SegResult:
    ids = np.asarray(labels, np.int32)
    return dataclasses.replace(
        make_result(256, 8, 8), labels=ids, image=np.zeros((*ids.shape, 3), np.uint8)
    )


def main() -> None:
    """Print the fastest of several runs for each label map and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path, help="label maps: PNGs of class ids")
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 4, (512, 512))
    results = {str(file): _result(Image.open(file)) for file in arguments.files} or {
        "smoothed noise": make_result(19),
        "noise": _result(noise),
    }
    for name, result in results.items():
        exports: dict[str, Callable[[], object]] = {
            "to_polygons": result.to_polygons,
            "to_geojson": result.to_geojson,
            "to_coco_rle": result.to_coco_rle,
            "to_coco_rle, per region": partial(result.to_coco_rle, per_region=True),
        }
        print(f"{name}: {result.labels.shape}, {len(result.to_polygons())} regions")
        for export, run in exports.items():
            print(f"  {export:25}{min(timed(run) for _ in range(arguments.repeat)) * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
