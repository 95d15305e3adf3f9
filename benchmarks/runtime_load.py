"""Requests for many tasks, evenly and by Zipf's law, with room for 16 folded ones."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.runtime_tasks import make_adapter, random_images
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Engine

COUNTS = (1, 10, 100, 1000)
FOLDED = 16
BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One load.

    Args:
        tasks: how many.
        pattern: "uniform" or "zipf" (exponent 1).
        requests_s: requests of 8 images a second, one after the other.
        p50_ms: half of them took no longer.
        p99_ms: 99 of 100 took no longer.
        hit_rate: share of requests that found their task folded.
        folded_bytes: of folded weights at the end.
        gates_bytes: of gates in memory.
    """

    tasks: int
    pattern: str
    requests_s: float
    p50_ms: float
    p99_ms: float
    hit_rate: float
    folded_bytes: int
    gates_bytes: int


def run_loads(backbone: Backbone, *, requests: int) -> list[LoadPoint]:
    """Answer `requests` requests at each number of tasks and pattern, in slices that take turns."""
    adapters = [make_adapter(backbone, seed=n).as_stored("float16") for n in range(FOLDED)]
    sizing = Engine(backbone, dtype="float32")
    sizing.load("task", adapters[0])
    budget = FOLDED * sizing.memory()[0].bytes
    images = random_images(BATCH, backbone)
    loads = []
    for tasks in COUNTS:
        for pattern in ("uniform", "zipf"):
            engine = Engine(backbone, dtype="float32", folded_bytes=budget)
            for number in range(tasks):
                # Each task holds gates of its own; that values recur costs and saves nothing.
                engine.load(f"task{number}", adapters[number % FOLDED])
            loads.append((tasks, pattern, engine, _draw(pattern, tasks)))
    seconds: list[list[float]] = [[] for _ in loads]
    for _, _, engine, names in loads:
        for _ in range(requests // 3):
            engine.prefetch(next(names))  # so that what is folded at first is what is asked for
    before = [engine.memory()[0] for _, _, engine, _ in loads]
    slices = 10
    for _ in range(slices):
        for taken, (_, _, engine, names) in zip(seconds, loads, strict=True):
            for _ in range(requests // slices):
                task = next(names)
                began = time.perf_counter()
                engine.predict(task, images)
                taken.append(time.perf_counter() - began)
    points = []
    for (tasks, pattern, engine, _), taken, then in zip(loads, seconds, before, strict=True):
        folded, gates = engine.memory()
        hits, misses = folded.hits - then.hits, folded.misses - then.misses
        p50, p99 = np.percentile(np.array(taken) * 1e3, [50, 99])
        points.append(
            LoadPoint(
                tasks=tasks,
                pattern=pattern,
                requests_s=len(taken) / sum(taken),
                p50_ms=float(p50),
                p99_ms=float(p99),
                hit_rate=hits / (hits + misses),
                folded_bytes=folded.bytes,
                gates_bytes=gates.bytes,
            )
        )
    return points


def draw_plot(points: Sequence[LoadPoint], path: Path) -> None:
    """Draw requests a second and latencies over the number of tasks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for pattern, colour in (("uniform", "tab:orange"), ("zipf", "tab:blue")):
        some = [point for point in points if point.pattern == pattern]
        counts = [point.tasks for point in some]
        left.plot(counts, [p.requests_s for p in some], "o-", color=colour, label=pattern)
        right.plot(counts, [p.p50_ms for p in some], "o-", color=colour, label=f"{pattern}, p50")
        right.plot(counts, [p.p99_ms for p in some], "o:", color=colour, label=f"{pattern}, p99")
    left.set_ylabel("requests of 8 images a second")
    right.set_ylabel("milliseconds for a request")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel(f"tasks, of which {FOLDED} stay folded")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw(pattern: str, tasks: int) -> Iterator[str]:
    generator = random.Random(0)
    names = [f"task{number}" for number in range(tasks)]
    weights = [1 / (rank + 1) if pattern == "zipf" else 1.0 for rank in range(tasks)]
    while True:
        yield from generator.choices(names, weights, k=1000)
