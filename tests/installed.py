"""segrt as its wheel installs it: nothing of the source checkout is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def files() -> Iterator[tuple[Path, str]]:
    """The files of the wheel, each with its name there."""
    for base in (ROOT / "src", ROOT / "tools" / "export"):
        for file in sorted(base.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file, file.relative_to(base).as_posix()
    yield ROOT / "model_zoo.yaml", "segrt/model_zoo.yaml"
    for file in sorted((ROOT / "packages/web/src").iterdir()):
        yield file, f"segrt/web/module/{file.name}"


def run(
    package: Path,
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str],
    before: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run Python with `package` on its path.

    Args:
        package: a folder or zip file that contains `files`.
        arguments: of Python.
        cwd: its working folder.
        environment: its other environment variables.
        before: a command that runs Python.
    """
    # Without the module `site`, which would make the editable installation importable.
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    return subprocess.run(
        [*before, sys.executable, "-S", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": os.pathsep.join([str(package), *packages]), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
