"""Memory, time and labels of `segrt.geo.segment` on a large scene, and what kill -9 does to it.

    python benchmarks/geo.py [--side 20000] [--slide 1024,768] [--kills 5] [--rounds 1] \\
        [--model_dir MODEL.onnx] [--folder FOLDER] [-o benchmarks/results/geo.md]

Two scenes drawn by tools/draw_aerial.py, RGB in 8 bits and four bands in 16 bits, are segmented by
windows from the file, and the same pixels by `predict` from a memory-mapped array. Each run is a
process of its own, and they alternate. Then a run is killed at random moments and resumed until it
ends; its file must be that of the uninterrupted run, byte for byte. About 4 bytes a pixel of disk
are needed for each scene. Prints a Markdown table, and fails if a label or a byte differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter
from typing import Any

import numpy as np
from rich.progress import Progress

ROOT = Path(__file__).parents[1]
BAR_MIB, BAR_EQUAL = 1536, 0.99999
SCENES: dict[str, tuple[int, dict[str, Any]]] = {
    "RGB, uint8": (3, {}),
    "4 bands, uint16": (4, {"bands": (3, 2, 1), "scale": (0, 4080)}),
}
TITLE = """\
# Georeferenced scenes by windows

Made by `benchmarks/geo.py`: `segrt.geo.segment` from a GeoTIFF, beside `predict` with the same
sliding window on the same pixels, a memory-mapped array. Throughput is relative to that. A run that
is killed by SIGKILL at random moments and resumed must give the same file, byte for byte.

"""
COLUMNS = (
    *("scene", "pixels", "model", "window", "peak MiB", "of the array", "seconds", "of the array"),
    *("throughput", "equal labels", "kills", "same file"),
)
HEAD = f"{TITLE}| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def work(task: dict[str, Any]) -> None:
    """One run, in a process of its own: prints its progress, then its time and peak memory."""
    import segrt
    import segrt.geo
    from segrt.bench.contender import peak_memory

    def show(done: int, total: int) -> None:
        print(json.dumps([done, total]), flush=True)

    model = {"model_dir": task["model"]} if task["model"] else {}
    pipeline = segrt.create_pipeline("semantic_segmentation", **model)
    start = perf_counter()
    if task["from"] == "file":
        segrt.geo.segment(
            pipeline,
            task["scene"],
            task["target"],
            slide=task["slide"],
            resume=task["resume"],
            progress=show,
            **task["options"],
        )
    else:
        image = np.load(task["scene"], mmap_mode="r")
        result = pipeline.segment(
            image, -1, slide=task["slide"], max_pixels=image.size, progress=show
        )
    seconds = perf_counter() - start
    peak = peak_memory() / 2**20
    if task["from"] == "memory":
        np.save(task["target"], result.labels.astype(np.uint16))
    print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)


def run(bar: Progress, title: str, task: dict[str, Any], kill_after: float | None = None) -> Any:
    """Run a task in a process; returns what it reports, or None if it was killed before its end."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    row = bar.add_task(title, total=None)
    found = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        timer = Timer(kill_after or 0, process.kill)  # SIGKILL, at any moment
        if kill_after is not None:
            timer.start()
        for line in process.stdout:
            if line.endswith("\n"):
                found = json.loads(line)
            if isinstance(found, list):
                bar.update(row, completed=found[0], total=found[1])
        timer.cancel()
    bar.remove_task(row)
    if isinstance(found, dict):
        return found
    if kill_after is None:
        raise SystemExit(f"{title}: exit status {process.returncode}")
    return None


def equal_share(target: Path, labels: Path) -> float:
    """The share of the pixels with a class whose label is that of the array."""
    import rasterio

    reference = np.load(labels, mmap_mode="r")
    equal = total = 0
    with rasterio.open(target) as opened:
        for top in range(0, opened.height, 512):
            rows = slice(top, min(top + 512, opened.height))
            window = rasterio.windows.Window(0, top, opened.width, rows.stop - top)
            found = opened.read(1, window=window)
            valid = found != opened.nodata
            equal += int(np.count_nonzero((found == reference[rows]) & valid))
            total += int(np.count_nonzero(valid))
    return equal / total


def measure(bar: Progress, folder: Path, name: str, arguments: argparse.Namespace) -> list[Any]:
    """All runs of one scene; returns the cells of its row."""
    bands, options = SCENES[name]
    scene, array = folder / "scene.tif", folder / "scene.npy"
    target, labels = folder / "labels.tif", folder / "labels.npy"
    bar.console.print(f"{name}: drawing")
    draw = [sys.executable, ROOT / "tools" / "draw_aerial.py", scene, "--npy", array]
    draw += ["--side", arguments.side, "--bands", bands]
    subprocess.run([*map(str, draw)], check=True)
    task = {"model": arguments.model_dir, "slide": arguments.slide, "options": options}
    task |= {"scene": str(scene), "resume": False}
    found: dict[str, list[Any]] = {"file": [], "memory": []}
    for number in range(arguments.rounds):
        for kind, source, out in (("file", scene, target), ("memory", array, labels)):
            title = f"{name}: from {kind}, {number + 1} of {arguments.rounds}"
            own = task | {"from": kind, "scene": str(source), "target": str(out)}
            found[kind].append(run(bar, title, own))
            bar.console.print(f"{title}: {found[kind][-1]}")
    equal = equal_share(target, labels)
    bar.console.print(f"{name}: {equal:.6%} of the labels are equal")
    again, seconds = folder / "again.tif", median(one["seconds"] for one in found["file"])
    kills, done = 0, None
    while done is None:
        own = task | {"from": "file", "target": str(again), "resume": True}
        # Late enough to load the model, and early enough that most runs are killed.
        after = random.uniform(2, 4 + 1.2 * seconds / max(1, arguments.kills))
        last = kills == arguments.kills
        done = run(bar, f"{name}: kill -9, {kills} times so far", own, None if last else after)
        kills += done is None
    same = again.read_bytes() == target.read_bytes()
    ratios = [
        memory["seconds"] / file["seconds"]
        for file, memory in zip(found["file"], found["memory"], strict=True)
    ]
    peaks = [max(one["peak"] for one in found[kind]) for kind in ("file", "memory")]
    times = [median(one["seconds"] for one in found[kind]) for kind in ("file", "memory")]
    for file in (scene, array, target, labels, again):
        file.unlink()
    return [name, *peaks, *times, median(ratios), equal, kills, same]


def row(cells: list[Any], arguments: argparse.Namespace) -> str:
    """A row of the table."""
    model = Path(arguments.model_dir).name if arguments.model_dir else "PP-LiteSeg-T_camvid"
    scene = f"{arguments.side} x {arguments.side} | {model} | {arguments.slide}"
    name, peak, other_peak, seconds, other_seconds, ratio, equal, kills, same = cells
    return (
        f"| {name} | {scene} | {peak:.0f} | {other_peak:.0f} | {seconds:.0f} | "
        f"{other_seconds:.0f} | {ratio:.2f} | {equal:.4%} | {kills} | {'yes' if same else 'NO'} |\n"
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--slide", default="1024,768")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=[*SCENES])
    parser.add_argument("--model_dir")
    parser.add_argument("--folder", help="where the scenes are written; default: a temporary one")
    parser.add_argument("-o", "--output", type=Path, help="a Markdown file for the table")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        work(json.loads(arguments.task))
        return
    table, wrong = HEAD, False
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, Progress() as bar:
        for name in arguments.scenes:
            cells = measure(bar, Path(folder), name, arguments)
            table += row(cells, arguments)
            wrong |= cells[-3] < BAR_EQUAL or not cells[-1] or cells[1] > BAR_MIB
            bar.console.print(table, markup=False, highlight=False, soft_wrap=True)
            if arguments.output:  # after each scene: a run takes long
                arguments.output.write_text(table)
    print(table)
    if wrong:
        raise SystemExit(f"bars missed: {BAR_MIB} MiB, {BAR_EQUAL:.3%} equal labels, the same file")


if __name__ == "__main__":
    main()
