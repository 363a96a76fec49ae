"""Throughput of a whole folder of photos, from files to saved results, beside that of the network alone.

    python benchmarks/directory.py PHOTOS [--count 500] [--rounds 5] [--workers 1] [-o benchmarks/results/directory.md]

The photos are copied into a temporary folder, again and again until there are `--count`. In turns, round after round:

- network: `session.run` on batches that are ready, one for each photo, one after the other.
- folder: what `segrt predict FOLDER --save_path OUT` does: read and decode, preprocess, run, postprocess, save the
  label picture and the JSON.

The ratio is taken within each round. What is saved is compared with the labels of the network's own outputs first.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import segrt
from segrt.cli import SAVERS
from segrt.sources import Frame, frames, in_threads


def prepare(pipeline: segrt.Pipeline, photos: list[Path]) -> list[npt.NDArray[np.float32]]:
    """The network's input for each photo."""
    batches = []
    for frame in frames(photos):
        assert isinstance(frame, Frame)
        height, width = pipeline.transforms.size(frame.image.shape[:2], pipeline.target_size)
        batches.append(np.empty((1, 3, height, width), np.float32))
        pipeline.transforms.write(frame.image, out=batches[-1][0])
    return batches


def save(result: segrt.SegResult | segrt.SegFailure, out: Path) -> None:
    """What the command line saves."""
    assert isinstance(result, segrt.SegResult)
    result.save_to_img(out)
    result.save_to_json(out)


def main() -> None:
    """Measure and print."""
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
    rounds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary, "photos"), Path(temporary, "out")
        folder.mkdir()
        for number, path in enumerate(
            itertools.islice(itertools.cycle(originals), arguments.count)
        ):
            shutil.copy(path, folder / f"{number:05}{path.suffix}")
        for result in alone.predict(originals[0]):
            save(result, out)
            assert isinstance(result, segrt.SegResult)
            saved = np.asarray(Image.open(next(out.glob("*.png"))))
            assert (saved == result.labels).all()
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for batch in itertools.islice(itertools.cycle(batches), arguments.count):
                alone.session.run(batch)
            between = time.perf_counter()
            for _ in in_threads(lambda result: save(result, out), whole.predict(folder), SAVERS):
                pass
            end = time.perf_counter()
            rounds.append((arguments.count / (between - start), arguments.count / (end - between)))
            print(f"network {rounds[-1][0]:.2f}, folder {rounds[-1][1]:.2f} images/s", flush=True)
    ratios = sorted(folder / network for network, folder in rounds)
    lines = [
        f"{arguments.count} photos of {batches[0].shape[3]} x {batches[0].shape[2]}, {alone.model_name},"
        f" {alone.session.plan}; folder: {whole.session.plan}, workers {arguments.workers}; {platform.machine()},"
        f" {arguments.rounds} rounds in turns",
        "",
        "| | images/s, median |",
        "|---|---|",
        f"| network alone | {statistics.median(r[0] for r in rounds):.2f} |",
        f"| whole folder | {statistics.median(r[1] for r in rounds):.2f} |",
        f"| ratio, median of rounds | {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) |",
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("# A folder of photos\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
