"""Importing segrt must stay cheap: it happens in every script, also in those that only print help."""

from __future__ import annotations

import subprocess
import sys


def test_import_brings_no_heavy_module() -> None:
    code = (
        "import sys, segrt; "
        "print([m for m in ('onnxruntime', 'cv2', 'pydantic', 'numpy', 'PIL', 'yaml', 'paddle') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import segrt

    assert all(getattr(segrt, name) is not None for name in segrt.__all__)
