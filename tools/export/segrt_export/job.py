"""Converts a Paddle model, in a process of its own: python -m segrt_export.job.

The arguments are the archive or folder, the name of the model, and a folder, into which it writes
`model.onnx` and `model.parity.json`, or `error.txt`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import segrt_export
from segrt import archive
from segrt.errors import SegrtError
from segrt_export.program import PaddleModel


def run(source: Path, name: str, folder: Path) -> None:
    """Convert a Paddle model.

    Example:
        >>> run(Path("PP-LiteSeg-B_infer.tar"), "PP-LiteSeg-B", Path("work"))

    Args:
        source: its archive, or a folder that contains it.
        name: the model's name, for its metadata.
        folder: folder for the results; it exists.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="segrt-export-") as work:
            if not source.is_dir():
                archive.unpack(source, Path(work) / "model")
                source = archive.find_model_dir(Path(work) / "model")
            model = PaddleModel.open(source, name=name)
            segrt_export.export(model, folder / "model.onnx")
    except (SegrtError, OSError) as error:
        (folder / "error.txt").write_text(" ".join(str(error).split()), "utf-8")
        raise


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="No ccache found")
    run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
