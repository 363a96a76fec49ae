"""Malicious files: no crash, no hang, bounded memory, and an error for each unreadable file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path


def test_two_hundred_hostile_files(tmp_path: Path) -> None:
    program = Path(__file__).with_name("hostile.py")
    command = [sys.executable, str(program), str(tmp_path / "files")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["peak_mib"] < 2048
    assert len(report["files"]) >= 200
    for name, (seconds, images, errors) in report["files"].items():
        assert seconds < 5, name
        assert images or errors, name
        for error in errors:
            assert name in error
            assert "\n" not in error
        harmless = re.match(
            r"fine|gif-inside|exif|flipped|loop|pages\.pdf|zero\.pdf|bomb-|frames|cut.\.pages", name
        )
        assert errors or harmless, name
    files = report["files"]
    assert all(files[f"exif{i}.jpg"][1] == 1 for i in range(8))  # only the EXIF data is broken
    assert "is encrypted" in files["encrypted.pdf"][2][0]
    assert files["frames.tif"][1] == 10_000
    assert files["loop-two.tif"][1] == 3
