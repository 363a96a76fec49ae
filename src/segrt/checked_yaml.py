"""YAML of unknown origin: parsed within limits, validated by pydantic; errors name line and key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from segrt.errors import ConfigError
from segrt.validation import message

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20
"""Maximum size of a YAML text; `model_zoo.yaml` has 13 KiB."""

MAX_DEPTH = 50
"""Maximum number of lists and mappings inside each other."""

MAX_VALUES = 100_000
"""Maximum number of values, counting those behind an alias each time it is used."""

_LONGEST = 100
"""Maximum length of numbers, dates and other scalars that are not text."""


def parse(text: str | bytes, where: str) -> Any:
    """Parse a YAML text, such as one that a user wrote or that came with a model.

    Example:
        >>> checked_yaml.parse("threads: 4", "hpi_config")
        {'threads': 4}

    Args:
        text: the text; bytes are UTF-8, or UTF-16 with a byte order mark.
        where: file name, or another name for messages.

    Returns:
        The value: dicts, lists, text, numbers and so on, as `yaml.safe_load` returns them.

    Raises:
        ConfigError: the text is not valid YAML, exceeds a limit, or repeats a key.
    """
    return _parse(text, where)[0]


def read(path: Path) -> Any:
    """Like `parse`, for a file.

    Example:
        >>> checked_yaml.read(Path("inference.yml"))["PostProcess"]["label_list"]

    Raises:
        ConfigError: see `parse`; or the file can't be read.
    """
    return parse(_bytes(path), str(path))


def load(path: Path, model: type[Model], *, context: Any = None) -> Model:
    """Read and validate a YAML file.

    Args:
        path: the file.
        model: the expected content.
        context: passed to the validators of `model`.

    Raises:
        ConfigError: the file can't be read or is invalid; the message names file, line and key.
    """
    data, root = _parse(_bytes(path), str(path))
    return check(data, model, str(path), context=context, root=root)


def check(
    data: object,
    model: type[Model],
    where: str,
    *,
    context: Any = None,
    root: yaml.Node | None = None,
) -> Model:
    """Validate the content of a file, or a mapping that could be one.

    Args:
        data: the content.
        model: the expected content.
        where: file name, or another name for messages.
        context: passed to the validators of `model`.
        root: the parsed file, if there is one, to look up line numbers.

    Raises:
        ConfigError: the content is invalid.
    """
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        line, key = _position(root, first["loc"])
        if root is None:
            key = [str(part) for part in first["loc"]]
        elif first["type"] == "missing":
            key.append(str(first["loc"][-1]))
        at = f"{where}:{line}" if root else where
        text = message(first, _keys(model, first["loc"][:-1]))
        raise ConfigError(f"{at}: {'.'.join(key) or 'the whole'}: {text}") from None


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed in the mapping at pydantic's `loc`."""
    for part in loc:
        fields = model.model_fields.items()
        field = next((f for name, f in fields if part in (name, f.alias)), None)
        if field is not None:  # otherwise it is a list index, or a branch of a union
            inner = (field.annotation, *get_args(field.annotation))
            models = (t for t in inner if isinstance(t, type) and issubclass(t, BaseModel))
            model = next(models, model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except ValueError:  # a NUL
        raise ConfigError(f"{str(path)!r} is not a valid file name") from None


def _parse(text: str | bytes, where: str) -> tuple[Any, yaml.Node]:
    """The value and the nodes of a YAML text."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: the YAML is larger than {MAX_BYTES:,} bytes")
    try:
        _refuse_excess(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, yaml.ScalarNode("tag:yaml.org,2002:null", "")
        _check_keys(root)
        return loader.construct_document(root), root
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{where}:{line}: {_short(error.problem)}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError(f"{where}: {_short(error)}") from None
    except (RecursionError, MemoryError):
        raise ConfigError(f"{where}: the YAML has too many values inside each other") from None


def _short(text: object) -> str:
    """A text on one line, and not as long as the file."""
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else f"{line[:200]}..."


# libyaml's parser, included in the PyYAML wheels, is ten times as fast.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader, which raises whatever `int` or `datetime` raise on an invalid value."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        is_text = kind == "str" or not isinstance(node, yaml.ScalarNode)
        if not is_text and len(node.value) > _LONGEST:
            raise _error(node, f"{node.value[:20]}... is too long for a value of the type {kind}")
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError, MemoryError):
            raise
        except Exception:
            what = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            raise _error(node, f"{what} is not a valid value of the type {kind}") from None
        return value


@dataclass
class _Size:
    """The values in a part of a text, and the levels they form, with aliases written out."""

    values: int
    levels: int
    anchor: str | None = None


def _refuse_excess(text: str | bytes) -> None:
    """Refuse texts that would take long, or would not end, once they are loaded."""
    stack = [_Size(0, 0)]  # the document, and the lists and mappings that are not closed
    anchors: dict[str, _Size] = {}
    for event in yaml.parse(text, _Loader):
        part = None
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Size(1, 1, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            part = stack.pop()
        elif isinstance(event, yaml.ScalarEvent):
            part = _Size(1, 0, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            part = anchors.get(event.anchor or "")
            if part is None:
                raise _error(event, f"*{event.anchor} refers to nothing before it")
        if part is not None:
            if part.anchor:
                anchors[part.anchor] = part
            stack[-1].values += part.values
            stack[-1].levels = max(stack[-1].levels, bool(stack[1:]) + part.levels)
        if stack[-1].values > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES:,} values, with aliases written out")
        if len(stack) - 2 + stack[-1].levels > MAX_DEPTH:
            raise _error(event, f"more than {MAX_DEPTH} lists and mappings inside each other")


def _check_keys(node: yaml.Node) -> None:
    """Refuse keys that are not text, numbers or the like, and duplicate keys.

    YAML forbids duplicate keys in a mapping; PyYAML would use the last one.
    """
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a list or mapping can't be a key")
            if key.value in lines:
                line = lines[key.value]
                raise _error(key, f"{key.value}: the key stands in line {line} already")
            lines[key.value] = key.start_mark.line + 1
            _check_keys(value)


def _error(at: yaml.Node | yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _position(node: Any, loc: tuple[int | str, ...]) -> tuple[int, list[str]]:
    """The line of pydantic's `loc`, and the keys that lead to it."""
    line, keys = 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pairs = ((key, value) for key, value in node.value if key.value == str(part))
            found = next(pairs, None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found:  # otherwise `part` is not a key, but pydantic's name for a branch of a union
            line, node = found[0].start_mark.line + 1, found[1]
            keys.append(str(part))
    return line, keys
