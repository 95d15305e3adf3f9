"""A tier of memory in plain words: what it holds, who uses it, and what goes for what.

A request is a generator: it yields where it can be held up while others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Mapping
from typing import Generic, TypeVar

from gatehub.errors import MemoryBudgetError, TaskUnavailableError
from gatehub.runtime.tasks.entries import TierReport

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Steps = Generator[str, None, T]


class PlainTier(Generic[K]):
    """Keys and their bytes, for requests that never wait.

    Args:
        name: of the tier.
        budget: in bytes.
        alive: whether what a key stands for may stay after its last use.

    Attributes:
        held: bytes by key, the least used first.
        users: how many requests hold each.
        making: what a request that is held up has yet to make.
        pins: what stays whatever comes; all of it is held.
    """

    def __init__(self, name: str, budget: int, alive: Callable[[K], bool]) -> None:
        self.name, self.budget, self.alive = name, budget, alive
        self.held: dict[K, int] = {}
        self.users: Counter[K] = Counter()
        self.making: set[K] = set()
        self.pins: set[K] = set()
        self.hits = self.misses = self.evictions = 0

    def lease(
        self,
        wanted: Mapping[K, int],
        make: Callable[[K], Steps[None]],
        use: Callable[[], Steps[T]],
    ) -> Steps[T]:
        """Hold all of some keys, made where they are missing, while they are used."""
        missing = self._take(wanted)
        try:
            for key in missing:
                yield from make(key)
                self.making.remove(key)
            if self.making & wanted.keys():
                raise TaskUnavailableError("Another request makes it.")
            return (yield from use())
        finally:
            self.users.subtract(wanted.keys())
            for key in wanted:
                if not self.users[key] and (key in self.making or not self.alive(key)):
                    self.making.discard(key)
                    self.drop(key)

    def evict(self, key: K) -> bool:
        """Let a key go, if it is there and may."""
        going = key in self.held and not self.users[key] and key not in self.pins
        if going:
            del self.held[key]
            self.evictions += 1
        return going

    def drop(self, key: K) -> None:
        """Let a key go that is no longer alive, unless it is used."""
        self.pins.discard(key)
        if not self.users[key]:
            self.held.pop(key, None)

    def report(self) -> TierReport:
        """Say what a real tier must say."""
        return TierReport(
            name=self.name,
            bytes=sum(self.held.values()),
            budget_bytes=self.budget,
            entries=len(self.held),
            pinned=len(self.pins),
            leased=sum(count > 0 for count in self.users.values()),
            hits=self.hits,
            stand_ins=0,  # here each thing has one form
            misses=self.misses,
            evictions=self.evictions,
        )

    def _take(self, wanted: Mapping[K, int]) -> list[K]:
        """Make room for keys, count them as used, and return those that are missing."""
        pinned = sum(self.held[key] for key in self.pins if key not in wanted)
        if pinned + sum(wanted.values()) > self.budget:
            raise MemoryBudgetError("It would not fit, whatever else went.")
        missing = [key for key in wanted if key not in self.held]
        room = self.budget - sum(self.held.values()) - sum(wanted[key] for key in missing)
        going = []
        for key in self.held:
            if room < 0 and not self.users[key] and key not in self.pins | wanted.keys():
                going.append(key)
                room += self.held[key]
        if room < 0:
            raise TaskUnavailableError("All the rest is in use.")
        for key in going:
            self.evict(key)
        for key, size in wanted.items():
            self.held[key] = self.held.pop(key, size)
        self.users.update(wanted.keys())
        self.making.update(missing)
        self.misses += len(missing)
        self.hits += len(wanted) - len(missing)
        return missing
