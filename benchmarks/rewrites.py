"""What each graph rewrite saves: multiply-adds, and time against the graph before it, run in turns.

The models come without rewrites; the passes are applied here, one after the other.

    segrt-export --all --untrained -o build/stock --without image_pool --without conv_before_resize \
        --without kernel_before_resize --without linear_as_conv --without winograd
    python benchmarks/rewrites.py build/stock/*.onnx > benchmarks/results/rewrites.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from segrt.backends import catalog
from segrt.backends.plan import Plan, every
from segrt.backends.session import Session
from segrt.bench.pairs import Ratio, interleave, ratio
from segrt.types import Device
from segrt_export.count import multiply_adds
from segrt_export.passes import FLOAT32_REWRITES, REWRITES

HEAD = """# Graph rewrites: less arithmetic for the same labels

Made by `benchmarks/rewrites.py`. Multiply-adds are those of convolutions and matrix products for one {height}x{width}
image, counted from the graph; a pass is measured against the graph that the passes before it left, "all" against the
graph without any. Ratios are old time over new, above 1 is faster: the median of {repeat} pairs run in turns, and in
brackets the smallest and the largest; {cpu}, {threads} threads. `winograd` makes a second graph, which only plans in
FP32 run: the others have no figure for it, and their "all" is without it. Equal labels: between the graph without and
with all passes, the network's own logits for noise on ONNX Runtime's CPU provider. Models without a row have nothing to
rewrite.

| model | pass | G multiply-adds | share | {providers} | equal labels |
|---|---|---|---|{columns}---|"""


def stages(file: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model as it is, then after each pass that finds something in it."""
    model = onnx.load(str(file))
    yield "stock", model
    for name, rewrite in (REWRITES | FLOAT32_REWRITES).items():
        if rewrite(model):
            yield name, model


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    start = perf_counter()
    run()
    return perf_counter() - start


def cell(pairs: Ratio) -> str:
    """Median and range of a ratio."""
    return f"{pairs.median:.2f} ({pairs.low:.2f} to {pairs.high:.2f})"


def rows(
    file: Path, plans: tuple[Plan, ...], options: argparse.Namespace, work: Path
) -> Iterator[str]:
    """The lines of the table for one model."""
    size = (options.height, options.width)
    files, work_of = {}, {}
    for name, model in stages(file):
        files[name] = work / f"{name}.onnx"
        onnx.save(model, str(files[name]))
        work_of[name] = multiply_adds(model, size)
    names = list(files)
    if len(names) == 1:
        return
    x = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    cells: dict[str, list[str]] = {name: [] for name in [*names[1:], "all"]}
    equal = ""
    for plan in plans:
        here = [name for name in names if plan.takes_float32_graph or name not in FLOAT32_REWRITES]
        sessions = {name: Session(files[name], replace(plan, shapes="fixed")) for name in here}
        if not equal:
            old, new = (sessions[name].run(x).argmax(1) for name in (names[0], names[-1]))
            equal = f"{(old == new).mean():.4%}"
        runs = {name: partial(timed, partial(s.run, x)) for name, s in sessions.items()}
        samples = interleave(runs, repeat=options.repeat) if len(runs) > 1 else {}
        for before, after in [*pairwise(names), (names[0], "all")]:
            last = here[-1] if after == "all" else after
            cells[after].append(
                cell(ratio(samples[before], samples[last])) if last in samples else ""
            )
    pairs = [*pairwise(names), (names[0], "all")]
    work_of["all"] = work_of[names[-1]]
    for before, after in pairs:
        saved = f"{work_of[before] / 1e9:.1f} -> {work_of[after] / 1e9:.1f} | {work_of[after] / work_of[before]:.3f}"
        labels = equal if after == "all" else ""
        yield f"| {file.stem} | {after} | {saved} | {' | '.join(cells[after])} | {labels} |"


def main() -> None:
    """Print the table for the files that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    here = catalog.read(gpus=False)
    plans = every(Device.parse("cpu"), here)
    print(
        HEAD.format(
            **vars(options),
            providers=" | ".join(plan.name for plan in plans),
            columns="---|" * len(plans),
            cpu=here.cpu.name,
            threads=plans[0].threads,
        ),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as work:
        for file in options.files:
            for row in rows(file, plans, options, Path(work)):
                print(row, flush=True)
    versions = ", ".join(f"{name} {version}" for name, version in here.versions)
    print(f"\n{versions}.")


if __name__ == "__main__":
    main()
