"""Timings of several things in turn, so that what the machine does meanwhile meets all of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one thing took.

    Args:
        median_ms: milliseconds, the median of all rounds.
        spread: half the distance between the quartiles, as a share of the median.
    """

    median_ms: float
    spread: float


def time_in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Run each function once in each round, in an order that is drawn anew.

    Between two of them is a pause: thread pools go on spinning, ONNX Runtime's for more than 20 ms,
    and would slow down whoever comes next.

    Args:
        runs: functions by name.
        rounds: how often each is timed.
        warm_up: how often each runs before.
        clock: in seconds. `time.process_time` counts what one thread computes, also where others
            use the processor.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(list(runs), len(runs)):
            time.sleep(PAUSE_S)
            began = clock()
            runs[name]()
            seconds[name].append(clock() - began)
    return {name: _summarise(taken) for name, taken in seconds.items()}


def _summarise(seconds: list[float]) -> Timing:
    low, median, high = statistics.quantiles(seconds, n=4)
    return Timing(median_ms=median * 1e3, spread=(high - low) / 2 / median)
