"""Sizes and labels of device files: the tables of docs/edge.md, in Markdown.

    python benchmarks/device_files.py --photos PHOTOS MODEL.onnx...

Each model is converted with `segrt_export.to_device` to both formats, with each type of weights, at
two sizes. What segrt-export would refuse is listed too, and marked.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from unittest import mock

import segrt_export
from segrt.errors import ExportError
from segrt.folders import find_images
from segrt_export import device, parity

SIZES = ((360, 480), (512, 512))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    options = parser.parse_args()
    photos = [Path(file) for file in find_images(str(options.photos)).files]
    columns = [f"labels at {height}x{width} %, worst photo" for height, width in SIZES]
    print(f"| model | format | weights | MB | {' | '.join(columns)} |")
    print(f"|{'---|' * (4 + len(SIZES))}")
    with tempfile.TemporaryDirectory() as work, mock.patch.object(device, "THRESHOLD", 0.0):
        for model in options.models:
            for line in _lines(model, photos, Path(work)):
                print(line, flush=True)


def _lines(model: Path, photos: list[Path], work: Path) -> Iterator[str]:
    for suffix in ("ort", "mnn"):
        for weights in get_args(device.Weights):
            cells, size_mb = [], ""
            for size in SIZES:
                try:
                    done = segrt_export.to_device(
                        model, work / f"model.{suffix}", weights=weights, size=size, images=photos
                    )
                except ExportError as error:
                    cells.append(str(error))
                    continue
                found = done.report["parity"]
                refused = found["worst"] < parity.THRESHOLD
                size_mb = f"{done.report['bytes'] / 1e6:.1f}"
                cells.append(
                    f"{100 * found['agreement']:.3f}, {100 * found['worst']:.3f}"
                    f"{' (refused)' if refused else ''}"
                )
            yield f"| {model.stem} | {suffix} | {weights} | {size_mb} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
