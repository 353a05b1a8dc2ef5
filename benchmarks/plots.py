"""The pictures of the tables. This provider has one colour in all of them, what it is compared with is grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from adapters import LABELS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import PICTURES, ROOT

OURS, OTHERS = "#6d3bbf", "#9aa0a6"
PARTS = {
    "scheduler": "#4e79a7",
    "workers": "#f28e2b",
    "api-server": "#59a14f",
    "triggerer": "#6d3bbf",
    "dag-processor": "#bab0ac",
    "database": "#e15759",
}

Row = Mapping[str, Any]


def draw_waiting(table: Sequence[Row]) -> None:
    """Draw CPU, lateness and memory of each way to wait that brought all to an end, for each number of predictions."""
    figures = (
        ("cpu_per_1000", "CPU seconds per 1,000 polls"),
        ("delay_p99", "seconds until an end is noticed, p99"),
        ("memory_growth", "MB over the null run"),
    )
    counts = sorted({row["count"] for row in table})
    picture, rows_of_axes = plt.subplots(
        len(counts), len(figures), figsize=(13, 0.9 + 2.2 * len(counts)), squeeze=False, layout="constrained"
    )
    for count, row_of_axes in zip(counts, rows_of_axes, strict=True):
        of_count = [row for row in reversed(table) if row["count"] == count and not row["failures"]]
        for axes, (name, title) in zip(row_of_axes, figures, strict=True):
            _bars(
                axes,
                [LABELS[row["adapter"]] for row in of_count],
                [row[name] for row in of_count],
                [row["adapter"].startswith("provider") for row in of_count],
            )
            axes.set_title(f"{count:,} predictions: {title}", fontsize=9, loc="left")
    picture.suptitle("Waiting in one event loop, polls every 5 s, TLS (shorter is better)", x=0.01, ha="left")
    _save(picture, "waiting")


def draw_imports(table: Sequence[Row]) -> None:
    """Draw what each module costs to import."""
    picture, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
    rows = list(reversed(table))
    names = [row["name"] for row in rows]
    _bars(axes, names, [row["milliseconds"] for row in rows], [name == "this provider" for name in names])
    axes.set_title("Import of the operators' module over airflow.sdk, CPU milliseconds", fontsize=10, loc="left")
    _save(picture, "imports")


def draw_end_to_end(table: Sequence[Row]) -> None:
    """Draw the CPU seconds by component, and the makespan, of each mode."""
    picture, (cpu, makespan) = plt.subplots(
        1, 2, figsize=(12, 2.8), width_ratios=(2, 1), sharey=True, layout="constrained"
    )
    rows = list(reversed(table))
    names = [row["mode"].replace("_", " ") for row in rows]
    left = [0.0] * len(rows)
    for part, colour in PARTS.items():
        values = [row["cpu"].get(part, 0.0) for row in rows]
        cpu.barh(names, values, left=left, color=colour, label=part)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for name, total in zip(names, left, strict=True):
        cpu.annotate(f" {total:.0f}", (total, name), va="center", fontsize=9)
    cpu.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    cpu.set_title(f"CPU seconds of Airflow for {rows[0]['rows']} predictions", fontsize=10, loc="left")
    _bars(makespan, names, [row["makespan"] for row in rows], ["provider" in row["mode"] for row in rows])
    makespan.set_title("seconds until all are done", fontsize=10, loc="left")
    cpu.spines[["top", "right"]].set_visible(False)
    _save(picture, "end-to-end")


def draw_batch(table: Sequence[Row], ideal: float) -> None:
    """Draw the workers' CPU seconds and the makespan of the same rows as one batch and as mapped tasks.

    :param ideal: seconds that the gateway alone takes for the batch.
    """
    picture, (cpu, makespan) = plt.subplots(1, 2, figsize=(11, 1.8), sharey=True, layout="constrained")
    rows = list(reversed(table))
    names = [row["label"] for row in rows]
    ours = [row["mode"] == "batch" for row in rows]
    _bars(cpu, names, [row["cpu"]["workers"] for row in rows], ours)
    cpu.set_title(f"CPU seconds of the workers for {rows[0]['rows']} pictures", fontsize=10, loc="left")
    _bars(makespan, names, [row["makespan"] for row in rows], ours)
    makespan.axvline(ideal, color=OTHERS, linestyle=":", linewidth=1)
    makespan.set_title("seconds until all are stored (dotted: the gateway alone)", fontsize=10, loc="left")
    _save(picture, "batch")


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], ours: Sequence[bool]) -> None:
    axes.barh(names, values, color=[OURS if own else OTHERS for own in ours])
    for name, value in zip(names, values, strict=True):
        axes.annotate(f" {value:,.0f}" if value >= 100 else f" {value:.3g}", (value, name), va="center", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)


def _save(picture: Figure, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    file = PICTURES / f"{name}.png"
    picture.savefig(file, dpi=130)
    plt.close(picture)
    print(f"Drawn: {file.relative_to(ROOT)}")
