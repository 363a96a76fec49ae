"""What each graph rewrite saves: multiply-adds, and time against the graph before it, run in turns.

The models come without rewrites; the passes are applied here, one after the other.

    segrt-export --all --untrained -o build/stock --without image_pool --without conv_before_resize \
        --without kernel_before_resize
    python benchmarks/rewrites.py build/stock/*.onnx > benchmarks/results/rewrites.md
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from segrt.bench.pairs import Ratio, interleave, ratio
from segrt_export.count import multiply_adds
from segrt_export.passes import REWRITES

OPENVINO = "OpenVINOExecutionProvider"
HEAD = """# Graph rewrites: less arithmetic for the same labels

Made by `benchmarks/rewrites.py`. Multiply-adds are those of convolutions and matrix products for one {height}x{width}
image, counted from the graph; a pass is measured against the graph that the passes before it left, "all" against the
graph without any. Ratios are old time over new, above 1 is faster: the median of {repeat} pairs run in turns, and in
brackets the smallest and the largest; {threads} threads. Equal labels: between the graph without and with all passes,
the network's own logits for noise on ONNX Runtime's CPU provider. Models without a row have nothing to rewrite.

| model | pass | G multiply-adds | share | {providers} | equal labels |
|---|---|---|---|{columns}---|"""


def stages(file: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model as it is, then after each pass that finds something in it."""
    model = onnx.load(str(file))
    yield "stock", model
    for name, rewrite in REWRITES.items():
        if rewrite(model):
            yield name, model


def session(content: bytes, provider: str, size: tuple[int, int], threads: int, work: Path) -> Any:
    """A session on "cpu", or on OpenVINO's CPU device in the precision that `provider` names, for one size of input."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    for name, value in zip("NHW", (1, *size), strict=True):
        options.add_free_dimension_override_by_name(name, value)
    if provider == "cpu":
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    config = work / f"{provider}.json"
    hints = {"INFERENCE_PRECISION_HINT": provider, "INFERENCE_NUM_THREADS": str(threads)}
    config.write_text(json.dumps({"CPU": hints}))
    cpu = ort.OrtHardwareDeviceType.CPU
    devices = [d for d in ort.get_ep_devices() if d.ep_name == OPENVINO and d.device.type == cpu]
    options.add_provider_for_devices(devices, {"load_config": str(config)})
    return ort.InferenceSession(content, options)


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    start = perf_counter()
    run()
    return perf_counter() - start


def _cell(pairs: Ratio) -> str:
    return f"{pairs.median:.2f} ({pairs.low:.2f} to {pairs.high:.2f})"


def rows(file: Path, providers: list[str], options: argparse.Namespace, work: Path) -> Iterator[str]:
    """The lines of the table for one model."""
    size = (options.height, options.width)
    contents, work_of = {}, {}
    for name, model in stages(file):
        contents[name] = model.SerializeToString()
        work_of[name] = multiply_adds(model, size)
    names = list(contents)
    if len(names) == 1:
        return
    x = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    cells: dict[str, list[str]] = {name: [] for name in [*names[1:], "all"]}
    for provider in providers:
        sessions = {name: session(content, provider, size, options.threads, work) for name, content in contents.items()}
        if provider == "cpu":
            old, new = (sessions[name].run(None, {"x": x})[0].argmax(1) for name in (names[0], names[-1]))
            equal = f"{(old == new).mean():.4%}"
        runs = {name: partial(timed, partial(s.run, None, {"x": x})) for name, s in sessions.items()}
        samples = interleave(runs, repeat=options.repeat)
        for before, after in pairwise(names):
            cells[after].append(_cell(ratio(samples[before], samples[after])))
        cells["all"].append(_cell(ratio(samples[names[0]], samples[names[-1]])))
    pairs = [*pairwise(names), (names[0], "all")]
    work_of["all"] = work_of[names[-1]]
    for before, after in pairs:
        saved = f"{work_of[before] / 1e9:.1f} -> {work_of[after] / 1e9:.1f} | {work_of[after] / work_of[before]:.3f}"
        labels = equal if after == "all" else ""
        yield f"| {file.stem} | {after} | {saved} | {' | '.join(cells[after])} | {labels} |"


def main() -> None:
    """Print the table for the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    providers = {"cpu": "CPU provider"}
    try:
        import onnxruntime_ep_openvino as plugin

        ort.register_execution_provider_library(OPENVINO, plugin.get_library_path())
        providers |= {"f32": "OpenVINO f32", "bf16": "OpenVINO bf16"}
    except ImportError:
        pass
    shown = {**vars(options), "providers": " | ".join(providers.values()), "columns": "---|" * len(providers)}
    print(HEAD.format(**shown), flush=True)
    with tempfile.TemporaryDirectory() as work:
        for file in options.files:
            for row in rows(file, list(providers), options, Path(work)):
                print(row, flush=True)
    print(f"\nonnxruntime {ort.__version__}.")


if __name__ == "__main__":
    main()
