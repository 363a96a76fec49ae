"""One side of `compare_paddlex.py`: segments images in the environment that it runs in.

    python benchmarks/compare_worker.py segrt|paddlex MODEL MODE

Requests and answers are lines of JSON on stdin and stdout. This file also runs in PaddleX's
environment, where segrt is not installed, so each library is imported on demand.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any


def main() -> None:
    """Answer requests until stdin closes."""
    name, model, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    start = perf_counter()
    version, pipeline = load_segrt(model, mode) if name == "segrt" else load_paddlex(model)
    print(json.dumps({"version": version, "start_s": perf_counter() - start}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        size = tuple(request["size"]) if isinstance(request["size"], list) else request["size"]
        start = perf_counter()
        results = iter(pipeline.predict(request["input"], target_size=size))
        if "folder" in request:
            for result in results:
                result.save_to_img(request["folder"])
                result.save_to_json(request["folder"])
        else:
            pred = next(results)["pred"]
        seconds = perf_counter() - start
        if "save" in request:
            import numpy as np

            labels = np.asarray(pred).reshape(np.shape(pred)[-2:]).astype(np.int32)
            np.save(request["save"], labels)
        print(json.dumps({"seconds": seconds}), file=out, flush=True)


def load_segrt(model: Path, mode: str) -> tuple[str, Any]:
    """A description of the pipeline, and the pipeline."""
    import segrt

    pipeline = segrt.create_pipeline(model_dir=model, device="cpu", mode=mode)
    session = pipeline.session
    return f"segrt {segrt.__version__} on {session.provider} {session.precision}", pipeline


def load_paddlex(model: Path) -> tuple[str, Any]:
    """Like `load_segrt`, for PaddleX."""
    from importlib.metadata import version

    from paddlex import create_pipeline

    module = {
        "module_name": "semantic_segmentation",
        "model_name": "PP-LiteSeg-T",
        "model_dir": str(model),
        "batch_size": 1,
        "target_size": None,
    }
    yml = model / "inference.yml"
    if yml.is_file():  # PaddleX requires the two names to agree
        import yaml

        module["model_name"] = yaml.safe_load(yml.read_text("utf-8"))["Global"]["model_name"]
    config = {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": module},
    }
    pipeline = create_pipeline(config=config, device="cpu")
    versions = ", ".join(f"{package} {version(package)}" for package in ("paddlex", "paddlepaddle"))
    return versions, pipeline


if __name__ == "__main__":
    main()
