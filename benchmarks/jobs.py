"""A job that is killed with SIGKILL at random moments, and resumed, beside a plain run.

    python benchmarks/jobs.py [--engine ray] [--inputs 5000] [--kills 5] [--manifest NAME]

The inputs are generated photos, links to them, and broken files; the network is that of the tests,
which classifies colours. Afterwards the manifest must have one row for each input, errors for the
broken ones only, and the label pictures must be those of the plain run, byte by byte. Exit status 1
if not. Ray listens on all interfaces, so run that engine in a network namespace of its own:

    unshare -n sh -c 'ip link set lo up; exec python benchmarks/jobs.py --engine ray'
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from PIL import Image

from segrt import manifest

HERE = Path(__file__).parents[1]


def make_inputs(folder: Path, count: int, distinct: int, broken: int) -> None:
    """Photos of 320 x 240 pixels, links to them, and files that are no images."""
    folder.mkdir()
    rng = np.random.default_rng(19)
    for number in range(count):
        name = folder / f"photo_{number:05}.png"
        if number < broken:
            name.write_bytes(b"no image")
        elif number < broken + distinct:
            blocks = rng.integers(0, 255, (15, 20, 3), np.uint8)
            Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8))).save(name)
        else:
            name.symlink_to(f"photo_{broken + (number - broken) % distinct:05}.png")


def pictures(folder: Path) -> dict[str, bytes]:
    """The label pictures by name."""
    return {file.name: file.read_bytes() for file in folder.glob("*_res.png")}


def rows_of(folder: Path, name: str) -> list[manifest.Row]:
    """The rows so far, of the manifest or of its journal."""
    for file in (folder / name, folder / f"{name}.jsonl"):
        if file.is_file():
            return [*manifest.read(file)[1]]
    return []


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", help="of segrt predict; default: none, which is this process")
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--distinct", type=int, default=500)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--manifest", default="manifest.jsonl", help="its name")
    parser.add_argument("--seed", type=int, default=19)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    sys.path.insert(0, str(HERE / "tests"))
    from conftest import write_colour_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder / "in", options.inputs, options.distinct, options.broken)
        model = write_colour_model(folder / "colours.onnx")
        command = [sys.executable, "-m", "segrt", "predict", "in", "--model_dir", str(model)]
        command += ["--device", "cpu", "--label-format", "png", "--save-path"]
        start = perf_counter()
        subprocess.run([*command, "plain"], cwd=folder, check=False, capture_output=True)
        plain = perf_counter() - start
        print(f"plain run: {plain:.1f} s, {len(pictures(folder / 'plain'))} label pictures")

        command += ["out", "--manifest", f"out/{options.manifest}", "--resume"]
        command += ["--engine", options.engine] if options.engine else []
        kills = 0
        while True:
            job = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            start = perf_counter()
            before = len(rows_of(folder / "out", options.manifest))
            while job.poll() is None and len(rows_of(folder / "out", options.manifest)) <= before:
                sleep(0.05)  # it starts
            moment = chance.uniform(0, 1) * plain / (options.kills + 1)
            try:
                _, said = job.communicate(timeout=moment if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                job.kill()
                job.communicate()
                kills += 1
                moment = perf_counter() - start
                so_far = len(rows_of(folder / "out", options.manifest))
                print(f"killed after {moment:.1f} s: {so_far} rows so far", flush=True)
                continue
            summary = next(line for line in reversed(said.splitlines()) if "segmented" in line)
            print(f"ended by itself after {perf_counter() - start:.1f} s: {summary}")
            break

        rows = rows_of(folder / "out", options.manifest)
        keys = Counter(row.key for row in rows)
        wanted = {(f"in/photo_{number:05}.png", None) for number in range(options.inputs)}
        failed = sum(row.error is not None for row in rows)
        expected, after = pictures(folder / "plain"), pictures(folder / "out")
        equal = sum(after.get(picture) == content for picture, content in expected.items())
        named = all(
            row.error or row.outputs[0] == f"{Path(row.input).stem}_res.png" for row in rows
        )
        print(
            f"{kills} kills; {len(rows)} rows, {len(rows) - len(keys)} duplicates, "
            f"{len(wanted - keys.keys())} lost, {failed} with an error; {equal} of {len(expected)} "
            f"label pictures equal to the plain run's, {len(after.keys() - expected.keys())} others"
        )
        good = (
            kills == options.kills
            and len(rows) == len(keys)
            and keys.keys() == wanted
            and failed == options.broken
            and expected == after
            and named
        )
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
