"""The inputs of `segrt predict`: folders, patterns, what is on standard input, and shards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic, iglob
from pathlib import Path

from segrt.cli import DASH
from segrt.cli.standard import Piped, read_inputs
from segrt.errors import ConfigError, InputError
from segrt.folders import find_images
from segrt.names import is_url
from segrt.types import shown
from segrt.video import names_video


@dataclass(frozen=True)
class Shard:
    """One of the parts of a job: every `count`-th of its inputs.

    Attributes:
        number: of this part, from 1.
        count: number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse "3/16".

        Raises:
            ConfigError: it is anything else.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(
                f"--shard {shown(text)} is not valid: give the number of the part, from 1, and the "
                "number of parts, as in 3/16"
            )
        return cls(int(match[1]), int(match[2]))

    def part(self, inputs: list[str]) -> list[str]:
        """The inputs of this part. Each is in one part, and the sizes differ by one at most.

        Example:
            >>> Shard(1, 2).part(["a", "b", "c"]), Shard(2, 2).part(["a", "b", "c"])
            (['a', 'c'], ['b'])
        """
        return inputs[self.number - 1 :: self.count]


def is_film(name: str) -> bool:
    """Whether an input is a video or a camera."""
    return not isinstance(name, Piped) and names_video(name)


def is_folder(name: str) -> bool:
    """Whether an input is a folder."""
    return not isinstance(name, Piped) and os.path.isdir(name)


def listed(inputs: list[str], save_path: Path | None) -> list[str]:
    """Replace `-` by the image or names on standard input, and patterns by the names that match.

    A pattern that is the name of a file or folder is that file or folder. Files in `save_path`,
    earlier results, match no pattern; nor do folders match one with `**`, which their files match,
    or files that a link to a folder leads to once more.

    Raises:
        InputError: a pattern matches nothing, `-` is given twice, or standard input can't be read.
    """
    names: list[str] = []
    for name in inputs:
        if name == DASH:
            if inputs.count(DASH) > 1:
                raise InputError("- is given twice, but standard input can be read once only")
            names += read_inputs()
        elif has_magic(name) and not is_url(name) and not os.path.lexists(name):
            found = sorted(_matches(name, save_path))
            if not found:
                raise InputError(f"no file matches {name}")
            names += found
        else:
            names.append(name)
    return names


def expand(inputs: list[str], save_path: Path | None) -> list[str]:
    """Replace folders by the images in them, except those in `save_path`: earlier results.

    Raises:
        InputError: a folder can't be read, or all of its images are in `save_path`.
    """
    expanded = []
    for name in inputs:
        if not is_folder(name):
            expanded.append(name)
            continue
        try:
            found = find_images(name, skip=save_path)
            if not found.files and find_images(name).files:
                raise InputError(f"all images of {name} are in {save_path}, which holds results")
        except OSError as error:
            raise InputError(f"the folder {name} can't be read: {error.strerror}") from None
        found.warn(name)
        expanded += found.files or [name]
    return expanded


def _matches(pattern: str, save_path: Path | None) -> Iterator[str]:
    """The names that a pattern matches, each file once."""
    results = os.path.join(os.path.realpath(save_path), "") if save_path is not None else None
    parents: dict[str, str] = {}  # links are resolved once for each of them
    seen: set[str] = set()
    for name in iglob(pattern, recursive=True):
        parent, own = os.path.split(name)
        if parent not in parents:
            parents[parent] = os.path.realpath(parent)
        path = os.path.join(parents[parent], own)
        if path in seen or (results and os.path.join(path, "").startswith(results)):
            continue
        seen.add(path)
        if not ("**" in pattern and os.path.isdir(name)):
            yield name
