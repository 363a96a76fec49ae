"""Names of output files, derived from the names of the inputs."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from segrt.frame import Frame, SegFailure

log = logging.getLogger("segrt")

_MAX_BYTES = 200  # of a stem; file systems allow 255, and "_10000_2_overlay.png" is added

NamedBatch: TypeAlias = list[tuple[Frame | SegFailure, str]]
"""Images or failures, each with the name under which its result is saved."""


def is_url(source: object) -> bool:
    """Whether `source` is text that starts with http:// or https://."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def file_name(input_path: str) -> str:
    """The file name of an input, to derive output names from.

    Example:
        >>> file_name("photos/a.jpg"), file_name("https://host/b.png?x=1"), file_name("camera:0")
        ('a.jpg', 'b.png', 'camera_0')
    """
    if input_path.startswith("camera:"):
        return input_path.replace(":", "_")
    if not is_url(input_path):
        return Path(input_path).name
    name = PurePosixPath(unquote(urlsplit(input_path).path)).name
    return re.sub(r'[\x00-\x1f<>:"|?*\\]', "_", name)[-100:]


def short_stem(path: str) -> str:
    """The name of an input without its suffix, cut to `_MAX_BYTES` where a character ends.

    Example:
        >>> short_stem("photos/road.jpg")
        'road'
    """
    stem = Path(file_name(path)).stem
    while len(stem.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        stem = stem[:-1]
    return stem


class Stems:
    """Assigns a unique output name, without suffix, to each input of one call.

    Names of more than 200 bytes are cut, because a result's name is longer than that of its input.

    A series such as clip_0, clip_1, ... is remembered by its last number, so endless series need
    no memory.

    Example:
        >>> stems = Stems()
        >>> stems.assign("x/a.png"), stems.assign("y/a.png"), stems.assign("doc.pdf", 3)
        ('a', 'a_2', 'doc_3')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def assign(self, path: str | None, page: int | None = None) -> str:
        """The name for an input and its page or frame; logs a warning if it had to be changed."""
        base = (short_stem(path) if path else "") or "image"
        stem = unique = base if page is None else f"{base}_{page}"
        if self._is_taken(stem):
            number = max(2, self._last.get(stem.lower(), 0) + 1)
            while self._is_taken(unique := f"{stem}_{number}"):
                number += 1
            self._last[stem.lower()] = number
            if path:
                log.warning(
                    "%s is saved as %s: another input of this call is saved as %s",
                    path,
                    unique,
                    stem,
                )
        elif page is None:
            self._taken.add(stem.lower())
        else:
            self._last[base.lower()] = page
        return unique

    def _is_taken(self, stem: str) -> bool:
        stem = stem.lower()  # some file systems ignore case
        base, _, number = stem.rpartition("_")
        return stem in self._taken or (
            number.isdecimal() and int(number) <= self._last.get(base, -1)
        )


def named_batches(
    items: Generator[Frame | SegFailure, None, None], size: int
) -> Iterator[NamedBatch]:
    """Lists of up to `size` items, each with the name under which its result is saved."""
    stems = Stems()
    with closing(items):
        while batch := list(islice(items, size)):
            yield [(item, stems.assign(item.input_path, item.page_index)) for item in batch]
