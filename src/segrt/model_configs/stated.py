"""Statements about a model, each with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from segrt import checked_yaml
from segrt.errors import ConfigError, ModelError
from segrt.validation import first_problem

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Stated:
    """What one file says about a model.

    Attributes:
        source: the name of the file, for messages.
        values: fields of `segrt.metadata.ModelMeta`, only those that the file decides; besides,
            `output_op`, the operator at the end of a network of PaddleSeg, and `program`, the name
            of its file.
    """

    source: str
    values: dict[str, Any] = field(default_factory=dict)


class Lenient(BaseModel):
    """Part of a configuration: keys that say nothing about labels are ignored."""

    # Few of these are used in a process, and building all of them would delay the first image.
    model_config = ConfigDict(
        extra="ignore", frozen=True, protected_namespaces=(), defer_build=True
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file whose content is a mapping.

    Raises:
        ModelError: it can't be read, is damaged, or is not a mapping.
    """
    try:
        if path.suffix == ".json":
            text = path.read_bytes()[: checked_yaml.MAX_BYTES]
            data = json.loads(text, object_pairs_hook=_unique)
        else:
            data = checked_yaml.read(path)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} can't be read as JSON: {reason}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a mapping: it can't be the configuration of a model")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless it states something twice: `json` would take the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} stands there twice")
    return found


def parse(data: object, model: type[Model], path: Path, key: str = "") -> Model:
    """Validate a part of a file.

    Raises:
        ModelError: a value is invalid; the message names the file and the key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        where = f"{path}: {key}." if key else f"{path}: "
        raise ModelError(f"{where}{first_problem(error)}") from None
