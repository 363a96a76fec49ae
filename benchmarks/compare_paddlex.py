"""segrt compared with the whole PaddleX 3.7.2 pipeline, from image file to labels.

    make bench-paddlex MODEL=path/to/paddle_model

Both run alternately, each in its own process and virtual environment (`compare_worker.py`), on the
same cores and with the same number of threads. Ratios are computed within each round. With
`--folder`, a round is all of `--images`, with label pictures and JSON saved.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import IO, Any, cast

import numpy as np

from segrt import package_data
from segrt.backends.catalog import usable_cores
from segrt.backends.plan import MAX_THREADS
from segrt.bench import environment
from segrt.bench.measure import PAUSE_S
from segrt.bench.pairs import Samples, interleave, ratio
from segrt.files import write_atomic
from segrt.types import parse_size


def main() -> None:
    """Measure, print a summary and write the JSON file."""
    options = parse_arguments()
    if not options.paddlex_python.is_file():
        sys.exit(f"{options.paddlex_python} does not exist: run  make bench-paddlex  to create it")
    threads = options.threads or min(MAX_THREADS, usable_cores())
    machine = environment.observe(environment.pin(threads))
    images = [package_data.path(package_data.SAMPLE)]
    if options.images:
        suffixes = (".png", ".jpg", ".jpeg")
        images = sorted(p for p in options.images.iterdir() if p.suffix.lower() in suffixes)
    with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
        workers = start_workers(options, threads, Path(work))
        started = {name: worker.answer() for name, worker in workers.items()}
        samples, agreement = measure(workers, images, options, Path(work))
        for worker in workers.values():
            worker.close()
    faster = ratio(samples["paddlex"], samples["segrt"])
    runs = {
        name: started[name]
        | {"median_ms": s.median, "p95_ms": s.p95, "spread": s.spread, "all_ms": s.ms}
        for name, s in samples.items()
    }
    result = {
        "model": options.model.name,
        "mode": options.mode,
        "size": options.size or "the size of each image",
        "images": len(images),
        "saved": options.folder,
        "threads": threads,
        "runs": runs,
        "times_as_fast": {"median": faster.median, "low": faster.low, "high": faster.high},
        "label_agreement": agreement,
        "environment": asdict(machine.finished()) | {"busy": machine.busy},
    }
    if options.output:
        write_atomic(options.output, (json.dumps(result, indent=1) + "\n").encode())
    for name, s in samples.items():
        print(
            f"{name}: {started[name]['version']}, median {s.median:.1f} ms, p95 {s.p95:.1f} ms, "
            f"spread {s.spread:.0%}"
        )
    what = "a folder saved as PNG and JSON" if options.folder else "from file to labels"
    print(
        f"segrt is {faster} times as fast, {what}, over {options.repeat} pairs; equal "
        f"labels for {agreement:.3%} of the pixels"
    )
    if machine.busy:
        print(f"the machine was busy: load average {machine.load_before}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Compare segrt with the PaddleX pipeline, from image file to labels."
    )
    parser.add_argument("model", type=Path, help="folder with a Paddle inference model")
    parser.add_argument("--paddlex-python", type=Path, default=Path(".venv-paddlex/bin/python"))
    parser.add_argument(
        "--images", type=Path, help="folder of images, used in rotation; default: a sample image"
    )
    parser.add_argument(
        "--folder", action="store_true", help="segment and save all of --images in each round"
    )
    parser.add_argument("--size", help="inference size, HxW; default: the size of each image")
    parser.add_argument("--mode", default="normal", help="segrt's mode")
    parser.add_argument("--repeat", type=int, default=30, help="number of rounds")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path, help="also write this JSON file")
    options = parser.parse_args()
    if options.folder and not options.images:
        parser.error("--folder needs --images")
    return options


class Worker:
    """`compare_worker.py` in a process."""

    def __init__(self, python: Path, name: str, options: argparse.Namespace, work: Path) -> None:
        self._name = name
        self._log = (work / f"{name}.log").open("w+")
        script = Path(__file__).with_name("compare_worker.py")
        # absolute() and not resolve(): a virtual environment's python is a link to another folder.
        command = [python.absolute(), script, name, options.model.absolute(), options.mode]
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for an answer; exit with the worker's log if it has died."""
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"the {self._name} worker died:\n{self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let the process exit."""
        cast("IO[str]", self._process.stdin).close()
        self._process.wait(20)
        self._log.close()


def start_workers(options: argparse.Namespace, threads: int, work: Path) -> dict[str, Worker]:
    """Start both sides."""
    # PaddleX uses 10 threads by default, however few cores there are.
    os.environ["PADDLE_PDX_CPU_NUM_THREADS"] = str(threads)
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    pythons = {"paddlex": options.paddlex_python, "segrt": Path(sys.executable)}
    return {name: Worker(python, name, options, work) for name, python in pythons.items()}


def measure(
    workers: dict[str, Worker], images: Sequence[Path], options: argparse.Namespace, work: Path
) -> tuple[dict[str, Samples], float]:
    """The times of both sides, and the fraction of pixels with equal labels."""
    size = list(parse_size(options.size)) if options.size else -1

    def turns(name: str) -> Callable[[], float]:
        turn = iter(list(images) * (options.repeat + 1))

        def run() -> float:
            sleep(PAUSE_S)
            if not options.folder:
                return float(workers[name].ask({"input": str(next(turn)), "size": size})["seconds"])
            every = [str(image) for image in images]
            with tempfile.TemporaryDirectory(dir=work) as folder:
                request = {"input": every, "size": size, "folder": folder}
                return float(workers[name].ask(request)["seconds"])

        return run

    samples = interleave({name: turns(name) for name in workers}, repeat=options.repeat, warmup=1)
    equal = [agreement(workers, str(image), size, work) for image in images[:5]]
    return samples, sum(equal) / len(equal)


def agreement(workers: dict[str, Worker], image: str, size: Any, work: Path) -> float:
    """Fraction of the pixels of an image that get the same label from both sides."""
    labels = []
    for name, worker in workers.items():
        file = work / f"{name}.npy"
        worker.ask({"input": image, "size": size, "save": str(file)})
        labels.append(np.load(file))
    return float(np.mean(labels[0] == labels[1]))


if __name__ == "__main__":
    main()
