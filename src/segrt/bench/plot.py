"""A bar chart of latency by model and contender."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

from segrt.bench.measure import Row
from segrt.errors import ConfigError, MissingExtraError
from segrt.files import write_atomic

# Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/: distinguishable with
# every kind of colour vision.
_COLOURS = {"paddle": "#999999", "normal": "#0072B2", "high-performance": "#E69F00"}
_OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_BAR = 0.17  # inches

SUFFIXES = (".png", ".svg", ".pdf")
"""File types of the chart."""


def check(file: Path) -> None:
    """Check, before anything is measured, that the chart can be drawn.

    Raises:
        ConfigError: the suffix is not in `SUFFIXES`.
        MissingExtraError: matplotlib is not installed.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot {file} is not valid: the name must end in {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "a chart needs matplotlib: run  pip install 'segrt[bench]'"
        ) from None


def plot(rows: Sequence[Row], file: Path, *, subtitle: str) -> bool:
    """Draw median end-to-end times on a logarithmic scale, with a line from minimum to p95.

    Example:
        >>> plot(report.rows, Path("cpu.png"), subtitle="AMD EPYC, 2 threads")
        True

    Args:
        rows: the results; rows without times are omitted.
        file: the file to write, `.png`, `.svg` or `.pdf`.
        subtitle: second line of the title: hardware and inference size.

    Returns:
        bool: False if no row has times; nothing is written then.
    """
    timed = [row for row in rows if row.steps]
    if not timed:
        return False
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model.name for row in timed))
    shown = {row.contender for row in timed}
    labels = [label for label in dict.fromkeys(row.contender for row in rows) if label in shown]
    figure = Figure(
        figsize=(9, 1.7 + _BAR * len(models) * (len(labels) + 0.8)), layout="constrained"
    )
    axes = figure.add_subplot()
    others = [label for label in labels if label not in _COLOURS]
    height = 0.84 / len(labels)
    for position, label in enumerate(labels):
        group = [row for row in timed if row.contender == label]
        ys = [models.index(row.model.name) - 0.42 + (position + 0.5) * height for row in group]
        colour = _COLOURS.get(label) or _OTHERS[others.index(label) % len(_OTHERS)]
        _draw_bars(axes, group, ys, color=colour, label=label, height=height * 0.92)
    _set_axes(axes, timed, models)
    untrained = any(row.model.untrained for row in timed)
    note = "\n* random weights: times of the architecture" if untrained else ""
    axes.set_title(f"Time to segment an image\n{subtitle}{note}", loc="left", fontsize=9)
    figure.legend(loc="outside upper right", ncols=len(labels), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.lower()[1:], dpi=150)
    write_atomic(file, buffer.getvalue())
    return True


def _draw_bars(axes: Any, rows: Sequence[Row], ys: Sequence[float], **style: Any) -> None:
    totals = [row.steps["total"] for row in rows]
    medians = [total.median for total in totals]
    below = [total.median - min(total.ms) for total in totals]
    above = [max(0.0, total.p95 - total.median) for total in totals]
    axes.barh(ys, medians, **style)
    axes.errorbar(
        medians, ys, xerr=[below, above], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
    )
    for y, total in zip(ys, totals, strict=True):
        axes.annotate(
            f"{total.median:,.0f}" if total.median >= 100 else f"{total.median:.3g}",
            (max(total.median, total.p95), y),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )


def _set_axes(axes: Any, rows: Sequence[Row], models: Sequence[str]) -> None:
    totals = [row.steps["total"] for row in rows]
    low = min(min(total.ms) for total in totals)
    high = max(total.p95 for total in totals)
    axes.set_xscale("log")
    axes.set_xlim(10 ** floor(log10(low)), high * 1.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    untrained = {row.model.name for row in rows if row.model.untrained}
    axes.set_yticks(range(len(models)), [model + "*" * (model in untrained) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel("ms per image, end to end (log scale): median; lines from minimum to p95")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
