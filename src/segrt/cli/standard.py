"""Standard input and output, both of which the argument `-` names."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

from segrt.errors import ConfigError, InputError
from segrt.formats import HEAD, is_image
from segrt.names import is_url
from segrt.video import is_video

STDOUT = Path("standard output")
"""What `-` names where a result is saved. It is this object: a file may have an equal name."""

_NO_NAMES = re.compile(rb"\s*(<|\{|/\*|#define\s)|.*[\x01-\x08\x0e-\x1f]", re.DOTALL)


class Piped(str):
    """The image on standard input, under the name of its results. It equals no other input.

    Attributes:
        content: the bytes of the file.
    """

    content: bytes

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @classmethod
    def of(cls, content: bytes) -> Piped:
        """The image with these bytes."""
        piped = cls("stdin")
        piped.content = content
        return piped


def opened(name: str) -> str | BinaryIO:
    """An input as `segrt.sources.frames` reads it."""
    if not isinstance(name, Piped):
        return name
    file = io.BytesIO(name.content)
    file.name = str(name)
    return file


def read_inputs() -> list[str]:
    """The image on standard input, or the names that are listed there.

    The first bytes decide, unless they are the name of a file: "P1 (2).jpg" begins like a PBM.

    Raises:
        InputError: it is empty, a video, or clearly neither of these.
    """
    content = sys.stdin.buffer.read() if sys.stdin else b""  # None if it is closed
    head = content[:HEAD]
    first = re.split(rb"\0|\r?\n", head, maxsplit=1)[0]
    if not os.path.lexists(first) and not is_url(os.fsdecode(first)):
        if is_image(head):
            return [Piped.of(content)]
        if is_video(head):
            raise InputError("standard input is a video: give the name of its file")
        if _NO_NAMES.match(head):
            raise InputError(
                "standard input is no list of names, and no image that its first bytes tell from "
                "one: give the name of the file"
            )
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise InputError("- reads an image or a list of names from standard input, which is empty")
    return names


def check_output() -> None:
    """Refuse to print a picture on a terminal.

    Raises:
        ConfigError: standard output is one, or is closed.
    """
    if sys.stdout is None:
        raise ConfigError("-o - writes a PNG to standard output, which is closed")
    if sys.stdout.isatty():
        raise ConfigError(
            "-o - writes a PNG to standard output, which is a terminal: add  > labels.png  or "
            "| another program"
        )


def write(picture: bytes) -> None:
    """Write a picture to standard output.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    sys.stdout.buffer.write(picture)
    sys.stdout.buffer.flush()
