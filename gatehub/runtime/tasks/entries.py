"""What a tier keeps: values that are wanted, those that are there, and how all of them stand."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gatehub.runtime.durations import DurationReport, Durations

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted(Generic[V]):
    """A value that a lease is asked for.

    Args:
        key: what it is known by.
        group: what it is a form of. Once that is pinned, any other form of it may take its place.
        bytes: what it takes, or will take once it is made.
        make: makes it; called by one thread at a time, outside any lock.
        alive: whether it may stay after its last lease.
        name: for errors.
    """

    key: Hashable
    group: Hashable
    bytes: int
    make: Callable[[], V]
    alive: Callable[[], bool]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReport:
    """How a tier stands.

    Args:
        name: of the tier.
        bytes: held now, values in the making included.
        budget_bytes: that it keeps to; None for no limit.
        entries: how many values.
        pinned: how many of them stay whatever comes: one of each group that is pinned.
        leased: how many of them are in use.
        hits: leases that found a value.
        stand_ins: those of them that took another of its group, since there was no room for it.
        misses: leases that had to make it.
        evictions: values that had to go for others.
        made: how long it took to make values, in seconds.
    """

    name: str
    bytes: int
    budget_bytes: int | None
    entries: int
    pinned: int
    leased: int
    hits: int
    stand_ins: int
    misses: int
    evictions: int
    # Times differ from run to run, and are no part of what a tier holds.
    made: DurationReport = field(default_factory=lambda: Durations().report(), compare=False)


class Entry(Generic[V]):
    """A value that is there or in the making: who holds it, and what became of it."""

    __slots__ = ("alive", "bytes", "error", "group", "key", "leases", "ready", "used", "value")

    def __init__(self, wanted: Wanted[V]) -> None:
        self.key, self.group = wanted.key, wanted.group
        self.bytes = wanted.bytes
        self.alive = wanted.alive
        self.value: V | None = None
        self.error: BaseException | None = None
        self.ready = False
        self.leases = 0
        self.used = 0
