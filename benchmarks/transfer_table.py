"""What benchmarks.transfer found, as Markdown and as a plot."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks.runtime_table import processor

Result = dict[str, Any]
PROBE = "linear"


def render_table(results: Sequence[Result], *, picture: Path | None) -> str:
    """Return the whole page: a table for each backbone and size."""
    lines = [
        "# Methods on small tasks",
        "",
        "    python -m benchmarks.transfer WEIGHTS DATA --table benchmarks/transfer.md",
        "",
        "Accuracy in % on test images that neither trained nor chose anything: the mean over the "
        "draws that the second row counts, and ± the sample standard deviation over them. All "
        "methods begin with the same linear probe (*linear*), find their rates in the same way, "
        "take the same number of steps and keep an epoch by the same validation images; all is "
        "default. *mean gain* is over *linear*, of the tasks that the row has all of. "
        f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, one "
        f"thread, {processor()}.",
    ]
    for backbone, size in sorted({(r["backbone"], r["size"]) for r in results}):
        rows = [r for r in results if (r["backbone"], r["size"]) == (backbone, size)]
        lines += ["", f"## {backbone}, {size} pixels", "", *_tabulate(rows)]
    if picture is not None:
        lines += ["", f"![Accuracy against numbers learned and bytes stored]({picture.name})"]
    return "\n".join(lines) + "\n"


def _tabulate(rows: Sequence[Result]) -> list[str]:
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    draws = {task: _seeds(r for r in rows if r["task"] == task) for task in tasks}
    lines = [
        f"| method | numbers learned | bytes | {' | '.join(tasks)} | mean gain | time |",
        "|---|---|---|" + "---|" * (len(tasks) + 2),
        f"| draws | | | {' | '.join(str(len(draws[task])) for task in tasks)} | | |",
    ]
    probes = {(r["task"], r["seed"]): r for r in rows if r["method"] == PROBE}
    gated = {(r["task"], r["seed"]): r["seconds"] for r in rows if r["method"] == "gates"}
    for method in methods:
        own = [r for r in rows if r["method"] == method]
        cells, gains = [], []
        for task in tasks:
            found = [100 * r["accuracy"] for r in own if r["task"] == task]
            missing = draws[task] - _seeds(r for r in own if r["task"] == task)
            if not found or missing:
                cells.append("")
                continue
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}")
            of = [100 * probes[task, seed]["accuracy"] for seed in draws[task]]
            gains.append(statistics.mean(found) - statistics.mean(of))
        gain = f"{statistics.mean(gains):+.1f}" if len(gains) == len(tasks) else ""
        times = [r["seconds"] / gated[r["task"], r["seed"]] for r in own if _key(r) in gated]
        smaller = method.startswith("gates, ") and any(n in method for n in ("int", "sign"))
        time = f"{statistics.median(times):.2f} x" if times and not smaller else ""
        numbers, size = (_range(own, what) for what in ("parameters", "bytes"))
        lines.append(f"| {method} | {numbers} | {size} | {' | '.join(cells)} | {gain} | {time} |")
    return [*lines, "", "*time* is processor time of the whole run against that of *gates*."]


def _seeds(rows: Iterable[Result]) -> set[int]:
    return {r["seed"] for r in rows}


def _key(row: Result) -> tuple[str, int]:
    return row["task"], row["seed"]


def _run(row: Result) -> tuple[str, int, str, int]:
    return row["backbone"], row["size"], row["task"], row["seed"]


def _range(rows: Sequence[Result], what: str) -> str:
    least, most = min(r[what] for r in rows), max(r[what] for r in rows)
    shown = list(dict.fromkeys(f"{number / 1e3:,.0f}" for number in (least, most)))
    return " to ".join(shown) + (" kB" if what == "bytes" else " k")


def draw_table_plot(results: Sequence[Result], table: Path) -> Path | None:
    """Draw mean gain over the probe against numbers learned and against bytes."""
    rows = [r for r in results if r["method"] != PROBE]
    if not rows:
        return None
    matplotlib.use("Agg")
    probes = {_run(r): r["accuracy"] for r in results if r["method"] == PROBE}
    rows = [r for r in rows if _run(r) in probes]
    figure = Figure(figsize=(11.2, 4.6), dpi=100, layout="constrained")
    for axes, what, label in zip(
        figure.subplots(1, 2),
        ("parameters", "bytes"),
        ("numbers learned", "bytes of the file of tensors"),
        strict=True,
    ):
        for method in dict.fromkeys(r["method"] for r in rows):
            own = [r for r in rows if r["method"] == method]
            gains = [100 * (r["accuracy"] - probes[_run(r)]) for r in own]
            axes.scatter(
                statistics.mean(r[what] for r in own), statistics.mean(gains), label=method, s=48
            )
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("points above the linear probe, mean")
    figure.axes[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    picture = table.with_suffix(".png")
    figure.savefig(picture)
    return picture
