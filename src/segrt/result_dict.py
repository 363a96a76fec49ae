"""The dict that scripts written for PaddleX expect a result to be."""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from segrt.errors import ConfigError

IMAGE, LABELS = "input_img", "pred"
OWN = ("input_path", "page_index", IMAGE, "time", LABELS)
"""The keys whose values are attributes of the result."""


class ResultDict(MutableMapping[str, Any]):
    """The items of a result: those in `OWN`, and whatever a script adds.

    A script may add, replace and remove items. The items in `OWN` are the attributes of the result
    under PaddleX's names: replacing one changes the attribute, so that pictures, areas and saved
    files always agree with it. Removing one only leaves it out of what is printed and saved as
    JSON.

    Example:
        >>> result["checked_by"] = "Kim"
        >>> result.str
        {'res': {'input_path': 'a.png', 'page_index': None, 'pred': '...', 'checked_by': 'Kim'}}
    """

    _items: dict[str, Any]
    """All keys in order, each with its value; None for those in `OWN`."""

    @abstractmethod
    def _get_own(self, key: str) -> Any:
        """The value of a key in `OWN`."""

    @abstractmethod
    def _set_own(self, key: str, value: Any) -> None:
        """Replace the value of a key in `OWN`, or raise ConfigError."""

    def __getitem__(self, key: str) -> Any:
        value = self._items[key]
        return self._get_own(key) if key in OWN else value

    def __setitem__(self, key: str, value: Any) -> None:
        if key in OWN:
            self._set_own(key, value)
            value = None
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)

    @property
    def json(self) -> dict[str, dict[str, Any]]:
        """`{"res": {"input_path": ..., "page_index": ..., "pred": nested list (1, H, W)}}`.

        Results with a time have the key `time` before `pred`. Items that a script has added follow,
        with lists for arrays.
        """
        return {"res": {key: plain(self[key]) for key in self if key != IMAGE}}

    def print(
        self,
        format_json: bool = True,
        indent: int = 4,
        ensure_ascii: bool = False,
        *,
        json_format: bool | None = None,
    ) -> None:
        """Print `{'res': {'input_path': ..., 'page_index': ..., 'pred': '...'}}`.

        Example:
            >>> result.print(json_format=False)
            {'res': {'input_path': 'road.png', 'page_index': None, 'pred': '...'}}

        Args:
            format_json: whether to print indented JSON rather than one line.
            indent: spaces per level of the JSON.
            ensure_ascii: whether the JSON escapes non-ASCII characters. They always are where
                stdout can't represent them.
            json_format: PaddleX's other name of `format_json`, which it overrides.

        Raises:
            ConfigError: an item that a script has added can't be JSON.
        """
        is_json = format_json if json_format is None else json_format
        data: dict[str, Any] = plain(self.str) if is_json else self.str
        text = dump(data, indent=indent, ensure_ascii=ensure_ascii) if is_json else f"{data}"
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = dump(data, indent=indent) if is_json else ascii(data)
        print(text)

    # The last one: above, `str` is the type.
    @property
    def str(self) -> dict[str, dict[str, Any]]:
        """What `print` prints: the items without the image, and with "..." for the labels."""
        shown = {key: "..." if key == LABELS else self[key] for key in self if key != IMAGE}
        return {"res": shown}


def plain(value: Any) -> Any:
    """A value in the types that JSON has, as far as PaddleX converts it: arrays, paths, tuples.

    Example:
        >>> plain({"sizes": np.array([1, 2]), "file": Path("a.png")})
        {'sizes': [1, 2], 'file': 'a.png'}
    """
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def dump(data: Mapping[str, Any], **options: Any) -> str:
    """`json.dumps`.

    Raises:
        ConfigError: a value can't be JSON.
    """
    try:
        return json.dumps(data, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the result has an item that can't be written as JSON: {error}; remove it, as in "
            "result.pop(KEY)"
        ) from None
