"""A dot chart of speed-ups, one line per model, sorted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any

from segrt.bench.measure import Row
from segrt.errors import ConfigError, MissingExtraError
from segrt.files import write_atomic

# Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/: distinguishable with
# every kind of colour vision.
_COLOURS = {"normal": "#0072B2", "high-performance": "#D55E00", "int8": "#009E73"}
_OTHERS = ("#CC79A7", "#56B4E9", "#E69F00")
_PEER_COLOUR = "#777777"
_PEER_MARKERS = "sD^v"
_LINE, _CHART, _COLUMN = 0.27, 7.0, 1.35  # inches

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
    """Draw each contender's speed-up over the baseline, with the model that gains most on top.

    Contenders of segrt are dots, other runtimes are thin grey marks. Columns at the right list the
    speed-ups of segrt's contenders, with the share of labels that equal the baseline's.

    Example:
        >>> plot(report.rows, Path("cpu.png"), subtitle="AMD EPYC, 2 threads")
        True

    Args:
        rows: the results; rows without a speed-up are omitted.
        file: the file to write, `.png`, `.svg` or `.pdf`.
        subtitle: second line of the title: hardware and inference size.

    Returns:
        bool: False if no row has a speed-up; nothing is written then.
    """
    compared = [row for row in rows if row.ratio]
    if not compared:
        return False
    from matplotlib.figure import Figure

    models = _sorted_models(compared)
    ours = list(dict.fromkeys(row.contender for row in compared if not row.is_peer))
    peers = list(dict.fromkeys(row.contender for row in compared if row.is_peer))
    width = _COLUMN * max(len(ours), 1)
    figure = Figure(figsize=(_CHART + width, 1.9 + _LINE * len(models)), layout="constrained")
    axes, table = figure.subplots(1, 2, sharey=True, width_ratios=[_CHART - 1.5, width])
    table.axis("off")
    table.set_xlim(0, max(len(ours), 1))
    _draw_ranges(axes, compared, models)
    for index, label in enumerate(peers):
        style = {"marker": _PEER_MARKERS[index % len(_PEER_MARKERS)], "markersize": 5}
        _draw(axes, compared, label, models, color=_PEER_COLOUR, markerfacecolor="white", **style)
    others = iter(_OTHERS * len(ours))
    for index, label in enumerate(ours):
        colour = _COLOURS.get(label) or next(others)
        _draw(axes, compared, label, models, color=colour, marker="o", markersize=7.5)
        _write_column(table, compared, label, models, color=colour, x=index + 0.5)
    _set_axes(axes, compared, models)
    notes = (f"* {row.model.weights}" for row in compared if row.model.weights != "trained")
    title = f"Speed-up over {_baselines(compared)}, from the decoded image to labels"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes.set_title("; ".join([subtitle, *dict.fromkeys(notes)]), loc="left", fontsize=9, pad=26)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.lower()[1:], dpi=150)
    write_atomic(file, buffer.getvalue())
    return True


def _sorted_models(rows: Sequence[Row]) -> list[str]:
    """The models, the one with the largest speed-up by a contender of segrt first."""
    best: dict[str, float] = {}
    for row in rows:
        assert row.ratio
        gain = 0.0 if row.is_peer else row.ratio.median
        best[row.model.name] = max(best.get(row.model.name, 0.0), gain)
    return sorted(best, key=best.__getitem__, reverse=True)


def _baselines(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(row.baseline or "" for row in rows))


def _draw_ranges(axes: Any, rows: Sequence[Row], models: Sequence[str]) -> None:
    """A thin line through the dots of each model, from 1 to the largest."""
    for y, name in enumerate(models):
        gains = [row.ratio.median for row in rows if row.ratio and row.model.name == name]
        axes.plot([1, max(gains)], [y, y], color="#e4e4e4", linewidth=3, zorder=1)


def _draw(axes: Any, rows: Sequence[Row], label: str, models: Sequence[str], **style: Any) -> None:
    group = [row for row in rows if row.contender == label]
    gains = [row.ratio.median for row in group if row.ratio]
    ys = [models.index(row.model.name) for row in group]
    axes.plot(gains, ys, linestyle="none", label=label, zorder=3, **style)


def _write_column(
    table: Any, rows: Sequence[Row], label: str, models: Sequence[str], *, color: str, x: float
) -> None:
    """Speed-up and equal labels of a contender, right of the chart."""
    style: dict[str, Any] = {"ha": "center", "fontsize": 8.5}
    table.text(x, -0.7, f"{label}\nequal labels", color=color, va="bottom", **style)
    for row in rows:
        if row.contender == label and row.ratio:
            equal = "" if row.agreement is None else f"   {_percent(row.agreement)}"
            y = models.index(row.model.name)
            table.text(x, y, f"{row.ratio.median:.2f}x{equal}", va="center", **style)


def _percent(share: float) -> str:
    """A share without rounding it up to 100%."""
    return "100%" if share == 1 else f"{floor(share * 1e4) / 100:.2f}%"


def _set_axes(axes: Any, rows: Sequence[Row], models: Sequence[str]) -> None:
    gains = [row.ratio.median for row in rows if row.ratio]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(*gains, 1) / 1.1, max(*gains, 2) * 1.12)
    axes.axvline(1, color="#333333", linewidth=1, zorder=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    marked = {row.model.name for row in rows if row.model.weights != "trained"}
    axes.set_yticks(range(len(models)), [model + "*" * (model in marked) for model in models])
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
