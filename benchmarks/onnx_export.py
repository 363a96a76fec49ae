"""An ONNX file of another exporter, before and after `segrt-export model.onnx`, in alternation.

    python benchmarks/onnx_export.py model.onnx exported.onnx [--size 512x1024] [--rounds 10]

Both run on ONNX Runtime's CPU provider with two threads; figures are medians.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime as ort

from segrt import second_graph
from segrt.types import parse_size


def _session(model: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--size", type=parse_size, default=(512, 1024))
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    fast = second_graph.read(arguments.exported) or arguments.exported
    sessions = {"original": _session(arguments.original), "exported": _session(fast)}
    batch = np.random.default_rng(0).standard_normal((1, 3, *arguments.size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(arguments.rounds + 1):
        for name, session in sessions.items():
            start = perf_counter()
            session.run(None, {session.get_inputs()[0].name: batch})
            if turn:  # the first round warms up
                times[name].append(1000 * (perf_counter() - start))
    for name, taken in times.items():
        print(f"{name}: {median(taken):.1f} ms ({min(taken):.1f} to {max(taken):.1f})")
    ratios = [a / b for a, b in zip(times["original"], times["exported"], strict=True)]
    print(f"ratio: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
