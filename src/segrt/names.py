"""Names of output files, derived from the names of the inputs.

A result is saved as *stem*, *_page* and *ending*: the first page of `scan.pdf` as `scan_0_res.png`.

- The stem is the name of the input without its suffix, as the file system has it: letters, blanks,
  line breaks and bytes that are not UTF-8 are kept. Dots at the start belong to the stem: that of
  `.jpg` is `.jpg`. Inputs without a name, such as arrays, are called `image`.
- It is cut to 200 bytes, between two characters, and never in front of a combining mark: file
  systems allow 255, and a result has a longer name than its input.
- In names that come from URLs, and on Windows in all names, `_` replaces what Windows does not
  allow (``< > : " | ? * \\`` and control characters) and follows a device name in front of a dot
  (`NUL.tar` becomes `NUL_.tar`). Neither a mere `NUL` nor a dot or blank at the end does harm, as
  an ending is added.
- Inputs of one call never share a result. A stem that is taken is numbered, and a warning logged;
  names that differ only in case or in their Unicode normalisation count as one, since there are
  file systems that don't distinguish them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from itertools import accumulate, chain, islice
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from unicodedata import category, normalize
from urllib.parse import unquote, urlsplit

from segrt.frame import Frame, SegFailure

log = logging.getLogger("segrt")

_MAX_BYTES = 200  # of a stem; file systems allow 255, and "_10000_2_overlay.png" is added

_ON_WINDOWS = os.name == "nt"
_NOT_ALLOWED = re.compile(r'[\x00-\x1f<>:"|?*\\]')
# Windows takes "NUL.tar.gz" for the device NUL; "NUL_res.png" is a file.
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])(?= *\.)", re.IGNORECASE)

_NUMBERED = re.compile(r"(.*)_\d+(?:-\d+)?", re.DOTALL)  # as pages are

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
    if is_url(input_path):
        name = PurePosixPath(unquote(urlsplit(input_path).path)).name
    else:
        name = os.path.basename(input_path)  # pathlib is slow for a million names
        if name in ("", os.curdir):
            name = Path(input_path).name
    return _NOT_ALLOWED.sub("_", name) if _portable(input_path) else name


def names_folder(save_path: str | Path) -> bool:
    """Whether a path to save to is a folder, whatever its suffix: it exists, or ends in a slash.

    Example:
        >>> names_folder("labels.png"), names_folder("labels.png/")
        (False, True)
    """
    return str(save_path).endswith(("/", os.sep)) or os.path.isdir(save_path)


def suffix(input_path: str) -> str:
    """The suffix of an input's name, with its dot and in its own case; "" if it has none.

    Example:
        >>> suffix("photos/a.JPG"), suffix("https://host/b.png?x=1"), suffix("photos/.jpg")
        ('.JPG', '.png', '')
    """
    return _suffix(file_name(input_path))


def short_stem(path: str) -> str:
    """The name of an input without its suffix, cut to 200 bytes; see the rule of `segrt.names`.

    Example:
        >>> short_stem("photos/road.jpg")
        'road'
    """
    name = file_name(path)
    stem = name[: len(name) - len(_suffix(name))]
    if _portable(path) and (device := _DEVICE.match(stem)):
        stem = f"{device[0]}_{stem[device.end() :]}"
    return _cut(stem)


def same_name(stem: str) -> str:
    """What is equal for names that some file system takes for one: in other case, NFC or NFD.

    Example:
        >>> same_name("Über") == same_name("u\\u0308ber")
        True
    """
    if stem.isascii():
        return stem.lower()
    return normalize("NFC", normalize("NFC", stem).casefold())


class Stems:
    """Assigns a unique output name, without suffix, to each input of one call.

    The names follow the rule of `segrt.names`. A series such as clip_0, clip_1, ... is remembered
    by its last number, so endless series need no memory.

    Example:
        >>> stems = Stems()
        >>> stems.assign("x/a.png"), stems.assign("y/a.png"), stems.assign("doc.pdf", 3)
        ('a', 'a_2', 'doc_3')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._pages: dict[str, int] = {}  # the last of each series
        self._copies: dict[str, int] = {}

    def assign(self, path: str | None, page: int | None = None) -> str:
        """The name for an input and its page or frame; logs a warning if it had to be changed."""
        base = (short_stem(path) if path else "") or "image"
        stem = unique = base if page is None else f"{base}_{page}"
        if self._is_taken(stem):
            number = max(2, self._copies.get(same_name(stem), 0) + 1)
            while self._is_taken(unique := f"{stem}_{number}"):
                number += 1
            self._copies[same_name(stem)] = number
            self._taken.add(same_name(unique))
            if path:
                log.warning(
                    "%s is saved as %s: another input of this call is saved as %s",
                    path,
                    unique,
                    stem,
                )
        elif page is None:
            self._taken.add(same_name(stem))
        else:
            self._pages[same_name(base)] = page
        return unique

    def _is_taken(self, stem: str) -> bool:
        stem = same_name(stem)
        base, _, number = stem.rpartition("_")
        return stem in self._taken or (
            number.isdecimal() and int(number) <= self._pages.get(base, -1)
        )


class JobNames:
    """The names of the results of a job, which follow from the list of its inputs alone.

    They do not depend on which of the inputs are done here, now, or at all, so that the parts of a
    job may run on several machines, in any order, and save to one folder. Inputs get the names that
    `Stems` gives to images. Pages and frames get `NAME_PAGE`, and `NAME_PAGE-2` where that is the
    name of another input. No two of these are equal: the first part of `NAME_PAGE` is the name of
    one input only.

    Example:
        >>> names = JobNames(["x/a.png", "y/a.png", "doc.pdf", "doc_3.png"])
        >>> names.of("y/a.png", None), names.of("doc.pdf", 2), names.of("doc.pdf", 3)
        ('a_2', 'doc_2', 'doc_3-2')
    """

    def __init__(
        self, inputs: Iterable[str], given: Mapping[str, str] = {}, taken: Iterable[str] = ()
    ) -> None:
        """Assign the names.

        Args:
            inputs: all inputs of the job, without duplicates.
            given: the names that inputs got in an earlier run.
            taken: further names of results, which no input gets.
        """
        self._stems = dict(given)
        self._numbered: dict[str, list[str]] | None = None  # what pages could be called, by stem
        self._taken = {same_name(stem) for stem in (*taken, *given.values())}
        last: dict[str, int] = {}
        for path in inputs:
            if path not in self._stems:
                base = stem = short_stem(path) or "image"
                key = same_name(base)
                if key in self._taken:
                    number = last.get(key, 1) + 1
                    while same_name(stem := f"{base}_{number}") in self._taken:
                        number += 1
                    last[key] = number
                self._stems[path] = stem
                self._taken.add(key if stem == base else same_name(stem))

    def part(self, inputs: Iterable[str]) -> JobNames:
        """The names of some of the inputs, for another process: few of them are as large as all.

        Example:
            >>> names.part(["doc.pdf"]).of("doc.pdf", 3)
            'doc_3-2'
        """
        if self._numbered is None:
            self._numbered = {}
            for key in self._taken:
                if match := _NUMBERED.fullmatch(key):
                    self._numbered.setdefault(match[1], []).append(key)
        stems = {path: self._stems[path] for path in inputs}
        taken = (self._numbered.get(same_name(stem), ()) for stem in stems.values())
        return JobNames((), stems, chain.from_iterable(taken))

    def of(self, path: str, page: int | None) -> str:
        """The name of the result of an input, or of its page or frame."""
        stem = unique = self._stems[path]
        if page is None:
            return stem
        number = 1
        while same_name(unique := f"{stem}_{page}" + f"-{number}" * (number > 1)) in self._taken:
            number += 1
        return unique


def without_page(stem: str, page: int | None) -> str:
    """The name of the input that `JobNames` has given a page or frame the name `stem`.

    Example:
        >>> without_page("doc_3-2", 3), without_page("a_2", None)
        ('doc', 'a_2')
    """
    if page is None:
        return stem
    return re.sub(rf"_{page}(-\d+)?\Z", "", stem)


def named_batches(items: Iterator[Frame | SegFailure], size: int) -> Iterator[NamedBatch]:
    """Lists of up to `size` items, each with the name under which its result is saved."""
    stems = Stems()
    with closing(items) if isinstance(items, Generator) else nullcontext():
        while batch := list(islice(items, size)):
            yield [(item, _stem(item, stems)) for item in batch]


def _stem(item: Frame | SegFailure, stems: Stems) -> str:
    if isinstance(item, Frame) and item.stem is not None:
        return item.stem
    return stems.assign(item.input_path, item.page_index)


def _portable(path: str) -> bool:
    """Whether the results of an input get names that Windows allows."""
    return _ON_WINDOWS or is_url(path)


def _suffix(name: str) -> str:
    # The rule of pathlib's suffixes, which Python 3.14 changed, in all versions.
    _, end = os.path.splitext(name)
    return "" if end == "." else end


def _cut(stem: str) -> str:
    """The first characters of a stem, at most `_MAX_BYTES`."""
    if 4 * len(stem) <= _MAX_BYTES:
        return stem
    sizes = accumulate(map(_bytes, stem))
    end = next((index for index, size in enumerate(sizes) if size > _MAX_BYTES), None)
    if end is None:
        return stem
    whole = end
    while whole and category(stem[whole]).startswith("M"):
        whole -= 1
    return stem[: whole or end]


def _bytes(character: str) -> int:
    """The size of a character in a file name."""
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return 1
    return len(character.encode("utf-8", "surrogatepass"))
