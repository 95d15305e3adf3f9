"""What stays in memory: values of known size under a byte budget, the least used first to go.

Nothing here knows of tensors or tasks. A value is made at its first lease, by one thread however
many ask; it cannot go while it is leased or pinned; and several leases are taken together or not
at all, so that no two requests can wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from gatehub.errors import MemoryBudgetError, TaskUnavailableError
from gatehub.runtime.tasks.entries import Entry, TierReport, Wanted

V = TypeVar("V")


class Tier(Generic[V]):
    """Values under one budget.

    Args:
        name: for errors and reports.
        budget_bytes: never exceeded, counted with values in the making; None for no limit.
        wait_s: how long a lease waits for room, or for another thread that makes the value.
    """

    def __init__(self, name: str, *, budget_bytes: int | None, wait_s: float) -> None:
        self._name = name
        self._budget = budget_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._entries: dict[Hashable, Entry[V]] = {}
        self._pins: set[Hashable] = set()
        self._bytes = 0
        self._clock = 0
        self._hits = self._misses = self._evictions = 0

    @contextmanager
    def lease(self, wanted: Sequence[Wanted[V]]) -> Iterator[list[V]]:
        """Hold values for the length of a with block, all of them or none.

        Raises:
            MemoryBudgetError: they do not fit the budget, whatever else goes.
            TaskUnavailableError: there was no room for them in time, or who makes one hangs.
        """
        deadline = time.monotonic() + self._wait_s
        entries, mine = self._reserve(wanted, deadline)
        try:
            self._make_all(mine)
            yield [self._await(want, entries[want.key], deadline) for want in wanted]
        finally:
            self._release(entries)

    def pin(self, key: Hashable) -> None:
        """Keep a value whatever comes, once it is there."""
        with self._changed:
            self._pins.add(key)

    def unpin(self, key: Hashable) -> None:
        """Let a value go again when room is needed."""
        with self._changed:
            self._pins.discard(key)
            self._changed.notify_all()

    def is_pinned(self, key: Hashable) -> bool:
        """Whether a value is to be kept."""
        with self._changed:
            return key in self._pins

    def evict(self, key: Hashable) -> bool:
        """Let a value go now; False if it is pinned, in use or not there."""
        with self._changed:
            entry = self._entries.get(key)
            if entry is None or entry.leases or key in self._pins:
                return False
            self._remove(key)
            self._evictions += 1
            self._changed.notify_all()
            return True

    def drop(self, key: Hashable) -> None:
        """Forget a value that is no longer alive, now or at the end of its last lease."""
        with self._changed:
            self._pins.discard(key)
            entry = self._entries.get(key)
            if entry is not None and not entry.leases:
                self._remove(key)
                self._changed.notify_all()

    def report(self) -> TierReport:
        """Say how the tier stands."""
        with self._changed:
            entries = self._entries.items()
            return TierReport(
                name=self._name,
                bytes=self._bytes,
                budget_bytes=self._budget,
                entries=len(self._entries),
                pinned=sum(key in self._pins for key, _ in entries),
                leased=sum(entry.leases > 0 for _, entry in entries),
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    def _reserve(
        self, wanted: Sequence[Wanted[V]], deadline: float
    ) -> tuple[dict[Hashable, Entry[V]], list[tuple[Wanted[V], Entry[V]]]]:
        """Take leases on all values at once; return those that this thread has to make."""
        distinct = {want.key: want for want in wanted}
        with self._changed:
            self._check_possible(distinct)
            while not self._make_room(distinct):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TaskUnavailableError(
                        f"No room for {_names(distinct)} among the {self._name} tasks within "
                        f"{self._wait_s:g} s: all of them are in use or pinned.",
                        hint="Raise the budget, or unpin a task.",
                    )
            mine = []
            for key, want in distinct.items():
                entry = self._entries.get(key)
                if entry is None:
                    entry = self._entries[key] = Entry(want)
                    self._bytes += want.bytes
                    self._misses += 1
                    mine.append((want, entry))
                else:
                    self._hits += 1
                self._clock += 1
                entry.used = self._clock
                entry.leases += 1
            return {key: self._entries[key] for key in distinct}, mine

    def _check_possible(self, distinct: dict[Hashable, Wanted[V]]) -> None:
        if self._budget is None:
            return
        need = sum(want.bytes for want in distinct.values())
        pinned = sum(
            entry.bytes
            for key, entry in self._entries.items()
            if key in self._pins and key not in distinct
        )
        if need + pinned > self._budget:
            raise MemoryBudgetError(
                f"{_begin(_names(distinct))} would take {need:,} bytes {self._name}, of "
                f"{self._budget - pinned:,} that are not pinned by other tasks.",
                hint="Raise the budget, or unpin a task.",
            )

    def _make_room(self, distinct: dict[Hashable, Wanted[V]]) -> bool:
        """Evict what is needed for the missing values, or nothing if that is not enough."""
        if self._budget is None:
            return True
        need = sum(want.bytes for key, want in distinct.items() if key not in self._entries)
        excess = self._bytes + need - self._budget
        if excess <= 0:
            return True
        idle = [
            (entry.used, key)
            for key, entry in self._entries.items()
            if not entry.leases and key not in self._pins and key not in distinct
        ]
        going = []
        for _, key in sorted(idle, key=lambda pair: pair[0]):
            if excess <= 0:
                break
            going.append(key)
            excess -= self._entries[key].bytes
        if excess > 0:
            return False
        for key in going:
            self._remove(key)
            self._evictions += 1
        return True

    def _make_all(self, mine: Sequence[tuple[Wanted[V], Entry[V]]]) -> None:
        """Give each entry its value or its error, whatever becomes of the others.

        Others may wait for an entry that this thread took, so none is left without an end.
        """
        failed: BaseException | None = None
        for want, entry in mine:
            if failed is not None and self._give_up(want, entry, failed, unless_wanted=True):
                continue
            try:
                value = want.make()
            except BaseException as error:
                failed = failed or error
                self._give_up(want, entry, error)
            else:
                with self._changed:
                    entry.value, entry.ready = value, True
                    self._changed.notify_all()
        if failed is not None:
            raise failed

    def _give_up(
        self,
        want: Wanted[V],
        entry: Entry[V],
        error: BaseException,
        *,
        unless_wanted: bool = False,
    ) -> bool:
        """End an entry with an error.

        Args:
            want: what it was for.
            entry: in the making by this thread.
            error: what its waiters get.
            unless_wanted: not if others wait for it, and this thread can go on.

        Returns:
            Whether it was ended.
        """
        with self._changed:
            if unless_wanted and entry.leases > 1 and isinstance(error, Exception):
                return False
            entry.error = error
            if self._entries.get(want.key) is entry:
                self._remove(want.key)
            self._changed.notify_all()
            return True

    def _await(self, want: Wanted[V], entry: Entry[V], deadline: float) -> V:
        """Return a value once it is there, whoever makes it."""
        with self._changed:
            while not entry.ready:
                if isinstance(entry.error, Exception):
                    raise entry.error
                if entry.error is not None:  # who was making it was told to stop; we are not
                    raise TaskUnavailableError(
                        f"{_begin(want.name)} was being loaded by a thread that was stopped.",
                        hint="Try again.",
                    )
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TaskUnavailableError(
                        f"{_begin(want.name)} was not ready within {self._wait_s:g} s; it is "
                        "being loaded.",
                        hint="Try again.",
                    )
            return cast(V, entry.value)

    def _release(self, entries: dict[Hashable, Entry[V]]) -> None:
        with self._changed:
            for key, entry in entries.items():
                entry.leases -= 1
                present = self._entries.get(key) is entry
                if present and not entry.leases and not (entry.ready and entry.alive()):
                    self._pins.discard(key)
                    self._remove(key)
            self._changed.notify_all()

    def _remove(self, key: Hashable) -> None:
        self._bytes -= self._entries.pop(key).bytes


def _names(distinct: dict[Hashable, Wanted[V]]) -> str:
    names = [want.name for want in distinct.values()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _begin(name: str) -> str:
    """Begin a sentence with a name, whose own capitals stay."""
    return name[:1].upper() + name[1:]
