"""Importing segrt must stay fast: every script does it, even to print help."""

from __future__ import annotations

import subprocess
import sys


def test_import_loads_no_heavy_module() -> None:
    code = (
        "import sys, segrt; "
        "heavy = 'onnxruntime', 'cv2', 'pydantic', 'numpy', 'PIL', 'yaml', 'paddle'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_available() -> None:
    import segrt

    assert all(getattr(segrt, name) is not None for name in segrt.__all__)
