"""Size, memory and time of models in WebAssembly: a page of `segrt web` in a headless Chromium.

    python benchmarks/browser.py MODEL.onnx ... [--threads 1] [--runs 5] [-o browser.md]

For each model, the page is built and opened in a browser of its own, and segments noise of
360 x 480 and 512 x 512 pixels. Memory is the peak resident memory of the process that runs the
page (VmHWM of Linux), which includes the browser's own: the row "no model" shows that. Time is the
median of a whole call of `segment`, pre- and postprocessing included, after one run to warm up.
`segrt-export --untrained NAME` makes models of the zoo without their weights, which take the same
time and memory. It needs chromium, chromedriver and selenium.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from web import static

import segrt
from segrt.web import site

SIZES = ((360, 480), (512, 512))

LOAD = """
const { Segmenter } = await import("./segrt-web/index.js");
const begin = performance.now();
window.seg = await Segmenter.load("model.onnx", { runtime: "onnxruntime-web", threads: args[0] });
return performance.now() - begin;
"""

RUN = """
const [height, width, runs] = args;
const times = [];
for (let n = -1; n < runs; n++) {
  const data = Uint8Array.from({ length: 3 * height * width }, () => 256 * Math.random());
  const begin = performance.now();
  await window.seg.segment({ data, height, width });
  if (n >= 0) times.push(performance.now() - begin);
}
return times;
"""


def main() -> None:
    """Measure the models and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--runtime", type=Path, help="the unpacked npm package onnxruntime-web")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| model | file MB | gzip MB | size | load s | ms | peak MB |",
        "|---|---|---|---|---|---|---|",
        f"| no model | | | | | | {_measure(None, arguments, None)[2]:.0f} |",
    ]
    for model in arguments.models:
        data = model.read_bytes()
        name = model.parent.name if model.stem == "model" else model.stem
        start = f"| {name} | {len(data) / 1e6:.1f} | {len(gzip.compress(data)) / 1e6:.1f}"
        for size in SIZES:
            load, time, peak = _measure(model, arguments, size)
            row = f"{start} | {size[0]} x {size[1]} | {load:.1f} | {time:.0f} | {peak:.0f} |"
            lines.append(row)
            print(row, flush=True)
    table = "\n".join([*lines, ""])
    print(table)
    if arguments.output:
        arguments.output.write_text(table)


def _measure(
    model: Path | None, arguments: argparse.Namespace, size: tuple[int, int] | None
) -> tuple[float, float, float]:
    """Seconds to load, median ms of a picture, and peak MB, in a browser of its own."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "site")
        if model is None:
            folder.mkdir()
            (folder / "index.html").write_text("<!doctype html>")
        else:
            with segrt.create_pipeline(model_dir=model, device="cpu") as pipeline:
                description = pipeline.session.description
                runtime = arguments.runtime
                site.build(model, description, pipeline.palette, folder, runtime_folder=runtime)
            # An empty page with the files of the real one, which would load the model twice.
            (folder / "index.html").write_text("<!doctype html>")
        headers = {
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
        }
        with static.server(folder, headers) as address, static.chromium(Path(made)) as browser:
            browser.get(f"{address}/")
            if model is None or size is None:
                return 0, 0, _peak(browser)
            load = static.run(browser, LOAD, arguments.threads) / 1000
            times = sorted(static.run(browser, RUN, *size, arguments.runs))
            return load, times[len(times) // 2], _peak(browser)


def _peak(browser: Any) -> float:
    """The largest peak resident memory of the browser's processes that run pages, in MB."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
    peaks = []
    for process in parents:
        above = process
        while above in parents and above != browser.service.process.pid:
            above = parents[above]
        command = Path(f"/proc/{process}/cmdline").read_bytes() if above in parents else b""
        if b"--type=renderer" in command:
            status = Path(f"/proc/{process}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1000)
    return max(peaks)


if __name__ == "__main__":
    main()
