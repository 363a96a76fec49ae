"""A Paddle inference model on disk: its files, `inference.yml`, and edits of its program."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrt import checked_yaml, files
from segrt.errors import ConfigError, ExportError
from segrt_export.convert import translate

Op = dict[str, Any]


@dataclass(frozen=True)
class PaddleModel:
    """The files of a Paddle inference model.

    Example:
        >>> PaddleModel.open(Path("PP-LiteSeg-T_camvid")).class_names[:2]
        ('Sky', 'Building')

    Attributes:
        name: name of the model and of its exported file.
        program: `inference.json` (Paddle 3) or `*.pdmodel` (Paddle 2).
        params: the weights, `*.pdiparams`.
        config: the parsed `inference.yml`; empty if the file is missing.
    """

    name: str
    program: Path
    params: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, *, name: str | None = None) -> PaddleModel:
        """Find the model's files in `folder`.

        Args:
            folder: contains the program, its weights and, usually, `inference.yml`.
            name: the model's name; by default that of the folder.

        Raises:
            ExportError: the folder, its program or its weights are missing, or its `inference.yml`
                can't be read.
        """
        if not folder.is_dir():
            raise ExportError(f"{folder} is not a folder with a Paddle inference model")
        programs = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.pdmodel"))]
        program = next((p for p in programs if p.with_suffix(".pdiparams").is_file()), None)
        if program is None:
            raise ExportError(
                f"{folder} holds no Paddle inference model: it needs inference.json or"
                " inference.pdmodel, and inference.pdiparams"
            )
        yml = program.with_suffix(".yml")
        if not yml.is_file():
            yml = folder / "inference.yml"
        try:
            config = checked_yaml.read(yml) if yml.is_file() else {}
        except ConfigError as error:
            raise ExportError(str(error)) from None
        if not isinstance(config, dict):
            raise ExportError(f"{yml} must be a mapping with the keys Deploy and PostProcess")
        return cls(
            name or folder.resolve().name, program, program.with_suffix(".pdiparams"), config
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """`PostProcess.label_list` of `inference.yml`."""
        listed = (self.config.get("PostProcess") or {}).get("label_list")
        return tuple(str(label) for label in listed or ())

    @property
    def transforms(self) -> tuple[dict[str, Any], ...]:
        """`Deploy.transforms` of `inference.yml`, or `PreProcess.transform_ops` in some exports."""
        listed = (self.config.get("Deploy") or {}).get("transforms") or (
            (self.config.get("PreProcess") or {}).get("transform_ops")
        )
        return tuple(listed or ({"type": "Normalize"},))

    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the program and of the weights, by file name."""
        return {path.name: files.sha256(path) for path in (self.program, self.params)}


def load_program(path: Path) -> dict[str, Any]:
    """Read a Paddle 3 program.

    Raises:
        ExportError: the file is not a Paddle 3 program.
    """
    try:
        program: dict[str, Any] = json.loads(path.read_text("utf-8"))
        operators(program)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ExportError(
            f"{path} is not a Paddle 3 program ({type(error).__name__}: {error})"
        ) from None
    return program


def paddle3_program(source: PaddleModel, work: Path) -> tuple[dict[str, Any], Path]:
    """The model's program in the Paddle 3 format, and the file of its weights.

    Args:
        source: the model.
        work: folder for the translated program of a Paddle 2 model.

    Raises:
        ExportError: the program can't be read or translated.
    """
    if source.program.suffix != ".pdmodel":
        return load_program(source.program), source.params
    translated = work / "inference.json"
    if not translated.is_file():
        translate(source.program, source.params, work)
    return load_program(translated), translated.with_suffix(".pdiparams")


def operators(program: dict[str, Any]) -> list[Op]:
    """The operators of a program's main block, in execution order."""
    ops: list[Op] = program["program"]["regions"][0]["blocks"][0]["ops"]
    return ops


def attribute(op: Op, name: str) -> dict[str, Any]:
    """The attribute `name` of `op` as stored: the value is under the key "D"."""
    found: dict[str, Any] = next(a["AT"] for a in op["A"] if a["N"] == name)
    return found


def add_logits_output(program: dict[str, Any]) -> bool:
    """Make a program that ends in [bilinear_interp ->] argmax also return its logits, in place.

    Returns:
        bool: False if the program ends otherwise and is unchanged.
    """
    ops = operators(program)
    made_by = {out["%"]: op for op in ops if op["#"] != "p" for out in op["O"]}
    fetch = next(op for op in reversed(ops) if op["#"] == "1.fetch")
    op = made_by.get(fetch["I"][0]["%"], {"#": ""})
    while op["#"] in ("1.cast", "1.scale", "1.squeeze"):
        op = made_by.get(op["I"][0]["%"], {"#": ""})
    if op["#"] != "1.argmax":
        return False
    logits = op["I"][0]["%"]
    if (source := made_by.get(logits, {"#": ""}))["#"] == "1.bilinear_interp":
        logits = source["I"][0]["%"]
    extra = json.loads(json.dumps(fetch))
    attribute(extra, "name")["D"] = "logits"
    attribute(extra, "col")["D"] = 1
    extra["I"] = [{"%": logits}]
    extra["O"][0]["%"] = 1 + max(
        out["%"] for out_op in ops if out_op["#"] != "p" for out in out_op["O"]
    )
    extra["O"][0]["TT"] = next(o["TT"] for o in made_by[logits]["O"] if o["%"] == logits)
    ops.append(extra)
    return True
