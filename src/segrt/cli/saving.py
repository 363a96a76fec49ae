"""What `segrt predict` saves of each image, in this process or in those of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from segrt import encode
from segrt.cli import outputs, standard
from segrt.cli.jobs import JobOptions
from segrt.cli.options import OUTPUT, AsJson, InferenceOptions, SavePath, first_given
from segrt.cli.standard import STDOUT
from segrt.errors import ConfigError, InputError, SegrtError
from segrt.frame import SegFailure
from segrt.look import Look
from segrt.pipeline import Pipeline
from segrt.reading import Reading
from segrt.result import SegResult
from segrt.schedule import behind
from segrt.sources import Source
from segrt.types import LabelFormat, parse_label_format

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
    """Folder, or a file for one result (.png, .json, or - for a PNG on standard output); default:
    output, with overlays."""

    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative="--no-clobber")] = True
    """Replace results of an earlier run, or skip images whose results all exist."""

    label_format: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """Labels in the JSON: rle (as COCO), png or list (nested); default: rle."""

    overlay: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Also save the photo with class colours and a legend; with a file, save only that."""

    show: Annotated[Literal["shares", "paddlex"], Parameter(group=OUTPUT)] = "shares"
    """Print the share of each class, or what PaddleX prints."""

    json: Annotated[AsJson, Parameter(group=OUTPUT)] = False
    """Print one line of JSON for each image instead: its row of a manifest."""

    coco: Annotated[Path | None, Parameter(group=OUTPUT, metavar="FILE")] = None
    """Write the labels of all images to one COCO file; then only --save-path saves others."""

    per_region: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """With --coco: an annotation for each connected region, not for each class of an image."""

    @property
    def form(self) -> Literal["shares", "paddlex", "json"]:
        """What is printed of each image."""
        return "json" if self.json else self.show

    def completed(self) -> OutputOptions:
        """With the default folder, unless other results or only those of PaddleX are asked for."""
        if self.save_path is not None:
            return self
        if (self.show == "paddlex" or self.coco) and not self.overlay:
            return self
        return replace(self, save_path=FOLDER, overlay=True)

    @property
    def labels(self) -> LabelFormat | None:
        """The form of the labels in the JSON; None is the file of PaddleX.

        Raises:
            ConfigError: there is no such form.
        """
        if self.label_format is not None:
            return parse_label_format(self.label_format)
        return None if self.show == "paddlex" else "rle"

    def kind(self, look: Look) -> dict[str, Any]:
        """What is saved of each image, if its overlay has a look."""
        labels = {"label_format": self.labels or "list", "overlay": self.overlay}
        return labels | (asdict(look) if self.overlay else {})

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
        if path is STDOUT:
            self._check_stdout()
            return path
        is_json = path.suffix.lower() == ".json"
        if self.overlay and is_json:
            raise ConfigError(
                f"--overlay saves a picture, but {path} is a JSON file: use a folder for both, or "
                f"a name such as {path.with_suffix('.png')}"
            )
        if self.label_format is not None and not is_json:
            raise ConfigError(
                f"--label_format {self.label_format} is for JSON, but {path} is not a JSON file: "
                f"use a folder for both, or a name such as {path.with_suffix('.json')}"
            )
        return path

    def check(self, job: JobOptions, *, on_ray: bool) -> None:
        """Refuse options that contradict each other or those of the job.

        Raises:
            ConfigError: some do, or there is no such format of labels.
        """
        self.labels  # noqa: B018 - raises if there is none
        if self.per_region and not self.coco:
            raise ConfigError("--per-region is for annotations: it needs --coco FILE")
        missing = {
            "--engine ray segments them in other processes": on_ray,
            "--resume leaves out what is done": job.resume,
            "--shard does a part of them": job.shard is not None,
            "--no-clobber leaves out what has results": not self.overwrite,
        }
        if self.coco and (why := first_given(missing)):
            raise ConfigError(
                f"--coco writes one file of all images, but {why}: leave out one of the options"
            )
        option = first_given({"--engine ray": on_ray, "--manifest": job.manifest is not None})
        if option and not self.overwrite:
            raise ConfigError(
                f"--no-clobber does not go with {option}: --manifest with --resume leaves out what "
                "is done"
            )

    def _check_stdout(self) -> None:
        """Refuse what can't go to standard output together with a picture."""
        other = {
            "--json": self.json,
            "--show paddlex": self.show == "paddlex",
            "--label-format": self.label_format is not None,
        }
        if option := first_given(other):
            raise ConfigError(
                f"-o - writes a PNG to standard output, so {option} has no place there: leave out "
                "one of them"
            )
        standard.check_output()


@dataclass
class Kept:
    """The results that --no-clobber leaves as they are.

    Attributes:
        output: what would be saved.
        count: of the images and videos left out.
    """

    output: OutputOptions
    count: int = 0

    def __call__(self, name: str, stem: str) -> bool:
        """Whether all files of an image exist."""
        if self.output.save_path is None:
            return False
        overlay = self.output.overlay
        return self.all(outputs.targets(name, stem, self.output.save_path, overlay=overlay))

    def all(self, files: list[Path]) -> bool:
        """Whether all of these files exist; if so, they are counted as one result."""
        are_there = bool(files) and all(map(os.path.lexists, files))
        self.count += are_there
        return are_there


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
    images: Source,
    task: Task,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Saved, None, None]:
    """Segment images and save the results. A failure is yielded in the place of its image.

    Args:
        pipeline: segments them.
        images: what `Pipeline.predict` takes; images may have the names of their results.
        task: what is done with them.
        progress: see `Pipeline.predict`.
    """
    inference, output = task.inference, task.output

    def save(result: SegResult | SegFailure) -> Saved:
        if output.save_path is None or isinstance(result, SegFailure):
            return result, []
        try:
            return result, _save(result, output.save_path, output, task.look)
        except BrokenPipeError:  # nobody reads standard output any more
            raise
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
    if save_path is STDOUT:
        is_overlay = output.overlay
        overlay = encode.rgb(result.overlay(**asdict(look)), ".png") if is_overlay else None
        standard.write(overlay or result.label_png())
        return []
    file, saved = output.file, list[Path]()
    is_json, overwrite = file is not None and file.suffix.lower() == ".json", output.overwrite
    if not (is_json or (file and output.overlay)):
        saved += result.save_to_img(save_path, overwrite=overwrite)
    if is_json or not file:
        saved.append(
            result.save_to_json(save_path, label_format=output.labels, overwrite=overwrite)
        )
    if output.overlay:
        saved.append(result.save_overlay(save_path, **asdict(look), overwrite=overwrite))
    return saved


def _not_saved(result: SegResult, error: Exception) -> InputError:
    name = result.input_path or "an image"
    where = name if result.page_index is None else f"{name}, page {result.page_index}"
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return InputError(f"the result of {where} can't be saved: {reason}")
