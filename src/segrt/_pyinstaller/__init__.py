"""Hooks for PyInstaller, which finds them through the entry point group `pyinstaller40`."""

from __future__ import annotations

from pathlib import Path


def hook_folders() -> list[str]:
    """The folders with the hooks.

    Example:
        >>> hook_folders()
        ['/usr/lib/python3/dist-packages/segrt/_pyinstaller']
    """
    return [str(Path(__file__).parent)]
