"""YAML files whose errors name file, line and key, and what may have been meant."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from segrt.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model], *, context: Any = None) -> Model:
    """Read a YAML file.

    Args:
        path: the file.
        model: what must stand in it.
        context: for the validators of `model`.

    Raises:
        ConfigError: the file can't be read, or is wrong: the message names file, line and key.
    """
    try:
        # libyaml's parser, which the PyYAML wheels bring, is ten times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_bytes())
        root = loader.get_single_node()
        _refuse_duplicates(root)
        data = loader.construct_document(root) if root else None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    root = root or yaml.ScalarNode("tag:yaml.org,2002:null", "")  # the file is empty
    return check(data, model, str(path), context=context, root=root)


def check(
    data: object,
    model: type[Model],
    where: str,
    *,
    context: Any = None,
    root: yaml.Node | None = None,
) -> Model:
    """Validate what stands in a file, or would.

    Args:
        data: the content.
        model: what it must be.
        where: the name of the file, or what else to call it.
        context: for the validators of `model`.
        root: the parsed file, where there is one: it knows the lines.

    Raises:
        ConfigError: it is wrong.
    """
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        first = error.errors()[0]
        line, key = _place(root, first["loc"])
        if root is None:
            key = [str(part) for part in first["loc"]]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            message = "this key is missing"
            if root is not None:
                key.append(str(first["loc"][-1]))
        elif first["type"] == "extra_forbidden":
            known = _keys(model, first["loc"][:-1])
            close = get_close_matches(str(first["loc"][-1]), known, n=1)
            message = f"there is no such key; {f'did you mean {close[0]}?' if close else 'use ' + ', '.join(known)}"
        elif first["type"] != "value_error" and isinstance(first["input"], (str, int, float)):
            message += f", not {first['input']!r}"
        at = f"{where}:{line}" if root else where
        raise ConfigError(f"{at}: {'.'.join(key) or 'the whole'}: {message}") from None


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the mapping at pydantic's `loc` may have."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:  # else it is an index of a list, or a branch of a union
            inner = (field.annotation, *get_args(field.annotation))
            model = next(
                (t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model
            )
    return [field.alias or name for name, field in model.model_fields.items()]


def _refuse_duplicates(node: yaml.Node | None) -> None:
    """YAML forbids a key that stands twice in one mapping; PyYAML would take the last one."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.value in lines:
                problem = f"{key.value}: the key stands in line {lines[key.value]} already"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
            _refuse_duplicates(value)


def _place(node: Any, loc: tuple[int | str, ...]) -> tuple[int, list[str]]:
    """The line of what pydantic calls `loc`, and the keys that lead there."""
    line, keys = 1, []
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(
                ((key, value) for key, value in node.value if key.value == str(part)), None
            )
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found:  # what is not found is no key, but pydantic's name for a branch of a union
            line, node = found[0].start_mark.line + 1, found[1]
            keys.append(str(part))
    return line, keys
