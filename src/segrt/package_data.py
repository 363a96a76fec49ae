"""Files of the installed package: the model zoo, the bundled model, the server's page.

The package may be imported from a zip file (`python -m zipapp`, Spark's `--py-files`, a wheel on
`sys.path`). A file is then extracted when it is first used, and deleted when the process exits.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

SAMPLE = "models/sample.png"
"""The sample image, a photo of a street."""

_extracted = ExitStack()
_process = os.getpid()


@cache
def path(name: str) -> Path:
    """The path of a file, which is there until the process exits.

    Example:
        >>> path(SAMPLE)
        PosixPath('/usr/lib/python3/dist-packages/segrt/models/sample.png')

    Args:
        name: relative to the package, with slashes.

    Returns:
        Path: where the file should be, if the package lacks it.
    """
    resource = files("segrt").joinpath(*name.split("/"))
    try:
        return _extracted.enter_context(as_file(resource))
    except FileNotFoundError:
        return Path(str(resource))


def names(folder: str) -> list[str]:
    """The names of the files in a folder of the package, sorted.

    Example:
        >>> names("serve/page")
        ['app.js', 'docs.css', 'docs.js', 'index.html']
    """
    entries = files("segrt").joinpath(*folder.split("/")).iterdir()
    return sorted(entry.name for entry in entries if entry.is_file())


@atexit.register
def _clean_up() -> None:
    if os.getpid() == _process:  # the files of a forked process are its parent's
        _extracted.close()
