"""How often something took how long, in a few numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

# From a fold that is half done in 0.5 ms to a hub that takes a minute; a network's pass on a CPU
# lies in the middle, where they stand closest.
BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1),
    *(0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationReport:
    """A histogram.

    Args:
        bounds: in ascending order, in the unit of what was observed.
        counts: how many were at most as large as each bound; and last, how many there were.
        total: the sum of all of them.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Durations:
    """Counts durations by a few bounds. Not locked: one thread at a time observes.

    Args:
        bounds: in ascending order.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def report(self) -> DurationReport:
        """Say how many there were, and how long."""
        return DurationReport(
            bounds=self._bounds, counts=tuple(accumulate(self._counts)), total=self._total
        )
