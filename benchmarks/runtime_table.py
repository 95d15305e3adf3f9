"""Figures of the runtime, what they must reach, and the table of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from benchmarks.runtime_load import LoadPoint
from benchmarks.timing import Timing, time_in_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    Args:
        what: is measured.
        value: of it.
        unit: of the value.
        noise: by how much of itself the value may be off; 0 where nothing was timed.
        at_least: what it must reach, or None.
        at_most: what it must not exceed, or None.
        note: what else is to be known.
    """

    what: str
    value: float
    unit: str
    noise: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is what it must be."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


class Report:
    """Timings by section, and the figures drawn from them."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.sections: dict[str, dict[str, Timing]] = {}
        self._section = ""

    @property
    def holds(self) -> bool:
        """Whether every figure is what it must be."""
        return all(figure.holds for figure in self.figures)

    def begin(self, section: str) -> None:
        """Put what is timed from now on into a section."""
        self._section = section
        self.sections[section] = {}

    def time(
        self, runs: Mapping[str, Callable[[], object]], *, rounds: int
    ) -> Mapping[str, Timing]:
        """Time functions in turn, and keep the timings."""
        times = time_in_turn(runs, rounds=rounds)
        self.sections[self._section] |= times
        return times

    def ratio(
        self,
        what: str,
        above: Timing,
        below: Timing,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
    ) -> None:
        """Add the ratio of two times; its noise is that of both."""
        self.figures.append(
            Figure(
                what=what,
                value=above.median_ms / below.median_ms,
                unit="x",
                noise=above.spread + below.spread,
                at_least=at_least,
                at_most=at_most,
                note=note,
            )
        )

    def figure(
        self,
        what: str,
        value: float,
        *,
        unit: str,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure that is no ratio of times."""
        self.figures.append(
            Figure(what=what, value=value, unit=unit, at_least=at_least, at_most=at_most)
        )


def render(report: Report, points: Sequence[LoadPoint], *, plot: Path | None) -> str:
    """Return the report as Markdown."""
    lines = [
        "# The runtime, measured",
        "",
        "    python -m benchmarks.runtime --table benchmarks/runtime.md",
        "",
        f"torch {torch.__version__.split('+')[0]}, timm {timm.__version__}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} threads, {processor()}. Random "
        "weights, images of 224 x 224. Everything is timed in turn within one process; medians. "
        "*Noise* is the sum of both times' spread (half the distance between quartiles).",
        "",
        "| what | figure | noise | must be | holds |",
        "|---|---|---|---|---|",
    ]
    for figure in report.figures:
        bound = ""
        if figure.at_least is not None:
            bound = f"≥ {figure.at_least:.4g}"
        if figure.at_most is not None:
            bound = f"≤ {figure.at_most:.4g}"
        holds = ("yes" if figure.holds else "**no**") if bound else figure.note
        noise = f"± {100 * figure.noise:.0f} %" if figure.noise else ""
        lines.append(
            f"| {figure.what} | {figure.value:.3g} {figure.unit} | {noise} | {bound} | {holds} |"
        )
    if points:
        lines += [
            "",
            "## Many tasks",
            "",
            "Requests of 8 images, one after the other, at full gates; room for 16 folded tasks, "
            "all others as gates in memory.",
            "",
        ]
        if plot is not None:
            lines += [f"![Requests a second and latency over the number of tasks]({plot.name})", ""]
        lines += [
            "| tasks | pattern | requests/s | p50 ms | p99 ms | found folded | MB folded | gates |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {p.tasks} | {p.pattern} | {p.requests_s:.1f} | {p.p50_ms:.1f} | {p.p99_ms:.1f} | "
            f"{100 * p.hit_rate:.0f} % | {p.folded_bytes / 1e6:.0f} | {p.gates_bytes / 1e6:.0f} |"
            for p in points
        ]
    lines += ["", "## Every time"]
    for section, times in report.sections.items():
        if times:
            lines += ["", f"### {section}", "", "| what | median ms | spread |", "|---|---|---|"]
            lines += [
                f"| {what} | {t.median_ms:.3g} | {100 * t.spread:.1f} % |"
                for what, t in times.items()
            ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Return the name of the processor, and what it has for matrices."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if unit in flags]
    return f"{names[0] if names else platform.machine()} ({', '.join(units[:2])})"
