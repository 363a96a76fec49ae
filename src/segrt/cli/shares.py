"""The classes of an image and the shares they cover, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping

BAR = 30
"""Characters of the bar of a class that covers the whole image."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def line(areas: Mapping[str, float]) -> str:
    """All classes in one line, largest first.

    Example:
        >>> line({"road": 0.412, "sky": 0.33})
        'road 41.2%, sky 33.0%'
    """
    return ", ".join(f"{name} {share:.1%}" for name, share in areas.items())


def bars(areas: Mapping[str, float], encoding: str = "utf-8") -> list[str]:
    """A line with a bar for each class, largest first.

    Example:
        >>> bars({"road": 0.5})
        ['road   50.0%  ███████████████']

    Args:
        areas: share of the image by class name.
        encoding: of the terminal; if it has no blocks, bars are made of "#".
    """
    width = max((len(name) for name in areas), default=0)
    try:
        _EIGHTHS.encode(encoding)
        bar = _blocks
    except UnicodeEncodeError:
        bar = _hashes
    return [
        f"{name:<{width}}  {share:6.1%}  {bar(share)}".rstrip() for name, share in areas.items()
    ]


def _blocks(share: float) -> str:
    whole, part = divmod(round(share * BAR * 8), 8)
    return _EIGHTHS[8] * whole + _EIGHTHS[part].strip()


def _hashes(share: float) -> str:
    return "#" * round(share * BAR)
