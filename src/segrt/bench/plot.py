"""The chart: latency by model, the contenders beside one another."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import floor, log10
from pathlib import Path

from segrt.bench.measure import Row
from segrt.errors import ConfigError, MissingExtraError
from segrt.files import write_atomic

# Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/: told apart with every colour vision.
_COLOURS = {"paddle": "#999999", "normal": "#0072B2", "high-performance": "#E69F00"}
_OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_BAR = 0.17  # inches

SUFFIXES = (".png", ".svg", ".pdf")


def check(file: Path) -> None:
    """Make sure, before an hour of measuring, that the chart can be drawn.

    Raises:
        ConfigError: the suffix is none of `SUFFIXES`.
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
    """Draw the median of end to end, with a line from the fastest to the 95th percentile, on a logarithmic scale.

    Args:
        rows: those without times are left out.
        file: to write, `.png`, `.svg` or `.pdf`.
        subtitle: what was measured on what.

    Returns:
        bool: False where no row has a time: nothing is written then.
    """
    timed = [row for row in rows if row.steps]
    if not timed:
        return False
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model.name for row in timed))
    labels = [
        label
        for label in dict.fromkeys(row.contender for row in rows)
        if any(r.contender == label for r in timed)
    ]
    others = [label for label in labels if label not in _COLOURS]
    figure = Figure(
        figsize=(9, 1.7 + _BAR * len(models) * (len(labels) + 0.8)), layout="constrained"
    )
    axes = figure.add_subplot()
    height = 0.84 / len(labels)
    for place, label in enumerate(labels):
        colour = _COLOURS.get(label) or _OTHERS[others.index(label) % len(_OTHERS)]
        shown = [row for row in timed if row.contender == label]
        at = [models.index(row.model.name) - 0.42 + (place + 0.5) * height for row in shown]
        totals = [row.steps["total"] for row in shown]
        medians = [total.median for total in totals]
        reach = [[m - min(t.ms) for m, t in zip(medians, totals, strict=True)]]
        reach.append([max(0.0, t.p95 - m) for m, t in zip(medians, totals, strict=True)])
        axes.barh(at, medians, height * 0.92, color=colour, label=label)
        axes.errorbar(
            medians, at, xerr=reach, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
        )
        for y, median, total in zip(at, medians, totals, strict=True):
            text = f"{median:,.0f}" if median >= 100 else f"{median:.3g}"
            axes.annotate(
                text,
                (max(median, total.p95), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
    axes.set_xscale("log")
    values = [
        value for row in timed for value in (min(row.steps["total"].ms), row.steps["total"].p95)
    ]
    axes.set_xlim(10 ** floor(log10(min(values))), max(values) * 1.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    names = {row.model.name: row.model.name + ("*" if row.model.untrained else "") for row in timed}
    axes.set_yticks(range(len(models)), [names[model] for model in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel(
        "ms an image, end to end (log scale): median; lines from the fastest to the 95th percentile"
    )
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    note = (
        "\n* untrained weights: times of the architecture"
        if any(row.model.untrained for row in timed)
        else ""
    )
    axes.set_title(f"Time to segment an image\n{subtitle}{note}", loc="left", fontsize=9)
    figure.legend(loc="outside upper right", ncols=len(labels), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.lower()[1:], dpi=150)
    write_atomic(file, buffer.getvalue())
    return True
