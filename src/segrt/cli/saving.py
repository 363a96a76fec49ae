"""What `segrt predict` saves of each image, in this process or in those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from segrt.cli import outputs
from segrt.cli.options import OUTPUT, AsJson, InferenceOptions, SavePath
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.frame import Frame, SegFailure
from segrt.look import Look
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.types import parse_label_format

FOLDER = Path("output")
"""Where results are saved by default."""

SAVERS = 2
"""Threads that save results; they wait for the disk more than they compute."""

Saved: TypeAlias = tuple[SegResult | SegFailure, list[Path]]
"""What became of an image, with the files in which it is saved."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is saved, and where."""

    save_path: SavePath = None
    """Folder, or a file for one result (.png, .json); default: output, with overlays."""

    label_format: Annotated[str, Parameter(group=OUTPUT)] = "list"
    """Labels in the JSON: list (as PaddleX), rle (as COCO) or png."""

    overlay: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Also save the photo with class colours and a legend; with a file, save only that."""

    show: Annotated[Literal["shares", "paddlex"], Parameter(group=OUTPUT)] = "shares"
    """Print the share of each class, or what PaddleX prints."""

    json: Annotated[AsJson, Parameter(group=OUTPUT)] = False
    """Print one line of JSON for each image instead: its row of a manifest."""

    @property
    def form(self) -> Literal["shares", "paddlex", "json"]:
        """What is printed of each image."""
        return "json" if self.json else self.show

    def completed(self) -> OutputOptions:
        """With the default folder, except in PaddleX's form, which saves nothing by default."""
        if self.save_path is not None or self.show == "paddlex":
            return self
        return replace(self, save_path=FOLDER, overlay=True)

    @property
    def kind(self) -> dict[str, str | bool]:
        """What is saved of each image."""
        return {"label_format": self.label_format, "overlay": self.overlay}

    @property
    def file(self) -> Path | None:
        """`save_path` if it is a file name; None if it is a folder.

        Raises:
            ConfigError: another option contradicts that name, or no picture of that format can be
                written.
        """
        path = self.save_path
        if path is None or not outputs.names_file(path):
            return None
        is_json = path.suffix.lower() == ".json"
        if self.overlay and is_json:
            raise ConfigError(
                f"--overlay saves a picture, but {path} is a JSON file: use a folder for both, or "
                f"a name such as {path.with_suffix('.png')}"
            )
        if self.label_format != "list" and not is_json:
            raise ConfigError(
                f"--label_format {self.label_format} is for JSON, but {path} is not a JSON file: "
                f"use a folder for both, or a name such as {path.with_suffix('.json')}"
            )
        return path


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with each image.

    Attributes:
        inference: how it is segmented.
        reading: how it is read.
        output: what is saved, and where.
        look: of its overlay.
    """

    inference: InferenceOptions
    reading: Reading
    output: OutputOptions
    look: Look


def segmented(
    pipeline: Pipeline,
    images: Iterable[str | Frame | SegFailure],
    task: Task,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Saved, None, None]:
    """Segment images and save the results. A failure is yielded in the place of its image.

    Args:
        pipeline: segments them.
        images: paths and URLs, or images with the names of their results.
        task: what is done with them.
        progress: see `Pipeline.predict`.
    """
    inference, output = task.inference, task.output

    def save(result: SegResult | SegFailure) -> Saved:
        if output.save_path is None or isinstance(result, SegFailure):
            return result, []
        try:
            return result, _save(result, output.save_path, output, task.look)
        except (OSError, SegrtError, MemoryError) as error:
            failure = _not_saved(result, error)
            return SegFailure(result.input_path, result.page_index, failure), []

    results = pipeline.predict(
        images,
        inference.target_size,
        batch_size=inference.batch_size,
        slide=inference.slide,
        progress=progress,
        on_error="yield",
        **asdict(task.reading),
    )
    if output.file:
        results = _only(results, output.file)
    with closing(behind(save, results, SAVERS)) as saved:
        yield from saved


def _only(
    results: Iterator[SegResult | SegFailure], file: Path
) -> Iterator[SegResult | SegFailure]:
    """The result of an input with one page.

    Raises:
        InputError: there are more, which can't be saved as one file; none is.
    """
    with closing(results) if isinstance(results, Generator) else nullcontext():
        found = list(islice(results, 2))
    if len(found) > 1:
        raise InputError(
            f"{file} is one file, but {found[0].input_path} has several pages or frames: save to a "
            "folder"
        )
    yield from found


def _save(result: SegResult, save_path: Path, output: OutputOptions, look: Look) -> list[Path]:
    file, saved = output.file, list[Path]()
    is_json = file is not None and file.suffix.lower() == ".json"
    if not (is_json or (file and output.overlay)):
        saved += result.save_to_img(save_path)
    if is_json or not file:
        label_format = parse_label_format(output.label_format)
        saved.append(result.save_to_json(save_path, label_format=label_format))
    if output.overlay:
        saved.append(result.save_overlay(save_path, **asdict(look)))
    return saved


def _not_saved(result: SegResult, error: Exception) -> InputError:
    name = result.input_path or "an image"
    where = name if result.page_index is None else f"{name}, page {result.page_index}"
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return InputError(f"the result of {where} can't be saved: {reason}")
