"""`segrt tune`: measure the plans that run on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segrt import consent, model_file
from segrt.cli.console import progress_bar, say
from segrt.cli.options import DeviceOption, Yes
from segrt.errors import ConfigError
from segrt.names import is_url
from segrt.tuning import Measurement, tune_model, winner
from segrt.types import shown

MAX_ROUNDS = 10_000


def tune(
    model: str,
    /,
    *,
    size: str = "512x1024",
    images: Path | None = None,
    device: DeviceOption = None,
    rounds: int = 7,
    agreement: float = 99,
    yes: Yes = False,
) -> None:
    """Measure what runs a model fastest here; high-performance mode uses it from then on.

    Args:
        model: A model listed by `segrt models`, or an .onnx file or its URL.
        size: Inference size, HEIGHTxWIDTH.
        images: Folder of photos like yours; default: the bundled sample.
        device: cpu, gpu, gpu:0, ...; default: that of normal mode.
        rounds: Number of timed rounds per plan.
        agreement: Minimum % of labels equal to those of FP32.
        yes: Install Paddle (1.9 GB) without asking if the model needs it.
    """
    if yes:
        consent.agree()
    if not 1 <= rounds <= MAX_ROUNDS or not 0 <= agreement <= 100:
        raise ConfigError(
            f"rounds {shown(rounds)} and agreement {agreement:g} are not valid: give from 1 to "
            f"{MAX_ROUNDS}, and from 0 to 100"
        )
    # Downloads and conversions have a progress bar of their own, and may ask.
    if is_url(model):
        model = str(model_file.resolve(path=model))
    elif not model.endswith(".onnx"):
        model_file.resolve(model)
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=None)
        measured, path = tune_model(
            model,
            size,
            images,
            device,
            rounds,
            agreement / 100,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    best = winner(measured)
    Console(width=None if sys.stdout.isatty() else 160).print(_table(measured, best))
    say(f"high-performance mode runs {best.plan}; saved in {path}")


def _table(measured: list[Measurement], best: Measurement) -> Table:
    table = Table("plan", "ms per image", "labels as FP32", "", box=None)
    for one in measured:
        time = "" if one.milliseconds is None else f"{one.milliseconds:.1f}"
        same = "" if one.agreement is None else f"{100 * one.agreement:.2f}%"
        note = "fastest" if one is best else escape(one.rejected)
        table.add_row(str(one.plan), time, same, note)
    return table
