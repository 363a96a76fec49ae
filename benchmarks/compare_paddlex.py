"""segrt beside the whole PaddleX 3.7.2 pipeline, end to end from an image file to its labels.

    make bench-paddlex MODEL=path/to/paddle_model

Both run in a process and a virtual environment of their own, take turns, and use the same cores and number of threads.
The ratio is that of the pairs. The script serves as its own worker: this file also runs in PaddleX's environment, where
segrt is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import IO, Any, cast

Predict = Callable[[str, Any], Any]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Compare segrt with the PaddleX pipeline, from file to labels."
    )
    parser.add_argument("model", type=Path, help="folder of a Paddle inference model")
    parser.add_argument("--paddlex-python", type=Path, default=Path(".venv-paddlex/bin/python"))
    parser.add_argument(
        "--images", type=Path, help="folder of images, run in turn; the sample if not given"
    )
    parser.add_argument("--size", help="HxW of inference; the image's own if not given")
    parser.add_argument("--mode", default="normal", help="of segrt")
    parser.add_argument("--repeat", type=int, default=30, help="rounds")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path, help="also write this JSON file")
    parser.add_argument("--worker", choices=("segrt", "paddlex"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options.worker, options.model, options.mode)
    else:
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    from dataclasses import asdict
    from time import sleep

    from segrt.bench import environment
    from segrt.bench.measure import PAUSE_S
    from segrt.bench.pairs import interleave, ratio
    from segrt.files import write_atomic

    if not options.paddlex_python.is_file():
        sys.exit(
            f"{options.paddlex_python} does not exist: run  make bench-paddlex  which makes it"
        )
    threads = options.threads or min(environment.MAX_THREADS, environment.usable_cores())
    machine = environment.observe(environment.pin(threads))
    images = [Path(environment.__file__).parents[1] / "models" / "sample.png"]
    if options.images:
        images = sorted(
            path
            for path in options.images.iterdir()
            if path.suffix.lower() in (".png", ".jpg", ".jpeg")
        )
    size = [int(side) for side in options.size.split("x")] if options.size else -1
    env = os.environ | {
        "PADDLE_PDX_CPU_NUM_THREADS": str(
            threads
        ),  # PaddleX takes 10 otherwise, however few cores there are
        "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True",
    }
    with tempfile.TemporaryDirectory(prefix="segrt-bench-") as work:
        workers = {
            name: _Worker(python, name, options, env, Path(work))
            for name, python in (
                ("paddlex", options.paddlex_python),
                ("segrt", Path(sys.executable)),
            )
        }
        started = {name: worker.answer() for name, worker in workers.items()}

        def turns(name: str) -> Callable[[], float]:
            turn = iter(images * (options.repeat + 1))

            def run() -> float:
                sleep(PAUSE_S)
                return float(workers[name].ask({"image": str(next(turn)), "size": size})["seconds"])

            return run

        samples = interleave(
            {name: turns(name) for name in workers}, repeat=options.repeat, warmup=1
        )
        equal = [_same(workers, str(image), size, Path(work)) for image in images[:5]]
        for worker in workers.values():
            worker.close()
    faster = ratio(samples["paddlex"], samples["segrt"])
    result = {
        "model": options.model.name,
        "mode": options.mode,
        "size": options.size or "each image's own size",
        "images": len(images),
        "threads": threads,
        "runs": {
            name: started[name]
            | {"median_ms": s.median, "p95_ms": s.p95, "spread": s.spread, "all_ms": s.ms}
            for name, s in samples.items()
        },
        "times_as_fast": {"median": faster.median, "low": faster.low, "high": faster.high},
        "label_agreement": sum(equal) / len(equal),
        "environment": asdict(machine.finished()) | {"busy": machine.busy},
    }
    text = json.dumps(result, indent=1)
    if options.output:
        write_atomic(options.output, (text + "\n").encode())
    for name, s in samples.items():
        print(
            f"{name}: {started[name]['version']}, median {s.median:.1f} ms, p95 {s.p95:.1f} ms, spread {s.spread:.0%}"
        )
    print(
        f"segrt is {faster.median:.2f} times as fast ({faster.low:.2f} to {faster.high:.2f}), file to labels, over "
        f"{options.repeat} pairs; same labels on {result['label_agreement']:.3%} of the pixels"
    )
    if machine.busy:
        print(f"the machine was busy: load average {machine.load_before}")


class _Worker:
    """This script in a process of its own; asked and answering in lines of JSON."""

    def __init__(
        self, python: Path, name: str, options: argparse.Namespace, env: dict[str, str], work: Path
    ) -> None:
        # absolute() and not resolve(): python in a virtual environment is a link out of it.
        command = [
            str(python.absolute()),
            __file__,
            str(options.model.absolute()),
            "--worker",
            name,
            "--mode",
            options.mode,
        ]
        self._name = name
        self._log = (work / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a question and wait for the answer."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for an answer; the process's last words end this one when there is none."""
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"the worker of {self._name} ended:\n{self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let the process end."""
        cast("IO[str]", self._process.stdin).close()
        self._process.wait(20)
        self._log.close()


def _same(workers: dict[str, _Worker], image: str, size: Any, work: Path) -> float:
    import numpy as np

    labels = []
    for name, worker in workers.items():
        file = work / f"{name}.npy"
        worker.ask({"image": image, "size": size, "save": str(file)})
        labels.append(np.load(file))
    return float(np.mean(labels[0] == labels[1]))


def _work(name: str, model: Path, mode: str) -> None:
    """Answer questions until they end. Answers go to the real stdout; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = perf_counter()
    version, predict = _segrt(model, mode) if name == "segrt" else _paddlex(model)
    print(json.dumps({"version": version, "start_s": perf_counter() - start}), file=out, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        size = question["size"]
        start = perf_counter()
        pred = predict(question["image"], tuple(size) if isinstance(size, list) else size)
        seconds = perf_counter() - start
        if "save" in question:
            import numpy as np

            np.save(
                question["save"], np.asarray(pred).reshape(np.shape(pred)[-2:]).astype(np.int32)
            )
        print(json.dumps({"seconds": seconds}), file=out, flush=True)


def _segrt(model: Path, mode: str) -> tuple[str, Predict]:
    import segrt

    pipeline = segrt.create_pipeline(model_dir=model, device="cpu", mode=mode)
    session = pipeline.session
    version = f"segrt {segrt.__version__} on {session.provider} {session.precision}"
    return version, lambda image, size: next(iter(pipeline.predict(image, size)))["pred"]  # type: ignore[index]


def _paddlex(model: Path) -> tuple[str, Predict]:
    from importlib.metadata import version

    from paddlex import create_pipeline

    module = {
        "module_name": "semantic_segmentation",
        "model_name": "PP-LiteSeg-T",
        "model_dir": str(model),
        "batch_size": 1,
        "target_size": None,
    }
    yml = model / "inference.yml"
    if yml.is_file():  # PaddleX insists that the two names agree
        import yaml

        module["model_name"] = yaml.safe_load(yml.read_text("utf-8"))["Global"]["model_name"]
    config = {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": module},
    }
    pipeline = create_pipeline(config=config, device="cpu")
    versions = ", ".join(f"{package} {version(package)}" for package in ("paddlex", "paddlepaddle"))
    return versions, lambda image, size: next(iter(pipeline.predict(image, target_size=size)))[
        "pred"
    ]


if __name__ == "__main__":
    main()
