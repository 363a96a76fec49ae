"""The codecs, which imagecodecs imports when they are used, by name."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("imagecodecs")
