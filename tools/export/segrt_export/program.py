"""A Paddle inference model on disk: its files, and reading and editing its program."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segrt import files
from segrt.errors import ExportError
from segrt.metadata import ModelMeta
from segrt_export.config import DEFAULT_TRANSFORMS, Config, program_name, read_config
from segrt_export.convert import translate

log = logging.getLogger("segrt")

Op = dict[str, Any]
OutputKind = Literal["labels", "probabilities", "logits"]


_LAYOUT_NAMES = {
    "best_model",
    "export",
    "exported",
    "infer",
    "inference",
    "inference_model",
    "model",
    "output",
    "outputs",
}
"""Names that PaddleX and PaddleSeg give to the folder of every model."""


_DECIDING = {"1.argmax", "1.softmax", "1.sigmoid"}
_NEUTRAL = {"1.cast", "1.scale", "1.squeeze"}
"""Operators that the export may put around those, and that do not change which class wins."""


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
        config: the configuration next to the program; empty if there is none.
    """

    name: str
    program: Path
    params: Path
    config: Config

    @classmethod
    def open(
        cls, folder: Path, *, name: str | None = None, bands: tuple[str, ...] | None = None
    ) -> PaddleModel:
        """Find the model's files in `folder`.

        Args:
            folder: contains the program, its weights and, usually, `inference.yml` (PaddleX) or
                `deploy.yaml` (PaddleSeg).
            name: the model's name; by default that of the folder, or `Global.model_name` of
                `inference.yml` if the folder is called `inference` or similar.
            bands: the names of the input's channels, for a network that takes bands; None for
                those of the configuration.

        Raises:
            ExportError: the folder, its program or its weights are missing, it contains several
                programs, or nothing says how bands are prepared.
            ModelError: a configuration is invalid or contradicts another.
        """
        if not folder.is_dir():
            raise ExportError(f"{folder} is not a folder with a Paddle inference model")
        program = _find_program(folder)
        config = read_config(folder, program.stem, bands)
        if config.bands and config.transforms is None:
            raise ExportError(
                f"{folder} does not say how its bands are prepared: add inference.yml, with a"
                " Normalize with mean and std in Deploy.transforms"
            )
        if config.transforms is None:
            log.warning(
                "%s: %s; assuming RGB images normalised with mean 0.5 and standard deviation 0.5",
                folder,
                f"{config.files[0].name} lists no transforms"
                if config.files
                else "no inference.yml or deploy.yaml",
            )
        folder_name = folder.resolve().name
        if folder_name.lower() in _LAYOUT_NAMES and config.model_name:
            folder_name = config.model_name
        return cls(name or folder_name, program, program.with_suffix(".pdiparams"), config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """`PostProcess.label_list` of the configuration."""
        return self.config.class_names

    @property
    def transforms(self) -> tuple[dict[str, Any], ...]:
        """The transforms of the configuration; Normalize if it lists none."""
        listed = self.config.transforms
        return DEFAULT_TRANSFORMS if listed is None else listed

    @property
    def run_name(self) -> str:
        """The closest parent folder whose name is not one that PaddleX gives to every folder.

        Example:
            >>> PaddleModel.open(Path("roads/best_model/inference")).run_name
            'roads'
        """
        folders = (folder.name for folder in self.program.resolve().parent.parents)
        return next((name for name in folders if name.lower() not in _LAYOUT_NAMES), "")

    @property
    def meta(self) -> ModelMeta:
        """What the exported file states."""
        return ModelMeta(
            name=self.name,
            class_names=self.class_names,
            transforms=self.transforms,
            resize_in=self.config.resize_in,
            bands=self.config.bands,
        )

    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the program, weights and configuration, by file name."""
        return {
            path.name: files.sha256(path)
            for path in (self.program, self.params, *self.config.files)
        }


def _find_program(folder: Path) -> Path:
    programs = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.pdmodel"))]
    programs = [path for path in programs if path.with_suffix(".pdiparams").is_file()]
    if not programs:
        raise ExportError(
            f"{folder} holds no Paddle inference model: it needs inference.json or"
            " inference.pdmodel, and inference.pdiparams"
        )
    if len({path.stem for path in programs}) == 1:
        return programs[0]
    stated = program_name(folder)
    for path in programs:
        if path.name == stated or (stated is None and path.stem == "inference"):
            return path
    raise ExportError(
        f"{folder} contains several Paddle models ({', '.join(path.name for path in programs)}):"
        " keep each in a folder of its own"
    )


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


def check_interface(program: dict[str, Any], bands: Sequence[str] = ()) -> None:
    """Refuse a program that does not map images to one class for each pixel.

    Args:
        program: the program.
        bands: the names of its input's channels; empty if it takes pictures.

    Raises:
        ExportError: the number or the shapes of its inputs and outputs are not those of semantic
            segmentation.
    """
    inputs = _declared(program, "1.data", "1.feed")
    count = len(bands) or 3
    if [(len(shape), shape[1:2]) for shape in inputs] not in ([(4, [count])], [(4, [-1])]):
        raise ExportError(
            f"the program's input is {_shown(inputs)}, and segrt-export needs one input,"
            f" N x {count} x height x width: for other channels, name each of them, in"
            " inference.yml (Deploy.bands) or with --bands"
        )
    outputs = _declared(program, "1.fetch")
    if [len(shape) for shape in outputs] not in ([3], [4]):
        raise ExportError(
            f"the program's output is {_shown(outputs)}, and segrt needs one output with a class"
            " for each pixel, N x classes x height x width or N x height x width (MaskFormer and"
            " other networks that predict masks are not supported)"
        )


def _declared(program: dict[str, Any], *kinds: str) -> list[list[int]]:
    """The shapes of a program's inputs or outputs; -1 for a variable side."""
    found = (op for op in operators(program) if op["#"] in kinds)
    return [[int(side) for side in op["O"][0]["TT"]["D"][1]] for op in found]


def _shown(shapes: list[list[int]]) -> str:
    texts = [" x ".join("?" if side < 0 else str(side) for side in shape) for shape in shapes]
    return " and ".join(text or "a single number" for text in texts) or "missing"


def output_kind(program: dict[str, Any]) -> OutputKind:
    """What a program with one output returns.

    Example:
        >>> output_kind(load_program(Path("inference.json")))
        'labels'
    """
    fetch = _fetch(program)
    _, names = _tail(_producers(program), fetch["I"][0]["%"])
    is_float = re.search(r"t_b?f\d", str(fetch["O"][0]["TT"]["D"][0]["#"]))
    if "1.argmax" in names or not is_float:
        return "labels"
    return "probabilities" if names else "logits"


def add_logits_output(program: dict[str, Any]) -> bool:
    """Make a program also return its logits, in place.

    These are the input of [bilinear_interp ->] [softmax or sigmoid ->] [argmax ->] at its end.

    Returns:
        bool: False if the program ends otherwise, or returns its logits already, and is unchanged.
    """
    ops, made_by, fetch = operators(program), _producers(program), _fetch(program)
    logits, names = _tail(made_by, fetch["I"][0]["%"])
    if (source := made_by.get(logits, {"#": ""}))["#"] == "1.bilinear_interp":
        logits = source["I"][0]["%"]
    elif not names:
        return False
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


def _producers(program: dict[str, Any]) -> dict[int, Op]:
    return {out["%"]: op for op in operators(program) if op["#"] != "p" for out in op["O"]}


def _fetch(program: dict[str, Any]) -> Op:
    return next(op for op in operators(program) if op["#"] == "1.fetch")


def _tail(made_by: dict[int, Op], value: int) -> tuple[int, list[str]]:
    """Follow [softmax or sigmoid ->] [argmax ->] back from the output.

    Returns:
        tuple: the id of the first one's input, and their names, last one first.
    """
    start, names = value, list[str]()
    while (name := (op := made_by.get(value, {"#": ""}))["#"]) in _DECIDING | _NEUTRAL:
        value = op["I"][0]["%"]
        if name in _DECIDING:
            start = value
            names.append(name)
    return start, names
