"""Throughput of a folder of photos, from files to saved results, compared with the network alone.

    python benchmarks/directory.py PHOTOS [--count 500] [--rounds 5] [--workers 1] \\
        [-o benchmarks/results/directory.md]

The photos are copied into a temporary folder, repeatedly until there are `--count`. Then, in
alternation:

- network: `session.run` on prepared batches of one photo, one after the other.
- folder: what `segrt predict FOLDER --save-path OUT` does: read, decode, preprocess, run,
  postprocess, and save the label image and the JSON file.

Ratios are computed within each round. First, a saved label image is compared with its labels.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image

import segrt
from segrt.frame import Frame
from segrt.schedule import in_threads
from segrt.sources import frames

SAVERS = 2
"""Threads that save results, as in the command line."""


def prepare(pipeline: segrt.Pipeline, photos: list[Path]) -> list[npt.NDArray[np.float32]]:
    """The input tensor of each photo."""
    batches = []
    for frame in frames(photos):
        assert isinstance(frame, Frame)
        height, width = pipeline.transforms.size(frame.image.shape[:2], pipeline.target_size)
        batches.append(np.empty((1, 3, height, width), np.float32))
        pipeline.transforms.write(frame.image, out=batches[-1][0])
    return batches


def save(result: segrt.SegResult | segrt.SegFailure, out: Path) -> None:
    """Save what the command line saves."""
    assert isinstance(result, segrt.SegResult)
    result.save_to_img(out)
    result.save_to_json(out)


def check_saved(pipeline: segrt.Pipeline, photo: Path, out: Path) -> None:
    """Check that a saved label image has the labels of the result."""
    (result,) = pipeline.predict(photo)
    save(result, out)
    assert isinstance(result, segrt.SegResult)
    assert (np.asarray(Image.open(next(out.glob("*.png")))) == result.labels).all()


def report(network: Sequence[float], folder: Sequence[float]) -> list[str]:
    """The lines of the table: images per second of each round."""
    ratios = sorted(f / n for f, n in zip(folder, network, strict=True))
    span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    return [
        "",
        "| | images/s, median |",
        "|---|---|",
        f"| network alone | {median(network):.2f} |",
        f"| whole folder | {median(folder):.2f} |",
        f"| ratio, median of the rounds | {median(ratios):.3f} ({span}) |",
    ]


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--mode", default="normal")
    parser.add_argument("--model_dir")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    originals = sorted(path for path in arguments.photos.iterdir() if path.is_file())
    options = {"model_dir": arguments.model_dir, "mode": arguments.mode, "device": "cpu"}
    alone = segrt.create_pipeline("semantic_segmentation", **options)
    whole = segrt.create_pipeline("semantic_segmentation", **options, workers=arguments.workers)
    batches = prepare(alone, originals)
    network, folder = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as temporary:
        photos, out = Path(temporary, "photos"), Path(temporary, "out")
        photos.mkdir()
        for number, path in enumerate(islice(cycle(originals), arguments.count)):
            shutil.copy(path, photos / f"{number:05}{path.suffix}")
        check_saved(alone, originals[0], out)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for batch in islice(cycle(batches), arguments.count):
                alone.session.run(batch)
            between = time.perf_counter()
            for _ in in_threads(lambda result: save(result, out), whole.predict(photos), SAVERS):
                pass
            end = time.perf_counter()
            network.append(arguments.count / (between - start))
            folder.append(arguments.count / (end - between))
            print(f"network {network[-1]:.2f}, folder {folder[-1]:.2f} images/s", flush=True)
    title = (
        f"{arguments.count} photos of {batches[0].shape[3]} x {batches[0].shape[2]}, "
        f"{alone.model_name}, {alone.session.plan}; folder: {whole.session.plan}, workers "
        f"{arguments.workers}; {platform.machine()}, {arguments.rounds} interleaved rounds"
    )
    text = "\n".join([title, *report(network, folder)])
    print(text)
    if arguments.output:
        arguments.output.write_text(f"# A folder of photos\n\n{text}\n")


if __name__ == "__main__":
    main()
