"""YAML files validated by pydantic; errors name the file, the line and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from segrt.errors import ConfigError
from segrt.validation import message

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model], *, context: Any = None) -> Model:
    """Read and validate a YAML file.

    Args:
        path: the file.
        model: the expected content.
        context: passed to the validators of `model`.

    Raises:
        ConfigError: the file can't be read or is invalid; the message names file, line and key.
    """
    try:
        # libyaml's parser, included in the PyYAML wheels, is ten times as fast.
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


def _refuse_duplicates(node: yaml.Node | None) -> None:
    """YAML forbids duplicate keys in a mapping; PyYAML would use the last one."""
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
