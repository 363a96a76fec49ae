"""Importing segrt must stay fast: every script does it, even to print help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_import_loads_no_heavy_module() -> None:
    code = (
        "import sys, segrt; "
        "heavy = 'onnxruntime', 'cv2', 'pydantic', 'numpy', 'PIL', 'yaml', 'paddle'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_onnxruntime_collects_nothing(tmp_path: Path) -> None:
    """It collects nothing in CI either, so the variables that it recognises CI by are left out."""
    code = (
        "import segrt, time; segrt.create_pipeline('semantic_segmentation', device='cpu'); "
        "time.sleep(0.2)"
    )
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert [path.name for path in tmp_path.iterdir() if path.name != "segrt"] == []


def test_public_names_are_available() -> None:
    import segrt

    assert all(getattr(segrt, name) is not None for name in segrt.__all__)
