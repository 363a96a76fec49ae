"""The models that `benchmarks/gpu.py` measures, made where Paddle is installed (`segrt[export]`).

    python benchmarks/gpu_models.py gpu-models [--trained path/to/PP-LiteSeg-T_camvid]

Each model gets a folder with `model.onnx`, as segrt-export writes it, and `stock.onnx`, as
paddle2onnx does (adaptive pooling, which it refuses at flexible sizes, is segrt's), upsampling and
argmax included. The networks are untrained.
`--trained` is the Paddle model that the bundled one comes from, for its stock graph.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import segrt_export
from segrt import zoo
from segrt_export.program import PaddleModel

TWINS = (
    "PP-LiteSeg-T",
    "SegFormer-B0 (slice)",
    "SeaFormer_base(slice)",
    "OCRNet_HRNet-W18",
    "Deeplabv3-R50",
    "Deeplabv3_Plus-R50",
)


def main() -> None:
    """Build and convert the models that are not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trained", type=Path)
    arguments = parser.parse_args()
    if arguments.trained:
        model = PaddleModel.open(arguments.trained)
        (arguments.folder / model.name).mkdir(parents=True, exist_ok=True)
        segrt_export.export_stock(model, arguments.folder / model.name / "stock.onnx")
    for name in TWINS:
        folder = arguments.folder / name.split("(", maxsplit=1)[0].strip()
        if (folder / "model.onnx").is_file():
            continue
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as work:
            paddle = Path(work) / "paddle"
            segrt_export.build_untrained(name, paddle, class_names=zoo.get(name).class_names)
            model = PaddleModel.open(paddle, name=name)
            segrt_export.export(model, folder / "model.onnx", sizes=())
            segrt_export.export_stock(model, folder / "stock.onnx")


if __name__ == "__main__":
    main()
