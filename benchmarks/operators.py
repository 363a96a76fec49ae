"""The share of each operator in the time of ONNX Runtime's CPU provider, with and without rewrites.

Uses the same files as `rewrites.py`:

    python benchmarks/operators.py build/stock/*.onnx > benchmarks/results/profile.md
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort
from common import arguments_for_files, noise

from segrt_export.passes import FLOAT32_REWRITES, REWRITES

HEAD = """# Share of each operator

Made by `benchmarks/operators.py` from ONNX Runtime's profile of its CPU provider, which includes
its fused operators: one {height}x{width} image, {threads} threads, the fastest of {repeat} runs.
Operators below 2% are omitted.

| model | graph | ms | share of the time |
|---|---|---|---|"""


def profile(model: onnx.ModelProto, options: argparse.Namespace, work: Path) -> Counter[str]:
    """Microseconds by operator, of the fastest run."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads
    settings.enable_profiling = True
    settings.profile_file_prefix = str(work / "profile")
    for name, value in zip("NHW", (1, options.height, options.width), strict=True):
        settings.add_free_dimension_override_by_name(name, value)
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    x = noise(3, options.height, options.width)
    for _ in range(options.repeat + 1):
        session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    runs: list[Counter[str]] = []
    for event in sorted((e for e in events if "ts" in e), key=lambda e: float(e["ts"])):
        if event["name"] == "model_run":  # starts before its nodes
            runs.append(Counter())
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[-1][event["args"]["op_name"]] += event["dur"]
    return min(runs[1:], key=lambda run: run.total())  # the first run allocates


def row(name: str, graph: str, times: Counter[str]) -> str:
    """One line of the table."""
    total = times.total()
    shares = ", ".join(
        f"{op} {us / total:.0%}" for op, us in times.most_common() if us >= 0.02 * total
    )
    return f"| {name} | {graph} | {total / 1000:.0f} | {shares} |"


def main() -> None:
    """Print the table for the given files."""
    parser = arguments_for_files(__doc__, repeat=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(HEAD.format(**vars(options)), flush=True)
    with tempfile.TemporaryDirectory() as work:
        for file in options.files:
            model = onnx.load(str(file))
            print(row(file.stem, "stock", profile(model, options, Path(work))), flush=True)
            if sum(rewrite(model) for rewrite in (REWRITES | FLOAT32_REWRITES).values()):
                print(row(file.stem, "rewritten", profile(model, options, Path(work))), flush=True)
    print(f"\nonnxruntime {ort.__version__}.")


if __name__ == "__main__":
    main()
