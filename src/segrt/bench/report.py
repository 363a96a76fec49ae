"""Results as a terminal table, Markdown, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from statistics import geometric_mean
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from segrt import zoo
from segrt.bench.environment import Environment
from segrt.bench.measure import Row
from segrt.bench.pairs import Ratio, Samples, ratio
from segrt.zoo import ModelSpec, Timing

STEPS = ("preprocess", "run", "postprocess", "total")
"""Names of the timed steps, in the order of the columns."""


class Format(str, Enum):
    """Output format of a report."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


class Table(NamedTuple):
    """One table of a report; every row has as many cells as the head."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """The results of one call of `segrt-bench`.

    Example:
        >>> markdown = report.render(Format.MARKDOWN)

    Attributes:
        command: the arguments of the command.
        environment: the machine.
        threads: number of threads of each contender.
        size: inference size, as text.
        clock_ms: milliseconds that reading the clock adds to one image.
        rows: the results.
    """

    command: str
    environment: Environment
    threads: int
    size: str
    clock_ms: float
    rows: list[Row]

    def render(self, form: Format, *, width: int = 200, colour: bool = False) -> str:
        """Render the report as text.

        Args:
            form: the output format.
            width: width of the terminal table, in characters.
            colour: whether the terminal table uses colours.
        """
        if form is Format.JSON:
            return json.dumps(self._json(), indent=1) + "\n"
        if form is Format.CSV:
            return self._csv()
        return self._markdown() if form is Format.MARKDOWN else self._table(width, colour)

    def notes(self) -> Iterator[str]:
        """What to know when reading the numbers, one sentence or paragraph at a time."""
        if self.environment.busy:
            env = self.environment
            yield (
                f"THE MACHINE WAS BUSY: load average {env.load_before} on "
                f"{len(env.pinned) or env.cores} cores at the start. Ratios are more reliable than "
                "times; measure again on an idle machine."
            )
        if any(row.model.untrained for row in self.rows):
            yield (
                "untrained: the published architecture with random weights, because the trained "
                "weights are not downloaded. Times are valid; accuracy is not measured, and equal "
                "labels say little: random logits are almost equal in many places."
            )
        if any(row.model.fitted for row in self.rows):
            yield (
                "fitted twin: the published architecture with random weights, and a last layer "
                "fitted by ridge regression to every second photo of the data set. The others are "
                "scored. Its mIoU says nothing about the trained model; that precisions agree on "
                "its labels does."
            )
        yield f"Inference at {self.size}. {self.threads} threads for each contender."
        yield (
            "Times are medians in milliseconds, from the decoded image to labels at its size; "
            "spread is the interquartile range divided by the median. A speed-up is the median of "
            "the ratios within each round, followed by their range. Equal labels: those of the "
            "last timed image, compared with the baseline named next to them."
        )
        if any(row.scored_agreement for row in self.rows):
            yield (
                "Labels on the data set: pixels with the same label as the contender named next to "
                "them, over all images; the worst image is in the table Accuracy."
            )
        if any(row.is_peer for row in self.rows):
            yield (
                "The input of other runtimes comes from segrt's preprocessing. Stock graph: the "
                "Paddle model as paddle2onnx converts it, with upsampling and argmax, as in "
                "Paddle's own; our graph: segrt-export's, with segrt's postprocessing. Both get "
                "the input size in advance."
            )
        yield from self._overhead()
        for name, model in {row.model.name: row.model for row in self.rows}.items():
            if model.build_s is not None and model.export_s is not None:
                yield (
                    f"{name}: built in {model.build_s:.0f} s, converted and checked in "
                    f"{model.export_s:.0f} s."
                )
        yield from _describe(self.environment)
        yield f"Command: segrt-bench {self.command}"

    def _overhead(self) -> Iterator[str]:
        if timed := [row for row in self.rows if row.steps]:
            fastest = min(row.steps["total"].median for row in timed)
            harness = max(row.harness or 0 for row in timed)
            yield (
                f"Overhead of measuring: the clock adds {self.clock_ms:.4f} ms per image, "
                f"{self.clock_ms / fastest:.4%} of the fastest; the measuring process used at most "
                f"{harness:.2%} of the CPU time."
            )

    def _tables(self) -> Iterator[Table]:
        yield self._speeds()
        if versus := list(_versus(self.rows)):
            yield _summary(versus)
            yield _by_model(versus)
        head = ["model", "mode", "pre", "run", "post", "end to end", "p95", "spread"]
        yield Table(
            "Steps, milliseconds per image",
            head,
            [_cells(row, _steps) for row in self.rows if row.steps],
        )
        head = ["model", "mode", "load s", "first image ms", "warm-up s", "peak MB", "file MB"]
        rows = [_cells(row, _load) for row in self.rows if row.facts]
        yield Table("Load, memory, size", head, rows)
        scored = [row for row in self.rows if row.confusion]
        if scored:
            head = ["model", "mode", "weights", "runs on", "images", "mIoU %", "pixel accuracy %"]
            head += ["equal labels", "worst image"]
            head.append("published mIoU %, on the full test set")
            yield Table("Accuracy", head, [_cells(row, _accuracy) for row in scored])
            yield from _iou_by_class([row for row in scored if not row.model.fitted])
        specs = {row.model.name: row.model.spec for row in self.rows}
        published = {name: spec for name, spec in specs.items() if spec and not spec.bundled}
        if published:
            yield _published_figures(published)

    def _speeds(self) -> Table:
        head = ["model", "mode", "weights", "runs on", "ms", "images/s", "rounds"]
        compared = any(row.baseline for row in self.rows)
        scored = any(row.confusion for row in self.rows)
        head += ["speed-up", "equal labels"] if compared else []
        head += ["mIoU %", "labels on the data set"] if scored else []

        def cells(row: Row) -> Iterator[str]:
            total = row.steps["total"]
            yield row.model.weights
            yield runs_on(row)
            yield _ms(total.median)
            yield f"{1000 / total.median:.3g}"
            yield str(len(total.ms))
            if compared:
                yield str(row.ratio or "")
                yield "" if row.agreement is None else _equal(row.agreement, row.baseline)
            if scored:
                yield _percent(row.confusion.miou) if row.confusion else ""
                yield (
                    _equal(float(np.mean(row.scored_agreement)), row.scored_as)
                    if (row.scored_agreement)
                    else ""
                )

        rows = []
        for row in self.rows:
            if row.steps:
                rows.append(_cells(row, cells))
            if row.error:
                failure = [row.model.name, row.contender, f"failed: {row.error}"]
                rows.append(failure + [""] * (len(head) - len(failure)))
        return Table("Speed and labels", head, rows)

    def _markdown(self) -> str:
        parts = ["# segrt-bench\n"]
        for title, head, rows in self._tables():
            lines = [head, ["---"] * len(head), *rows]
            cells = (
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                for line in lines
            )
            parts.append(f"{title}:\n\n" + "\n".join(cells) + "\n")
        parts.append("\n".join(f"- {note}" for note in self.notes()) + "\n")
        return "\n".join(parts)

    def _table(self, width: int, colour: bool) -> str:
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=colour, no_color=not colour)
        for title, head, rows in self._tables():
            table = RichTable(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
            for column, name in enumerate(head):
                table.add_column(
                    Text(name), justify="left" if column < 3 else "right", overflow="fold"
                )
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
        for note in self.notes():
            console.print(Text(note))
        return out.getvalue()

    def _json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "environment": asdict(self.environment) | {"busy": self.environment.busy},
            "threads": self.threads,
            "size": self.size,
            "clock_ms": self.clock_ms,
            "notes": list(self.notes()),
            "rows": [_record(row) for row in self.rows],
        }

    def _csv(self) -> str:
        env = self.environment
        machine = {
            "cpu": env.cpu,
            "threads": self.threads,
            "size": self.size,
            "busy": env.busy,
            "system": env.system,
            "gpus": "; ".join(env.gpus),
            "governor": env.governor,
            "cgroup_cpus": env.cgroup_cpus,
            "load_before": env.load_before,
            "load_after": env.load_after,
            "versions": " ".join(f"{name}={number}" for name, number in env.libraries.items()),
        }
        records = [_flat(_record(row)) | machine for row in self.rows]
        out = io.StringIO()
        writer = csv.DictWriter(
            out, list(dict.fromkeys(key for record in records for key in record))
        )
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()


def runs_on(row: Row) -> str:
    """Provider, precision and threads in a few characters, such as "OpenVINO bf16 x2"."""
    if row.facts is None:
        return ""
    provider = row.facts.provider.removesuffix("ExecutionProvider")
    threads = row.facts.plan.get("threads")
    return f"{provider} {row.facts.precision}" + (f" x{threads}" if threads else "")


@dataclass(frozen=True)
class _Versus:
    """A contender of segrt compared with another runtime, in the rounds of one model."""

    ours: Row
    theirs: Row

    @property
    def ratio(self) -> Ratio:
        return ratio(self.theirs.steps["total"], self.ours.steps["total"])


def _versus(rows: list[Row]) -> Iterator[_Versus]:
    for ours in rows:
        for theirs in rows:
            same = ours.model.name == theirs.model.name and ours.steps and theirs.steps
            if same and theirs.is_peer and not ours.is_peer:
                yield _Versus(ours, theirs)


def _summary(versus: list[_Versus]) -> Table:
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for pair in versus:
        group = groups.setdefault((pair.ours.contender, pair.theirs.contender), {})
        group[pair.ours.model.name] = pair.ratio.median

    def extreme(found: dict[str, float], choose: Callable[..., str]) -> str:
        name = choose(found, key=found.__getitem__)
        return f"{found[name]:.2f} ({name})"

    rows = [
        [
            *names,
            str(len(found)),
            f"{geometric_mean(found.values()):.2f}",
            extreme(found, min),
            extreme(found, max),
        ]
        for names, found in groups.items()
    ]
    head = ["mode", "over", "models", "geometric mean", "lowest", "highest"]
    return Table("Speed-up over other runtimes, over all models", head, rows)


def _by_model(versus: list[_Versus]) -> Table:
    peers = list(dict.fromkeys(pair.theirs.contender for pair in versus))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for pair in versus:
        row = cells.setdefault((pair.ours.model.name, pair.ours.contender), {})
        row[pair.theirs.contender] = str(pair.ratio)
    head = ["model", "mode", *(f"over {peer}" for peer in peers)]
    rows = [[*names, *(row.get(peer, "") for peer in peers)] for names, row in cells.items()]
    return Table("Speed-up over other runtimes, by model", head, rows)


def _describe(env: Environment) -> Iterator[str]:
    hardware = ", ".join([env.cpu, f"{env.cores} cores", *env.gpus])
    yield f"Machine: {hardware}, {env.memory_gib} GiB, {env.system}."
    pinned = f"Pinned to cores {', '.join(map(str, env.pinned))}" if env.pinned else "Not pinned"
    limit = f"{env.cgroup_cpus:g} cores" if env.cgroup_cpus else "none"
    yield (
        f"{pinned}; frequency governor: {env.governor or 'unknown'}; CPU quota of the control "
        f"group: {limit}; load average {env.load_before} before, {env.load_after} after."
    )
    versions = ", ".join(f"{name} {number}" for name, number in env.libraries.items())
    yield f"Versions: {versions}."


def _cells(row: Row, rest: Callable[[Row], Iterator[str]]) -> list[str]:
    return [row.model.name, row.contender, *rest(row)]


def _equal(share: float, reference: str | None) -> str:
    """A fraction of equal labels, and whose they are."""
    return f"{share:.3%} as {reference}"


def _steps(row: Row) -> Iterator[str]:
    total = row.steps["total"]
    yield from (_ms(row.steps[step].median) for step in STEPS)
    yield _ms(total.p95)
    yield f"{total.spread:.0%}"


def _load(row: Row) -> Iterator[str]:
    assert row.facts
    yield f"{row.facts.load_s:.2f}"
    yield "" if row.first_ms is None else _ms(row.first_ms)
    yield _number(row.warm_up_s)
    yield _number(row.peak_bytes and row.peak_bytes / 1e6, 0)
    yield _number(row.facts.file_bytes / 1e6)


def _accuracy(row: Row) -> Iterator[str]:
    assert row.confusion
    shares = row.scored_agreement
    yield row.model.weights
    yield runs_on(row)
    yield str(row.images)
    yield _percent(row.confusion.miou)
    yield _percent(row.confusion.pixel_accuracy)
    yield _equal(float(np.mean(shares)), row.scored_as) if shares else ""
    yield f"{min(shares):.3%}" if shares else ""
    # Of the published weights, which a fitted twin does not have.
    yield f"{row.model.spec.miou:.2f}" if row.model.spec and not row.model.fitted else ""


def _iou_by_class(rows: list[Row]) -> Iterator[Table]:
    columns: dict[tuple[str, tuple[str, ...]], list[tuple[str, Any]]] = {}
    for row in rows:
        assert row.confusion
        column = (row.contender, row.confusion.iou)
        columns.setdefault((row.model.name, row.class_names), []).append(column)
    for (name, classes), found in columns.items():
        body = [[cls, *(_percent(iou[i]) for _, iou in found)] for i, cls in enumerate(classes)]
        yield Table(f"IoU by class, %: {name}", ["class", *(label for label, _ in found)], body)


def _published_figures(specs: dict[str, ModelSpec]) -> Table:
    published = zoo.load().published
    title = (
        f"Published figures ({published.source}), for other hardware and an unknown input size: "
        f"GPU {published.gpu}, CPU {published.cpu}. Normal: {published.normal}; high-performance: "
        f"{published.high_performance}"
    )
    head = ["model", "mIoU %", "dataset"]
    head += ["CPU ms, normal / high-perf.", "GPU ms, normal / high-perf.", "MB"]
    rows = [
        [
            name,
            f"{spec.miou:.2f}",
            spec.dataset.name,
            _published(spec.cpu_ms),
            _published(spec.gpu_ms),
            _number(spec.size_mb),
        ]
        for name, spec in specs.items()
    ]
    return Table(title, head, rows)


def _record(row: Row) -> dict[str, Any]:
    """A row as JSON."""
    spec, facts = row.model.spec, row.facts
    record: dict[str, Any] = {
        "model": row.model.name,
        "mode": row.contender,
        "weights": row.model.weights,
        "error": row.error,
        "provider": facts and facts.provider,
        "precision": facts and facts.precision,
        "plan": facts and json.loads(json.dumps(facts.plan, default=str)),
        "load_s": facts and facts.load_s,
        "first_ms": row.first_ms,
        "warm_up_s": row.warm_up_s,
        "ms": {step: _samples(samples) for step, samples in row.steps.items()},
        "images_per_second": 1000 / row.steps["total"].median if row.steps else None,
        "peak_bytes": row.peak_bytes,
        "file_bytes": facts and facts.file_bytes,
        "baseline": row.baseline,
        "ratio": row.ratio and _ratio(row.ratio),
        "label_agreement": row.agreement,
        "harness_share": row.harness,
        "build_s": row.model.build_s,
        "export_s": row.model.export_s,
    }
    if row.confusion:
        matrix = row.confusion
        iou = map(_finite, matrix.iou)
        record["accuracy"] = {
            "images": row.images,
            "ignore_index": matrix.ignore_index,
            "miou": _finite(matrix.miou),
            "pixel_accuracy": _finite(matrix.pixel_accuracy),
            "iou": dict(zip(row.class_names, iou, strict=True)),
            "confusion": matrix.counts.tolist(),
            "baseline": row.scored_as,
            "label_agreement": list(row.scored_agreement),
        }
    if spec and not spec.bundled:
        record["published"] = {
            "miou_percent": spec.miou,
            "cpu_ms": _published(spec.cpu_ms),
            "gpu_ms": _published(spec.gpu_ms),
            "size_mb": spec.size_mb,
        }
    return record


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys with dots; omit lists, which don't fit into a cell."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _samples(samples: Samples) -> dict[str, Any]:
    times = {"rounds": len(samples.ms), "all": [round(ms, 4) for ms in samples.ms]}
    return _fields(samples, "median", "p95", "spread") | times


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return _fields(ratio, "median", "low", "high") | {"pairs": list(ratio.pairs)}


def _published(ms: Timing | float | None) -> str:
    if isinstance(ms, Timing):
        return f"{ms.normal:g} / {ms.high_performance:g}"
    return "" if ms is None else f"{ms:g} (mode not stated)"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if np.isfinite(value) else "absent"


def _number(value: float | None, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if value else ""


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
