"""What the engine promises, in plain words: no tensors, no threads, no locks.

An operation is a generator. It yields where a real request can be held up while others go on:
"pull" while a hub sends an adapter, and "pass" as images enter the network. It returns what its
caller is told, and raises what its caller must be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gatehub.errors import (
    GatehubError,
    HubUnreachableError,
    MemoryBudgetError,
    MissingFileError,
    SelfCheckError,
    TaskNotFoundError,
    TaskUnavailableError,
)
from tests.runtime.facts import Facts
from tests.runtime.tasks.plain_tier import PlainTier, Steps, T

# ("object", which adapter), ("folder", which) or ("hub", which folder it sends).
Source = tuple[str, int]
# Task, generation and digest: what an answer says of where it comes from.
Told = tuple[str, int, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Generation:
    """One load of one task."""

    task: str
    number: int
    facts: Facts
    source: Source

    @property
    def told(self) -> Told:
        return self.task, self.number, self.facts.digest


# A name in `Facts`, and whose it is.
Key = tuple[str, Generation]


class PlainEngine:
    """An engine that only keeps the books.

    Args:
        adapters: those that can be handed over as objects.
        folders: what lies in each, or how a load from there fails; others change it.
        folded: budget of folded weights, in bytes.
        gates: budget of gates, in bytes.

    Attributes:
        loads: the newest generation under way, by task and source.
        reading: those whose source is being read.
    """

    def __init__(
        self,
        adapters: Sequence[Facts],
        folders: Sequence[Facts | type[GatehubError]],
        *,
        folded: int,
        gates: int,
    ) -> None:
        self.adapters, self.folders = adapters, folders
        self.served: dict[str, Generation] = {}
        # Where a task is to be loaded from, and how many loads had begun when that was said.
        self.known: dict[str, tuple[Source, int]] = {}
        self.loads: dict[tuple[str, Source], int] = {}
        self.reading: set[int] = set()
        self.withdrawn: set[int] = set()
        self.generations = 0
        self.under_way: dict[int, str] = {}
        self.folded: PlainTier[Key] = PlainTier("folded", folded, self._is_current)
        self.gates: PlainTier[Key] = PlainTier("gates", gates, self._is_current)

    def load(self, task: str, source: Source) -> Steps[Told]:
        return (yield from self._load(task, source)).told

    def register(self, task: str, source: Source) -> Steps[None]:
        self.known[task] = (source, self.generations)
        yield from ()

    def unload(self, task: str) -> Steps[None]:
        if task not in self.served and task not in self.known:
            raise TaskNotFoundError("No such task.")
        self.known.pop(task, None)
        self.withdrawn |= {number for number, name in self.under_way.items() if name == task}
        self.loads = {key: number for key, number in self.loads.items() if key[0] != task}
        gone = self.served.pop(task, None)
        if gone is not None:
            self._drop(gone)
        yield from ()

    def run(self, task: str, image: int) -> Steps[list[Told]]:
        def answer(found: dict[str, Generation]) -> Steps[list[Told]]:
            yield from self._hold("folded", [found[task]], _enter)
            return [found[task].told]

        return (yield from self._answer([task], answer))

    def run_mixed(self, asked: Sequence[tuple[str, int]]) -> Steps[list[Told]]:
        def answer(found: dict[str, Generation]) -> Steps[list[Told]]:
            for group in _by_stem(found.values()):
                shared = len(group) > 1 and group[0].facts.factors > 0
                yield from self._in_parts("factors" if shared else "folded", group)
            return [found[task].told for task, _ in asked]

        return (yield from self._answer([task for task, _ in asked], answer))

    def run_all(self, tasks: Sequence[str], image: int) -> Steps[list[Told]]:
        def answer(found: dict[str, Generation]) -> Steps[list[Told]]:
            for group in _by_stem(found.values()):
                yield from self._in_parts("folded", group)
            return [generation.told for generation in found.values()]

        return (yield from self._answer(tasks, answer))

    def pin(self, task: str) -> Steps[None]:
        found = yield from self._find(task)

        def pin() -> Steps[None]:
            self.folded.pins.add(("folded", found))
            yield from ()

        yield from self._hold("folded", [found], pin)
        if self.served.get(task) is not found:  # it was replaced or unloaded meanwhile
            yield from self.pin(task)

    def unpin(self, task: str) -> Steps[None]:
        found = self._present(task)
        if found is not None:
            self.folded.pins.discard(("folded", found))
        yield from ()

    def evict(self, task: str) -> Steps[bool]:
        found = self._present(task)
        yield from ()
        if found is None:
            return False
        gone = [self.folded.evict((part, found)) for part in ("folded", "factors")]
        return any(gone)

    def prefetch(self, tasks: Sequence[str]) -> Steps[None]:
        for task in tasks:
            found = yield from self._find(task)
            yield from self._hold("folded", [found], _nothing)

    def _answer(
        self, tasks: Iterable[str], answer: Callable[[dict[str, Generation]], Steps[T]]
    ) -> Steps[T]:
        """Answer with the present generations; with their successors, if those came meanwhile."""
        while True:
            found = {}
            for task in tasks:
                found[task] = yield from self._find(task)
            try:
                return (yield from answer(found))
            except TaskUnavailableError:
                if all(self.served.get(task) is generation for task, generation in found.items()):
                    raise

    def _look(self, task: str) -> Generation | None:
        """What answers for a task, None if it is to be loaded first."""
        if task in self.known:
            return None
        if task not in self.served:
            raise TaskNotFoundError("No such task.")
        return self.served[task]

    def _present(self, task: str) -> Generation | None:
        """What is in memory of a task, though it may be about to be replaced."""
        self._look(task)
        return self.served.get(task)

    def _find(self, task: str) -> Steps[Generation]:
        found = self._look(task)
        if found is not None:
            return found
        source, since = self.known[task]
        return (yield from self._load(task, source, since))

    def can_load(self, task: str, source: Source) -> bool:
        """Whether a load from there need not wait for another one, which may read what is old."""
        newest = self.loads.get((task, source))
        return newest is None or (source[0] != "object" and newest not in self.reading)

    def _load(self, task: str, source: Source, since: int | None = None) -> Steps[Generation]:
        newest = self.loads.get((task, source))
        joins = newest is not None and since is not None and newest > since
        if joins or not self.can_load(task, source):
            raise TaskUnavailableError("Another request loads it.")
        self.generations += 1
        number = self.loads[task, source] = self.generations
        self.under_way[number] = task
        try:
            self.reading.add(number)
            facts = yield from self._read(source)
            self.reading.discard(number)
            new = Generation(task=task, number=number, facts=facts, source=source)

            def publish() -> Steps[Generation]:
                return (yield from self._hold_gates(new, lambda: self._publish(new), read=True))

            return (yield from self._hold("folded", [new], publish, holds_gates=True))
        finally:
            self.reading.discard(number)
            del self.under_way[number]
            if self.loads.get((task, source)) == number:
                del self.loads[task, source]

    def _publish(self, new: Generation) -> Steps[Generation]:
        yield "pass"
        if not new.facts.sound:
            raise SelfCheckError("It answers something else.")
        if new.number in self.withdrawn:
            return new  # the task was unloaded since
        before = self.served.get(new.task)
        if before is not None and before.number > new.number:
            return before
        self.served[new.task] = new
        if new.task in self.known and self.known[new.task][1] < new.number:
            del self.known[new.task]
        if before is not None:
            if ("folded", before) in self.folded.pins:
                self.folded.pins.add(("folded", new))
            self._drop(before)
        return new

    def _drop(self, gone: Generation) -> None:
        self.folded.drop(("folded", gone))
        self.folded.drop(("factors", gone))
        self.gates.drop(("gates", gone))

    def _is_current(self, key: Key) -> bool:
        _, generation = key
        return self.served.get(generation.task) is generation

    def _read(self, source: Source) -> Steps[Facts]:
        kind, number = source
        if kind == "object":
            return self.adapters[number]
        if kind == "hub":
            yield "pull"
            if self.folders[number] is MissingFileError:
                raise HubUnreachableError("It has no such adapter.")
        found = self.folders[number]
        if isinstance(found, Facts):
            return found
        raise found("It is not sound.")

    def _hold(
        self,
        part: str,
        tasks: Sequence[Generation],
        use: Callable[[], Steps[T]],
        *,
        holds_gates: bool = False,
    ) -> Steps[T]:
        """Hold folded weights or factors of tasks, whose gates `use` may hold itself."""

        def make(key: Key) -> Steps[None]:
            return _nothing() if holds_gates else self._hold_gates(key[1], _nothing)

        wanted = {(part, task): getattr(task.facts, part) for task in tasks}
        return self.folded.lease(wanted, make, use)

    def _hold_gates(
        self, task: Generation, use: Callable[[], Steps[T]], *, read: bool = False
    ) -> Steps[T]:
        """Hold a task's gates; `read` if they are at hand."""
        key, is_object = ("gates", task), task.source[0] == "object"

        def make(_: Key) -> Steps[None]:
            if not (read or is_object):
                facts = yield from self._read(task.source)
                if facts.digest != task.facts.digest:
                    raise TaskUnavailableError("Another adapter lies there.")

        def pin() -> Steps[T]:
            if is_object:  # it could not come back
                self.gates.pins.add(key)
            return (yield from use())

        return self.gates.lease({key: task.facts.gates}, make, pin)

    def _in_parts(self, part: str, tasks: Sequence[Generation]) -> Steps[None]:
        """Run tasks together, or as many at a time as there is room for."""
        try:
            return (yield from self._hold(part, tasks, _enter))
        except MemoryBudgetError:
            if len(tasks) == 1 and part == "factors":
                return (yield from self._in_parts("folded", tasks))
            if len(tasks) == 1:
                raise
        middle = len(tasks) // 2
        yield from self._in_parts(part, tasks[:middle])
        yield from self._in_parts(part, tasks[middle:])


def _enter() -> Steps[None]:
    yield "pass"


def _nothing() -> Steps[None]:
    yield from ()


def _by_stem(tasks: Iterable[Generation]) -> list[list[Generation]]:
    groups: dict[int, list[Generation]] = {}
    for task in tasks:
        groups.setdefault(task.facts.stem, []).append(task)
    return list(groups.values())
