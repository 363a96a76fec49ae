"""Every GPU plan on the bundled model and on those of `gpu_models.py`: labels, speed, memory.

    python benchmarks/gpu.py gpu-models [--images PHOTOS] [--size 512x1024] [--rounds 50]

Needs an NVIDIA GPU and an environment with `segrt[gpu]`; installs nothing. The table goes to
benchmarks/results/gpu.md. For each model, all plans and ONNX Runtime's CUDA provider in FP32 on the
stock graph (with `stock.onnx`) take turns on the same image, from decoded image to labels in main
memory; times are medians. Labels are compared with FP32 on the CPU. Growth is that of the GPU's
used memory from the second to the third pass over 50 image sizes. "two" is the time per image with
two pipelines at once, in milliseconds, and whether their labels are those of one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from common import timed

from segrt import package_data
from segrt.backends import catalog
from segrt.backends.plan import Plan, every, plans
from segrt.backends.session import Session
from segrt.bench.environment import observe
from segrt.errors import DeviceError, SegrtError
from segrt.pipeline import Pipeline
from segrt.result import SegResult
from segrt.types import Device, Mode, parse_size

RESULTS = Path(__file__).parent / "results" / "gpu.md"
OPTIONS = (
    {"prefer_nhwc": "1"},
    {"enable_cuda_graph": "1"},
    {"prefer_nhwc": "1", "enable_cuda_graph": "1"},
    {"cudnn_conv_algo_search": "HEURISTIC"},
)
"""Options of the CUDA provider that are measured in addition to segrt's own."""

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[Any]


@dataclass
class Row:
    """One way to run a model, and what was measured."""

    title: str
    plan: Plan
    pipeline: Pipeline | None = None
    failure: str = ""
    agreement: float = 0
    times: list[float] = field(default_factory=list)
    growth: float = 0
    pair: str = ""

    def text(self, baseline: float | None) -> str:
        """The row of the table."""
        if self.failure:
            return f"| {self.title} | does not run: {self.failure} | | | | |"
        speed = median(self.times)
        ratio = f"{baseline / speed:.2f}" if baseline else "no stock graph"
        return (
            f"| {self.title} | {1000 * speed:.2f} | {ratio} | {self.agreement:.3%} | "
            f"{self.growth:+.0f} | {self.pair} |"
        )


class Stock:
    """The stock graph on ONNX Runtime's CUDA provider in FP32, with ONNX Runtime's defaults."""

    def __init__(self, file: Path, pipeline: Pipeline) -> None:
        ort = catalog.onnxruntime()
        providers = [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(file), options, providers=providers)
        if self.session.get_providers()[0] != "CUDAExecutionProvider":
            raise DeviceError(f"{file} runs on {self.session.get_providers()[0]}")
        self.transforms = pipeline.transforms
        self.times: list[float] = []

    def labels(self, image: Image, size: tuple[int, int]) -> Labels:
        """Labels of an image."""
        layout = self.transforms.layout((image.shape[0], image.shape[1]), size)
        batch = self.transforms.batch([self.transforms.fit(image, layout)])
        found: Labels = self.session.run(None, {self.session.get_inputs()[0].name: batch})[0]
        return found.argmax(1)[0] if found.dtype.kind == "f" else found.reshape(found.shape[-2:])


def candidates(machine: catalog.Catalog) -> list[Row]:
    """All GPU plans of this machine, and CUDA's with further options.

    Raises:
        DeviceError: there is no GPU that works.
    """
    found = every(Device("gpu", (0,)), machine)
    rows = [Row(plan.name, plan) for plan in found]
    for plan in found:
        for options in OPTIONS if plan.backend.name == "cuda" else ():
            title = f"{plan.name}, {', '.join(options)}"
            merged = dict(plan.options) | options
            rows.append(Row(title, replace(plan, options=tuple(merged.items()))))
    return rows


def labels(pipeline: Pipeline | None, image: Image, size: tuple[int, int]) -> Labels:
    """Labels of an image, int32 (H, W)."""
    assert pipeline
    (result,) = pipeline.predict(image, size)
    assert isinstance(result, SegResult)
    return result.labels


def used_mib() -> int:
    """MiB in use on GPU 0, by all processes."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def growth(pipeline: Pipeline) -> int:
    """MiB that the third pass over 50 image sizes takes in addition to the second."""
    sizes = [(64 * (2 + index // 10), 64 * (2 + index % 10)) for index in range(50)]
    used = []
    for _ in range(3):
        for size in sizes:
            pipeline.session.run(np.zeros((1, 3, *size), np.float32))
        used.append(used_mib())
    return used[2] - used[1]


def pair(row: Row, file: Path, image: Image, size: tuple[int, int], rounds: int) -> str:
    """Two pipelines at once: the milliseconds per image, and whether labels are the same."""
    assert row.pipeline
    expected = labels(row.pipeline, image, size)
    both = row.pipeline, Pipeline(Session(file, row.plan))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: labels(one, image, size), both))  # compiles

        def several(one: Pipeline) -> float:
            same = [np.mean(labels(one, image, size) == expected) for _ in range(rounds)]
            return float(min(same))

        agreed: list[float] = []
        seconds = timed(lambda: agreed.extend(pool.map(several, both)))
    same = "same labels" if min(agreed) > 0.9999 else f"ONLY {min(agreed):.2%} OF THE LABELS"
    return f"{1000 * seconds / (2 * rounds):.2f}, {same}"


def measure(
    file: Path, stock_file: Path, images: list[Image], size: tuple[int, int], rounds: int
) -> list[str]:
    """The table of one model."""
    rows = candidates(catalog.read())
    machine = catalog.read()
    cpu = Pipeline(Session(file, plans(Device("cpu"), Mode.NORMAL, machine)[0]))
    expected = [labels(cpu, image, size) for image in images]
    stock = Stock(stock_file, cpu) if stock_file.is_file() else None
    for row in rows:
        try:
            row.pipeline = Pipeline(Session(file, row.plan))
            got = [labels(row.pipeline, image, size) for image in images]
            row.agreement = float(
                np.mean([np.mean(a == b) for a, b in zip(got, expected, strict=True)])
            )
        except SegrtError as error:
            row.failure = str(error)
    running = [row for row in rows if not row.failure]
    contenders: list[Row | Stock] = [*running, *([stock] if stock else [])]
    for turn in range(rounds + 2):
        image = images[turn % len(images)]
        for one in contenders:
            run = one.labels if isinstance(one, Stock) else partial(labels, one.pipeline)
            seconds = timed(partial(run, image, size))
            if turn >= 2:
                one.times.append(seconds)
    for row in running:
        assert row.pipeline
        row.pair = pair(row, file, images[0], size, rounds)
        row.growth = growth(row.pipeline)
        row.pipeline.close()
    baseline = median(stock.times) if stock else None
    lines = [
        f"## {file.parent.name}",
        "",
        "| plan | ms | speed-up | labels as on the CPU | growth, MiB | two at once, ms |",
    ]
    lines += ["|---|---|---|---|---|---|", *(row.text(baseline) for row in rows)]
    if baseline:
        lines.append(f"| stock graph, CUDA fp32 | {1000 * baseline:.2f} | 1.00 | | | |")
    return [*lines, ""]


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="?", help="made by gpu_models.py")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", type=parse_size, default=(512, 1024))
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    try:
        candidates(catalog.read())
    except DeviceError as error:
        sys.exit(f"nothing was measured: {error}")
    size, rounds = arguments.size, arguments.rounds
    photos = sorted(arguments.images.iterdir())[:8] if arguments.images else []
    photos = photos or [package_data.path(package_data.SAMPLE)]
    read = [cv2.imread(str(photo)) for photo in photos]
    images = [cv2.resize(image, size[::-1]).astype(np.uint8) for image in read if image is not None]
    bundled = package_data.path(package_data.SAMPLE).parent / "PP-LiteSeg-T_camvid" / "model.onnx"
    files = [bundled, *sorted(arguments.models.glob("*/model.onnx") if arguments.models else [])]
    before = observe(())
    report = [f"{before.gpus}, {before.cpu}, {before.libraries}, {size[0]}x{size[1]}", ""]
    for file in files:
        print(file, flush=True)
        stock = (arguments.models or file.parent) / file.parent.name / "stock.onnx"
        report += measure(file, stock, images, size, rounds)
    report = [
        "# GPUs",
        "",
        "Made by `benchmarks/gpu.py`, which says what is measured.",
        "",
        *report,
    ]
    RESULTS.write_text("\n".join(report), "utf-8")


if __name__ == "__main__":
    main()
