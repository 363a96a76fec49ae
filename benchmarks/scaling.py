"""What Ray costs on one machine, and what follows for many: `segrt predict` against jobs on Ray.

    unshare -n sh -c 'ip link set lo up; exec python benchmarks/scaling.py [PHOTOS] [--count 600]'

Ray listens on all interfaces, hence the network namespace. In alternation, three commands segment
the same photos with the same cores and workers: `segrt predict`, the same with `--engine ray`, and
`segrt.ray.segment`. The first two save the same files. Each is run with one block of photos and
with all of them; the difference is the work without the start. From it follow images/s, the CPU
time of the driver for each image (user and system, of its process alone), and the bytes that Ray's
object store takes. Labels of the first two are compared, and the rows of the third are counted.

It writes results/scaling.md. Without PHOTOS, they are noise at 640 x 480. The cost of the driver is
about a millisecond: to tell it from the noise of its start, use a --count in the thousands, which a
tiny --model makes quick.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

import segrt
from segrt.cli.ray_engine import SIZE

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

RESULTS = Path(__file__).parent / "results" / "scaling.md"
NODES = (10, 100, 1000)
SEGMENT = f"""
import sys, segrt.ray
segrt.ray.segment("photos", sys.argv[1], address=sys.argv[2], model=sys.argv[4] or None,
    workers=int(sys.argv[3]), device="cpu", block={SIZE})
"""


@dataclass(frozen=True)
class Run:
    """One command: seconds, CPU seconds of its process, bytes that Ray's object store took."""

    seconds: float
    cpu: float
    stored: int

    def over(self, small: Run, images: int) -> Run:
        """For each of the images that this run has more than a small one."""
        return Run(
            (self.seconds - small.seconds) / images,
            (self.cpu - small.cpu) / images,
            round((self.stored - small.stored) / images),
        )


def make_photos(folder: Path, source: Path | None, count: int) -> None:
    """Links to photos, in turn."""
    folder.mkdir()
    if source is None:
        source = folder.parent / "noise"
        source.mkdir()
        rng = np.random.default_rng(19)
        for number in range(50):
            tiles = rng.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(source / f"{number}.jpg")
    files = sorted(file for file in source.iterdir() if file.suffix in (".jpg", ".png"))
    for number in range(count):
        file = files[number % len(files)]
        (folder / f"{number:06}{file.suffix}").symlink_to(file.absolute())


def stored(address: str) -> int:
    """Bytes that the object stores have taken since they were started."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    reply = get_memory_info_reply(get_state_from_address(address))
    return int(reply.store_stats.cumulative_created_bytes)


def timed(command: Sequence[str], folder: Path, address: str) -> Run:
    """Run a command."""
    before, start = stored(address), perf_counter()
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, cwd=folder, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} has ended with status {status}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, stored(address) - before)


def labels(folder: Path) -> dict[str, bytes]:
    """The label pictures by name."""
    files = folder.glob("*_res.*")
    return {file.name: file.read_bytes() for file in files if file.suffix != ".json"}


def rows(folder: Path) -> int:
    """The rows of a job of `segrt.ray.segment`."""
    from pyarrow import parquet

    files = (folder / "results").glob("*.parquet")
    return sum(parquet.read_metadata(file).num_rows for file in files)


def commands(options: argparse.Namespace, address: str) -> dict[str, list[str]]:
    """By the name of the way; the folder of the results is called out."""
    predict = [sys.executable, "-m", "segrt", "predict", "photos", "--device", "cpu", "--workers"]
    predict += [str(options.workers), "--label-format", "png", "--save-path", "out"]
    predict += ["--manifest", "out/m.jsonl"]
    predict += ["--model_dir", options.model] if options.model else []
    arguments = ["out", address, str(options.workers), options.model]
    return {
        "segrt predict": predict,
        "--engine ray": [*predict, "--engine", "ray", "--ray-address", address],
        "segrt.ray.segment": [sys.executable, "-c", SEGMENT, *arguments],
    }


def measure(options: argparse.Namespace, folder: Path, address: str) -> dict[str, list[Run]]:
    """The cost of an image with each way, in each round."""
    ways = commands(options, address)
    found: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(options.rounds):
        expected: dict[str, bytes] = {}
        for name, command in ways.items():
            both = []
            for count in (SIZE, options.count):
                shutil.rmtree(folder / "photos", ignore_errors=True)
                shutil.rmtree(folder / "out", ignore_errors=True)
                shutil.rmtree(folder / "noise", ignore_errors=True)
                make_photos(folder / "photos", options.photos, count)
                both.append(timed(command, folder, address))
            if name == "segrt.ray.segment":
                assert rows(folder / "out") == options.count
            else:
                expected = expected or labels(folder / "out")
                assert len({name.rpartition("_res")[0] for name in expected}) == options.count
                assert labels(folder / "out") == expected
            each = both[1].over(both[0], options.count - SIZE)
            found[name].append(each)
            print(
                f"round {number + 1}, {name}: {both[0].seconds:.1f} s for {SIZE}, "
                f"{both[1].seconds:.1f} s for {options.count} photos; {1 / each.seconds:.2f} "
                f"images/s, driver {1000 * each.cpu:.2f} ms, {each.stored:,} bytes each",
                flush=True,
            )
    return found


def report(options: argparse.Namespace, found: dict[str, list[Run]]) -> str:
    """The page, in Markdown."""

    def median(name: str, value: str) -> float:
        return float(statistics.median(getattr(run, value) for run in found[name]))

    cores, local = os.cpu_count() or 1, found["segrt predict"]
    lines = [
        "# Ray on one machine, and what follows for many",
        "",
        f"By `benchmarks/scaling.py`, {options.rounds} rounds in alternation: {options.count} "
        f"photos, {cores} cores, {options.workers} workers, "
        f"{Path(options.model).name or 'the bundled model'}; "
        f"segrt {segrt.__version__}, Ray {_ray().__version__}, "
        f"Python {platform.python_version()}, "
        f"{platform.machine()}. Medians, without the start.",
        "",
        "| | images/s | of `segrt predict` | driver: CPU ms an image | "
        "object store: bytes an image |",
        "|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        pairs = zip(local, runs, strict=True)
        ratios = [here.seconds / there.seconds for here, there in pairs]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        costs = "- | -"
        if name != "segrt predict":
            costs = f"{1000 * median(name, 'cpu'):.2f} | {median(name, 'stored'):,.0f}"
        lines.append(f"| {name} | {1 / median(name, 'seconds'):.2f} | {spread} | {costs} |")
    lines += [
        "",
        "## On paper",
        "",
        "A node like this one gives r images/s, and the driver, one thread, takes d CPU seconds an",
        "image: n nodes give min(n r, 1 / d) images/s, and more than 1 / (r d) nodes gain nothing.",
        "Not measured on so many nodes, and without the limits of the storage.",
        "",
        f"| | {' | '.join(f'{nodes:,} nodes' for nodes in NODES)} | the driver is full at |",
        f"|---|{'---|' * (len(NODES) + 1)}",
    ]
    for name in list(found)[1:]:
        rate, cost = 1 / median(name, "seconds"), median(name, "cpu")
        if cost <= 0:
            raise SystemExit(f"{name}: the driver's cost is lost in the noise: raise --count")
        cells = [f"{min(nodes * rate, 1 / cost):,.0f} images/s" for nodes in NODES]
        lines.append(f"| {name} | {' | '.join(cells)} | {1 / (rate * cost):,.0f} nodes |")
    return "\n".join([*lines, ""])


def _ray() -> Any:
    import ray

    return ray


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="?", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=600, help=f"photos, more than {SIZE}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="", help="an .onnx file or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.count <= SIZE:
        parser.error(f"--count must be more than {SIZE}")
    options.model = os.path.abspath(options.model) if options.model else ""
    options.photos = options.photos and options.photos.absolute()
    _ray().init(include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as name:
            address = _ray().get_runtime_context().gcs_address
            found = measure(options, Path(name), address)
    finally:
        _ray().shutdown()
    options.out.write_text(report(options, found))


if __name__ == "__main__":
    main()
