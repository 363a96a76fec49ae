"""Overhead of `predict` on one image, and the time of `segrt predict` from the shell.

    python benchmarks/startup.py [--against CHECKOUT] [--mode high-performance] [--rounds 20]

Overhead: `predict(image)` beside what it must do, in turn: preprocessing, ONNX Runtime's run and
postprocessing, called directly. Start: `segrt predict sample.png` in new processes, in turn with
those of the other checkout; "first" has an empty cache of Numba. Fastest and median of `--rounds`,
wall-clock and CPU time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter

from common import Worker

HERE = Path(__file__).parents[1]

CODE = """
import sys, time
import cv2
import segrt
from segrt import package_data, postprocess
getattr(postprocess, "load_loop", lambda: None)()
image = cv2.imread(str(package_data.path(package_data.SAMPLE)))
if (scale := float(sys.argv[2])) != 1:
    image = cv2.resize(image, None, fx=scale, fy=scale)
pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu", mode=sys.argv[1])
session, transforms = pipeline.session, pipeline.transforms

def whole():
    [result] = pipeline.predict(image)

def direct():
    layout = transforms.layout(image.shape[:2], None)
    batch = transforms.batch([transforms.fit(image, layout)])
    [output] = own.run([session.description.output.name], {session.description.input.name: batch})
    postprocess.finish(output[0], session.meta, layout)

for _ in range(20):
    whole()
own = session._session((1, 3, *transforms.layout(image.shape[:2], None).size))
own = own[0] if isinstance(own, tuple) else own  # with its provider
for _ in sys.stdin:
    times = []
    for run in (whole, direct):
        start, cpu = time.perf_counter(), time.process_time()
        run()
        times += [time.perf_counter() - start, time.process_time() - cpu]
    print(*times, flush=True)
"""


def start(checkout: Path, mode: str, folder: str, cache: str) -> tuple[float, float]:
    """Seconds, and CPU seconds, of `segrt predict sample.png`."""
    sample = str(HERE / "src/segrt/models/sample.png")
    command = [sys.executable, "-m", "segrt", "predict", sample, "--mode", mode]
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "src"),
        "NUMBA_CACHE_DIR": cache,
    }
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(
        [*command, "--save-path", folder], env=environment, check=True, capture_output=True
    )
    seconds, after = perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--mode", default="normal")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1, help="of the sample; small: no network")
    parser.add_argument("--images", type=int, default=100, help="rounds of the overhead")
    arguments = parser.parse_args()
    checkouts = {"this": HERE} | ({"other": arguments.against} if arguments.against else {})
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    workers = {
        name: Worker(path, CODE, arguments.mode, arguments.scale)
        for name, path in checkouts.items()
    }
    for _ in range(arguments.images):
        for name, worker in workers.items():
            wall, cpu, direct, direct_cpu = worker.ask()
            found[f"predict(image), {name}"].append((wall, cpu))
            found[f"direct calls, {name}"].append((direct, direct_cpu))
    for worker in workers.values():
        worker.close()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as warm:
        for number in range(arguments.rounds + 1 if arguments.rounds else 0):
            for name, path in checkouts.items():
                times = start(path, arguments.mode, folder, warm)
                if number:
                    found[f"start, {name}"].append(times)
                    with tempfile.TemporaryDirectory() as cold:
                        found[f"first start, {name}"].append(
                            start(path, arguments.mode, folder, cold)
                        )
    print("| | fastest, ms | median, ms | CPU, fastest, ms |\n|---|---|---|---|")
    for title, pairs in found.items():
        walls, cpus = [wall for wall, _ in pairs], [cpu for _, cpu in pairs]
        print(
            f"| {title} | {min(walls) * 1e3:.1f} | {median(walls) * 1e3:.1f} "
            f"| {min(cpus) * 1e3:.1f} |"
        )


if __name__ == "__main__":
    main()
