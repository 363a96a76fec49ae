"""Rows become a table for the terminal, Markdown, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from segrt import zoo
from segrt.bench.environment import Environment
from segrt.bench.measure import Row
from segrt.bench.pairs import Ratio, Samples
from segrt.zoo import Timing

STEPS = ("preprocess", "run", "postprocess", "total")


class Format(str, Enum):
    """Of a result."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class Report:
    """Everything that one call of `segrt-bench` found.

    Attributes:
        command: its arguments.
        environment: the machine.
        threads: that each contender used.
        size: of inference, for people.
        clock_ms: what the clock itself adds to one image.
        rows: the result.
    """

    command: str
    environment: Environment
    threads: int
    size: str
    clock_ms: float
    rows: list[Row]

    def render(self, form: Format, *, width: int = 200, colour: bool = False) -> str:
        """The whole report as text; `width` in characters and `colour` are of the table."""
        if form is Format.JSON:
            return json.dumps(self._json(), indent=1) + "\n"
        if form is Format.CSV:
            return self._csv()
        return self._markdown() if form is Format.MARKDOWN else self._table(width, colour)

    def notes(self) -> Iterator[str]:
        """What a reader must know beside the numbers."""
        env = self.environment
        if env.busy:
            yield (
                f"THE MACHINE WAS BUSY: load average {env.load_before} on {len(env.pinned) or env.cores} cores at the "
                "start. Ratios of pairs hold better than times; measure again when it is quiet."
            )
        if any(row.model.untrained for row in self.rows):
            yield (
                "untrained: the published architecture with random weights, since the trained ones are not here. Times "
                "are those of the architecture; accuracy is not measured."
            )
        yield f"Inference at {self.size}. {self.threads} threads for each contender."
        yield (
            "Times are medians in milliseconds from the decoded image to labels of its size; spread is the "
            "interquartile range over the median. A ratio is the median of the pairs' ratios, and their range."
        )
        if any(row.facts and row.facts.provider.startswith("Paddle") for row in self.rows):
            yield "Paddle gets its input from segrt's own preprocessing; its run includes its upsampling and arg max."
        if timed := [row for row in self.rows if row.steps]:
            fastest = min(row.steps["total"].median for row in timed)
            harness = max(row.harness or 0 for row in timed)
            yield (
                f"Overhead of measuring: the clock adds {self.clock_ms:.4f} ms an image, {self.clock_ms / fastest:.4%} "
                f"of the fastest; the process that measures used at most {harness:.2%} of the CPU time."
            )
        for name, model in {row.model.name: row.model for row in self.rows}.items():
            if model.build_s is not None and model.export_s is not None:
                yield f"{name}: built in {model.build_s:.0f} s, converted and checked in {model.export_s:.0f} s."
        yield f"Machine: {env.cpu}, {', '.join([f'{env.cores} cores', *env.gpus])}, {env.memory_gib} GiB, {env.system}."
        pinned = (
            f"pinned to cores {', '.join(map(str, env.pinned))}" if env.pinned else "not pinned"
        )
        limit = f"{env.cgroup_cpus:g} cores" if env.cgroup_cpus else "none"
        yield (
            f"{pinned}; frequency governor {env.governor or 'not shown'}; control group's CPU limit: {limit}; load "
            f"average {env.load_before} before, {env.load_after} after."
        )
        yield (
            "Versions: "
            + ", ".join(f"{name} {number}" for name, number in env.libraries.items())
            + "."
        )
        yield f"Command: segrt-bench {self.command}"

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, head and rows of each table."""
        head = [
            "model",
            "mode",
            "runs on",
            "pre",
            "run",
            "post",
            "end to end",
            "p95",
            "spread",
            "images/s",
            "rounds",
        ]
        if any(row.baseline for row in self.rows):
            head += ["times as fast", "as", "same labels"]
        yield "Milliseconds an image", head, list(self._body(self._times, len(head)))
        yield (
            "Load, memory, size",
            [
                "model",
                "mode",
                "weights",
                "load s",
                "first image ms",
                "warm-up s",
                "peak MB",
                "file MB",
            ],
            [_cells(row, self._load) for row in self.rows if row.facts],
        )
        if any(row.confusion for row in self.rows):
            head = [
                "model",
                "mode",
                "runs on",
                "images",
                "mIoU %",
                "pixel accuracy %",
                "published mIoU %, its whole test set",
            ]
            yield "Accuracy", head, [_cells(row, _accuracy) for row in self.rows if row.confusion]
            yield from self._classes()
        specs = {
            row.model.name: row.model.spec
            for row in self.rows
            if row.model.spec and not row.model.spec.bundled
        }
        if specs:
            published = zoo.load().published
            yield (
                f"As published ({published.source}), for other hardware and an input size that is not stated: GPU "
                f"{published.gpu}, CPU {published.cpu}. Normal: {published.normal}; high-performance: "
                f"{published.high_performance}",
                [
                    "model",
                    "mIoU %",
                    "dataset",
                    "CPU ms, normal / high-perf.",
                    "GPU ms, normal / high-perf.",
                    "MB",
                ],
                [
                    [
                        n,
                        f"{s.miou:.2f}",
                        s.dataset.name,
                        _published(s.cpu_ms),
                        _published(s.gpu_ms),
                        _number(s.size_mb),
                    ]
                    for n, s in specs.items()
                    if s
                ],
            )

    def _body(self, cells: Any, width: int) -> Iterator[list[str]]:
        for row in self.rows:
            if row.steps:
                yield _cells(row, cells)
            if row.error:
                yield [row.model.name, row.contender, f"failed: {row.error}", *[""] * (width - 3)]

    def _times(self, row: Row) -> Iterator[str]:
        total = row.steps["total"]
        yield runs_on(row)
        yield from (_ms(row.steps[step].median) for step in STEPS)
        yield _ms(total.p95)
        yield f"{total.spread:.0%}"
        yield f"{1000 / total.median:.3g}"
        yield str(len(total.ms))
        if any(other.baseline for other in self.rows):
            yield (
                f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})"
                if row.ratio
                else ""
            )
            yield row.baseline or ""
            yield "" if row.agreement is None else f"{row.agreement:.3%}"

    def _load(self, row: Row) -> Iterator[str]:
        model, facts = row.model, row.facts
        assert facts
        yield model.weights
        yield f"{facts.load_s:.2f}"
        yield "" if row.first_ms is None else _ms(row.first_ms)
        yield _number(row.warm_up_s)
        yield _number(row.peak_bytes and row.peak_bytes / 1e6, 0)
        yield _number(file_bytes(row) / 1e6)

    def _classes(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        scored: dict[tuple[str, tuple[str, ...]], list[tuple[str, Any]]] = {}
        for row in self.rows:
            if row.confusion:
                scored.setdefault((row.model.name, row.class_names), []).append(
                    (row.contender, row.confusion.iou)
                )
        for (name, classes), columns in scored.items():
            body = [
                [cls, *(_percent(iou[i]) for _, iou in columns)] for i, cls in enumerate(classes)
            ]
            yield f"IoU by class, %: {name}", ["class", *(label for label, _ in columns)], body

    def _markdown(self) -> str:
        parts = ["# segrt-bench\n"]
        for title, head, body in self._tables():
            lines = [head, ["---"] * len(head), *body]
            cells = (
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                for line in lines
            )
            parts.append(f"{title}:\n\n" + "\n".join(cells) + "\n")
        parts.append("\n".join(f"- {note}" for note in self.notes()) + "\n")
        return "\n".join(parts)

    def _table(self, width: int, colour: bool) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(
            file=io.StringIO(), width=width, force_terminal=colour, no_color=not colour
        )
        for title, head, body in self._tables():
            table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
            for place, name in enumerate(head):
                table.add_column(
                    Text(name), justify="left" if place < 3 else "right", overflow="fold"
                )
            for line in body:
                table.add_row(*map(Text, line))
            console.print(table)
        for note in self.notes():
            console.print(Text(note))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

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
        }
        machine |= {
            "gpus": "; ".join(env.gpus),
            "governor": env.governor,
            "cgroup_cpus": env.cgroup_cpus,
        }
        machine |= {"load_before": env.load_before, "load_after": env.load_after}
        machine |= {
            "versions": " ".join(f"{name}={number}" for name, number in env.libraries.items())
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
    """Provider, precision and threads in a few characters."""
    if row.facts is None:
        return ""
    threads = row.facts.plan.get("threads")
    return f"{row.facts.provider.removesuffix('ExecutionProvider')} {row.facts.precision}" + (
        f" x{threads}" if threads else ""
    )


def file_bytes(row: Row) -> int:
    """Size on disk of what the row's contender loads, 0 where there is nothing."""
    if row.facts and row.facts.provider.startswith("Paddle") and row.model.paddle:
        return sum(
            p.stat().st_size
            for p in row.model.paddle.iterdir()
            if p.suffix in (".json", ".pdmodel", ".pdiparams")
        )
    return row.model.onnx.stat().st_size if row.model.onnx and row.model.onnx.is_file() else 0


def _cells(row: Row, rest: Any) -> list[str]:
    return [row.model.name, row.contender, *rest(row)]


def _accuracy(row: Row) -> Iterator[str]:
    assert row.confusion
    yield runs_on(row)
    yield str(row.images)
    yield _percent(row.confusion.miou)
    yield _percent(row.confusion.pixel_accuracy)
    yield f"{row.model.spec.miou:.2f}" if row.model.spec else ""


def _record(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
    spec, facts, matrix = row.model.spec, row.facts, row.confusion
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
        "file_bytes": file_bytes(row),
        "baseline": row.baseline,
        "ratio": row.ratio and _ratio(row.ratio),
        "label_agreement": row.agreement,
        "harness_share": row.harness,
        "build_s": row.model.build_s,
        "export_s": row.model.export_s,
    }
    if matrix:
        record["accuracy"] = {
            "images": row.images,
            "ignore_index": matrix.ignore_index,
            "miou": _finite(matrix.miou),
            "pixel_accuracy": _finite(matrix.pixel_accuracy),
            "iou": {
                name: _finite(value)
                for name, value in zip(row.class_names, matrix.iou, strict=True)
            },
            "confusion": matrix.counts.tolist(),
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
    """Nested keys joined with dots; lists, which a cell can't hold, are left out."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def _samples(samples: Samples) -> dict[str, Any]:
    return {
        "median": samples.median,
        "p95": samples.p95,
        "spread": samples.spread,
        "rounds": len(samples.ms),
        "all": [round(ms, 4) for ms in samples.ms],
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {
        "median": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "pairs": list(ratio.pairs),
    }


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
