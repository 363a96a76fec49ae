"""Peak memory and time of a sliding window over a large image.

    python benchmarks/slide_memory.py [--side 20000] [--slide 1024,768] \\
        [--source npy|raw|tiles|deflate|lzw|png] \\
        [--model_dir MODEL.onnx | --classes 150 [--logits_stride 8]] \\
        [-o benchmarks/results/slide_memory.md]

The image is repeated noise in a temporary file: a memory-mapped NumPy array, or the path of a TIFF
(uncompressed or compressed strips, or uncompressed tiles) or PNG file. With `--classes`, the model
is a single random convolution with logits at 1/logits_stride: the memory of a sliding window does
not depend on what the network computes.

The peak is that of the resident set, which includes mapped pages that the system could drop.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import Progress

import segrt
from segrt.bench.contender import peak_memory
from segrt.metadata import KEY, ModelMeta, Upsample

SOURCES = {"npy": "npy", "raw": "tif", "tiles": "tif", "deflate": "tif", "lzw": "tif", "png": "png"}
_WRITE = """
import sys
import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None
source, target, compression = sys.argv[1:]
Image.fromarray(np.load(source, mmap_mode="r")).save(target, compression=compression or None)
"""


def write_image(folder: Path, side: int, source: str) -> Path:
    """Write the image; steps that need memory run in a separate process."""
    array = folder / "image.npy"
    image = np.lib.format.open_memmap(array, "w+", np.uint8, (side, side, 3))
    noise = np.random.default_rng(0).integers(0, 256, (64, side, 3), np.uint8)
    for top in range(0, side, 64):
        image[top : top + 64] = noise[: side - top]
    del image
    if source == "npy":
        return array
    file = folder / f"image.{SOURCES[source]}"
    if source == "tiles":
        import tifffile

        tifffile.imwrite(file, np.load(array, mmap_mode="r"), tile=(256, 256), photometric="rgb")
    else:
        compression = {"deflate": "tiff_adobe_deflate", "lzw": "tiff_lzw"}.get(source, "")
        subprocess.run([sys.executable, "-c", _WRITE, array, file, compression], check=True)
    array.unlink()
    return file


def write_model(file: Path, classes: int, stride: int) -> Path:
    """Write a model with a single convolution and segrt's metadata."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    weight = (
        np.random.default_rng(0).standard_normal((classes, 3, stride, stride)).astype(np.float32)
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["logits"], strides=[stride, stride])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes, "h", "w"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    meta = ModelMeta(
        name=f"convolution, {classes} classes, 1/{stride}", upsample=Upsample(stride=stride)
    )
    helper.set_model_props(model, {KEY: meta.model_dump_json()})
    save_model(model, str(file))
    return file


def main() -> None:
    """Measure, and print a row of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--slide", default="1024,768")
    parser.add_argument("--source", choices=SOURCES, default="npy")
    parser.add_argument("--classes", type=int)
    parser.add_argument("--logits_stride", type=int, default=8)
    parser.add_argument("--model_dir")
    parser.add_argument("-o", "--output", type=Path, help="a Markdown table to append a row to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Progress() as bar:
        folder, model = Path(temporary), arguments.model_dir
        if arguments.classes:
            model = write_model(folder / "model.onnx", arguments.classes, arguments.logits_stride)
        pipeline = segrt.create_pipeline("semantic_segmentation", model_dir=model)
        file = write_image(folder, arguments.side, arguments.source)
        image = np.load(file, mmap_mode="r") if arguments.source == "npy" else file
        before = peak_memory() / 2**30
        task = bar.add_task("crops")
        start = time.perf_counter()
        results = pipeline.predict(
            image,
            -1,
            slide=arguments.slide,
            max_pixels=arguments.side**2,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
        (result,) = results
        assert isinstance(result, segrt.SegResult)
        seconds = time.perf_counter() - start
    row = (
        f"| {arguments.side} x {arguments.side} | {arguments.source} | {pipeline.model_name} | "
        f"{arguments.slide} | {peak_memory() / 2**30:.2f} | {before:.2f} | {seconds:.0f} |"
    )
    print(row)
    if arguments.output:
        with arguments.output.open("a") as table:
            table.write(row + "\n")


if __name__ == "__main__":
    main()
