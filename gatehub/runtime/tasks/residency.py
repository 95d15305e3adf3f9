"""What stays in memory: values of known size under a byte budget, the least used first to go.

Nothing here knows of tensors or tasks. A value is made at its first lease, by one thread however
many ask; it cannot go while it is leased or pinned; and several leases are taken together or not
at all, so that no two requests can wait for each other.

Values of one group are forms of one thing, each of which can take the place of the others. Of a
group that is pinned one value stays, so whoever wants another that has no room gets that one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from gatehub.errors import GatehubError, MemoryBudgetError, TaskUnavailableError
from gatehub.runtime.durations import Durations
from gatehub.runtime.tasks.entries import Entry, TierReport, Wanted
from gatehub.runtime.tasks.haste import NotAtOnceError, check_may_wait, is_hurried
from gatehub.runtime.tasks.room import (
    Room,
    begin,
    count_least,
    find_room,
    find_stand_ins,
    join_names,
    list_idle,
)

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
        self._made = Durations()
        self._hits = self._stand_ins = self._misses = self._evictions = 0

    @contextmanager
    def lease(self, wanted: Sequence[Wanted[V]]) -> Iterator[list[V]]:
        """Hold values for the length of a with block, all of them or none.

        Where a value of a pinned group has no room or cannot be made, another that is there takes
        its place.

        Raises:
            MemoryBudgetError: they do not fit the budget, whatever else goes.
            TaskUnavailableError: there was no room for them in time, or who makes one hangs.
        """
        deadline = time.monotonic() + self._wait_s
        distinct = {want.key: want for want in wanted}
        held = self._hold(distinct, deadline)
        try:
            yield [cast(V, held[want.key].value) for want in wanted]
        finally:
            self._release(held.values())

    def pin(self, group: Hashable) -> None:
        """Keep one value of a group whatever comes, once it is there: the one used last."""
        with self._changed:
            self._pins.add(group)

    def unpin(self, group: Hashable) -> None:
        """Let the values of a group go again when room is needed."""
        with self._changed:
            self._pins.discard(group)
            self._changed.notify_all()

    def is_pinned(self, group: Hashable) -> bool:
        """Whether a value of a group is to be kept."""
        with self._changed:
            return group in self._pins

    def evict(self, group: Hashable) -> bool:
        """Let the values of a group go now; False if it is pinned, or all are in use or gone."""
        with self._changed:
            going = [] if group in self._pins else self._idle(group)
            self._remove(going)
            self._evictions += len(going)
            return bool(going)

    def drop(self, group: Hashable) -> None:
        """Forget a group that is no longer alive, now or at the end of its last lease."""
        with self._changed:
            self._pins.discard(group)
            self._remove(self._idle(group))

    def forget(self, stale: Callable[[Hashable], bool]) -> None:
        """Let values go by their keys where nobody uses them, but the last of a pinned group."""
        with self._changed:
            ranked = sorted(self._entries.values(), key=lambda e: (not stale(e.key), e.used))
            self._remove([e for e in list_idle(ranked, self._pins) if stale(e.key)])

    def report(self) -> TierReport:
        """Say how the tier stands."""
        with self._changed:
            entries = self._entries.values()
            return TierReport(
                name=self._name,
                bytes=self._bytes,
                budget_bytes=self._budget,
                entries=len(self._entries),
                pinned=len(self._pins & {entry.group for entry in entries}),
                leased=sum(entry.leases > 0 for entry in entries),
                hits=self._hits,
                stand_ins=self._stand_ins,
                misses=self._misses,
                evictions=self._evictions,
                made=self._made.report(),
            )

    def _hold(
        self, distinct: dict[Hashable, Wanted[V]], deadline: float
    ) -> dict[Hashable, Entry[V]]:
        """Take leases on values, or on those that stand in for them."""
        sparing = False
        while True:
            try:
                return self._take(distinct, deadline, sparing)
            except NotAtOnceError:
                if is_hurried():
                    raise  # else it was another thread that had no time to make it
            except GatehubError:
                with self._changed:
                    if sparing or not find_stand_ins(distinct, self._entries, self._pins):
                        raise
                sparing = True

    def _take(
        self, distinct: dict[Hashable, Wanted[V]], deadline: float, sparing: bool
    ) -> dict[Hashable, Entry[V]]:
        """Take leases on values and see to it that all are there; return them by what is wanted."""
        held, mine = self._reserve(distinct, deadline, sparing)
        try:
            self._make_all(mine)
            for key, entry in held.items():
                self._await(distinct[key], entry, deadline)
        except BaseException:
            self._release(held.values())
            raise
        return held

    def _reserve(
        self, distinct: dict[Hashable, Wanted[V]], deadline: float, sparing: bool
    ) -> tuple[dict[Hashable, Entry[V]], list[tuple[Wanted[V], Entry[V]]]]:
        """Take leases on all values at once; return those to make, too."""
        with self._changed:
            while (room := self._find_room(distinct, sparing)) is None:
                self._check_possible(distinct)
                check_may_wait()
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TaskUnavailableError(
                        f"No room for {join_names(distinct)} among the {self._name} tasks within "
                        f"{self._wait_s:g} s: all of them are in use or pinned.",
                        hint="Raise the budget, or unpin a task.",
                    )
            if any(e and not e.ready for e in map(self._entries.get, room.taken.values())):
                check_may_wait()
            self._remove(room.going)
            self._evictions += len(room.going)
            held, mine = {}, []
            for key, want in distinct.items():
                taken = room.taken[key]
                entry = self._entries.get(taken)
                if entry is None:
                    entry = self._entries[key] = Entry(want)
                    self._bytes += want.bytes
                    self._misses += 1
                    mine.append((want, entry))
                else:
                    self._hits += 1
                    self._stand_ins += taken != key
                self._clock += 1
                entry.used = self._clock
                entry.leases += 1
                held[key] = entry
            return held, mine

    def _find_room(self, distinct: dict[Hashable, Wanted[V]], sparing: bool) -> Room[V] | None:
        free = math.inf if self._budget is None else self._budget - self._bytes
        return find_room(distinct, self._entries, self._pins, free, sparing=sparing)

    def _check_possible(self, distinct: dict[Hashable, Wanted[V]]) -> None:
        if self._budget is None:
            return
        need, kept = count_least(distinct, self._entries, self._pins)
        if need + kept > self._budget:
            raise MemoryBudgetError(
                f"{begin(join_names(distinct))} would take {need:,} bytes {self._name}, of "
                f"{self._budget - kept:,} that are not pinned by other tasks.",
                hint="Raise the budget, or unpin a task.",
            )

    def _make_all(self, mine: Sequence[tuple[Wanted[V], Entry[V]]]) -> None:
        """Give each entry its value or its error, whatever becomes of the others.

        Others may wait for an entry that this thread took, so none is left without an end.
        """
        failed: BaseException | None = None
        for want, entry in mine:
            if failed is not None and self._give_up(want, entry, failed, unless_wanted=True):
                continue
            began = time.monotonic()
            try:
                value = want.make()
            except BaseException as error:
                failed = failed or error
                self._give_up(want, entry, error)
            else:
                with self._changed:
                    self._made.observe(time.monotonic() - began)
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
                self._remove([entry])
            self._changed.notify_all()
            return True

    def _await(self, want: Wanted[V], entry: Entry[V], deadline: float) -> None:
        """Wait for a value, whoever makes it."""
        with self._changed:
            while not entry.ready:
                if isinstance(entry.error, Exception):
                    raise entry.error
                if entry.error is not None:  # who was making it was told to stop; we are not
                    stopped = f"{begin(want.name)} was being loaded by a thread that was stopped."
                    raise TaskUnavailableError(stopped, hint="Try again.")
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TaskUnavailableError(
                        f"{begin(want.name)} was not ready within {self._wait_s:g} s; it is "
                        "being loaded.",
                        hint="Try again.",
                    )

    def _release(self, entries: Iterable[Entry[V]]) -> None:
        with self._changed:
            for entry in entries:
                entry.leases -= 1
                if entry.leases or self._entries.get(entry.key) is not entry:
                    continue
                alive = entry.alive()
                if not alive:
                    self._pins.discard(entry.group)
                if not (alive and entry.ready):
                    self._remove([entry])
            self._changed.notify_all()

    def _idle(self, group: Hashable) -> list[Entry[V]]:
        return [e for e in self._entries.values() if e.group == group and not e.leases]

    def _remove(self, entries: Iterable[Entry[V]]) -> None:
        for entry in entries:
            del self._entries[entry.key]
            self._bytes -= entry.bytes
            self._changed.notify_all()
