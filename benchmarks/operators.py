"""Where the time goes: the share of each operator on ONNX Runtime's CPU provider, before and after the rewrites.

Takes the same files as `rewrites.py`:

    python benchmarks/operators.py build/stock/*.onnx > benchmarks/results/profile.md
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from segrt_export.passes import FLOAT32_REWRITES, REWRITES

HEAD = """# Share of each operator

Made by `benchmarks/operators.py`: ONNX Runtime's own profile of its CPU provider, its fused operators by their names
there, one {height}x{width} image, {threads} threads, the fastest of {repeat} runs. Operators under 2% are left out.

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
    x = (
        np.random.default_rng(0)
        .standard_normal((1, 3, options.height, options.width))
        .astype(np.float32)
    )
    for _ in range(options.repeat + 1):
        session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    runs: list[Counter[str]] = []
    for event in sorted((e for e in events if "ts" in e), key=lambda e: float(e["ts"])):
        if event["name"] == "model_run":  # begins before its nodes do
            runs.append(Counter())
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[-1][event["args"]["op_name"]] += event["dur"]
    return min(runs[1:], key=lambda run: run.total())  # the first one allocates


def row(name: str, graph: str, times: Counter[str]) -> str:
    """One line of the table."""
    total = times.total()
    shares = ", ".join(
        f"{op} {us / total:.0%}" for op, us in times.most_common() if us >= 0.02 * total
    )
    return f"| {name} | {graph} | {total / 1000:.0f} | {shares} |"


def main() -> None:
    """Print the table for the files that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
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
