"""Multiply-adds each graph rewrite saves, and its speed-up over the graph before it.

The models must be exported without rewrites; this script applies the passes one after the other.

    segrt-export --all --untrained -o build/stock --without image_pool \\
        --without conv_before_resize --without kernel_before_resize --without linear_as_conv \\
        --without winograd
    python benchmarks/rewrites.py build/stock/*.onnx > benchmarks/results/rewrites.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import onnx
from common import arguments_for_files, noise, timed

from segrt.backends import catalog
from segrt.backends.plan import Plan, every
from segrt.backends.session import Session
from segrt.bench.pairs import interleave, ratio
from segrt.types import Device
from segrt_export.count import multiply_adds
from segrt_export.passes import FLOAT32_REWRITES, REWRITES

HEAD = """# Graph rewrites: less arithmetic for the same labels

Made by `benchmarks/rewrites.py` on {cpu} with {threads} threads. Multiply-adds are those of
convolutions and matrix products for one {height}x{width} image, counted from the graph. Each pass
is compared with the graph left by the passes before it, "all" with the graph without any. Ratios
are old time over new, so above 1 is faster: the median of {repeat} interleaved pairs, followed by
their range. `winograd` writes a second graph that only FP32 plans use: the other plans have no
figure for it, and their "all" excludes it. Equal labels: agreement between the graphs without and
with all passes, from the network's own logits for noise on ONNX Runtime's CPU provider. Models
without a row have nothing to rewrite.

| model | pass | G multiply-adds | share | {providers} | equal labels |
|---|---|---|---|{columns}---|"""


def stages(file: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model as exported, then after each pass that changes it."""
    model = onnx.load(str(file))
    yield "stock", model
    for name, rewrite in (REWRITES | FLOAT32_REWRITES).items():
        if rewrite(model):
            yield name, model


def rows(
    file: Path, plans: tuple[Plan, ...], options: argparse.Namespace, work: Path
) -> Iterator[str]:
    """The lines of the table for one model."""
    files, work_of = {}, {}
    for name, model in stages(file):
        files[name] = work / f"{name}.onnx"
        onnx.save(model, str(files[name]))
        work_of[name] = multiply_adds(model, (options.height, options.width))
    names = list(files)
    if len(names) == 1:
        return
    x = noise(3, options.height, options.width)
    steps = [*pairwise(names), (names[0], "all")]
    cells: dict[str, list[str]] = {after: [] for _, after in steps}
    equal = ""
    for plan in plans:
        usable = [name for name in names if plan.uses_second_graph or name not in FLOAT32_REWRITES]
        fixed = replace(plan, backend=replace(plan.backend, shapes="fixed"))
        sessions = {name: Session(files[name], fixed) for name in usable}
        if not equal:
            old, new = (sessions[name].run(x).argmax(1) for name in (names[0], names[-1]))
            equal = f"{(old == new).mean():.4%}"
        runs = {name: partial(timed, partial(s.run, x)) for name, s in sessions.items()}
        samples = interleave(runs, repeat=options.repeat) if len(runs) > 1 else {}
        for before, after in steps:
            last = usable[-1] if after == "all" else after
            speed_up = str(ratio(samples[before], samples[last])) if last in samples else ""
            cells[after].append(speed_up)
    work_of["all"] = work_of[names[-1]]
    for before, after in steps:
        old_work, new_work = work_of[before], work_of[after]
        saved = f"{old_work / 1e9:.1f} -> {new_work / 1e9:.1f} | {new_work / old_work:.3f}"
        labels = equal if after == "all" else ""
        yield f"| {file.stem} | {after} | {saved} | {' | '.join(cells[after])} | {labels} |"


def main() -> None:
    """Print the table for the given files."""
    options = arguments_for_files(__doc__, repeat=9).parse_args()
    machine = catalog.read(gpus=False)
    plans = every(Device.parse("cpu"), machine)
    print(
        HEAD.format(
            **vars(options),
            providers=" | ".join(plan.name for plan in plans),
            columns="---|" * len(plans),
            cpu=machine.cpu.name,
            threads=plans[0].threads,
        ),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as work:
        for file in options.files:
            for row in rows(file, plans, options, Path(work)):
                print(row, flush=True)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions)
    print(f"\n{versions}.")


if __name__ == "__main__":
    main()
