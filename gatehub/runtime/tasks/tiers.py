"""Where a task's weights are at this moment: folded, as gates in memory, or in a file or hub."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from gatehub.compiler.kernel_forms import KernelForms
from gatehub.errors import MemoryBudgetError
from gatehub.runtime.execution.channelwise import OnePass
from gatehub.runtime.execution.execution import Execution, FoldedTask
from gatehub.runtime.execution.shared_pass import ChannelTask
from gatehub.runtime.heap import return_free_memory
from gatehub.runtime.tasks.entries import TierReport, Wanted
from gatehub.runtime.tasks.haste import check_may_wait
from gatehub.runtime.tasks.packed import PackedTask
from gatehub.runtime.tasks.residency import Tier
from gatehub.runtime.tasks.served import Served

V = TypeVar("V")


class _InForms(NamedTuple):
    """What a task's folded weights are kept as."""

    task: Served
    forms: KernelForms


class Tiers:
    """Forms weights from gates, and reads gates from where they lie, within two budgets.

    Args:
        folded_bytes: budget of folded weights, and of the factors of tasks that share a pass.
        gates_bytes: budget of gates in memory.
        wait_s: how long to wait for room, or for another thread that makes the same thing.
        read_again: reads the gates of a task that has a source.
        is_current: whether a generation is still served.
        executions: what runs tasks.
    """

    def __init__(
        self,
        *,
        folded_bytes: int | None,
        gates_bytes: int | None,
        wait_s: float,
        read_again: Callable[[Served], PackedTask],
        is_current: Callable[[Served], bool],
        executions: Iterable[Execution],
    ) -> None:
        self._folded: Tier[FoldedTask | ChannelTask] = Tier(
            "folded", budget_bytes=folded_bytes, wait_s=wait_s
        )
        self._gates: Tier[PackedTask] = Tier("gates", budget_bytes=gates_bytes, wait_s=wait_s)
        self._read_again = read_again
        self._is_current = is_current
        self._stirred = False
        for execution in executions:
            execution.when_sizes_go(partial(self._forget, execution))

    @contextmanager
    def folded(
        self, tasks: Sequence[Served], forms: Sequence[KernelForms]
    ) -> Iterator[list[FoldedTask]]:
        """Hold the folded weights of tasks for the length of a with block.

        Those of a pinned task are in other forms where these have no room or cannot be made; so are
        those of any task that these are too large for. They answer the same, but perhaps slowly.

        Args:
            tasks: any; several are taken together or not at all.
            forms: that each task's weights are wanted in.
        """
        with ExitStack() as held:
            try:
                values = held.enter_context(self._folded.lease(self._want_all(tasks, forms)))
            except MemoryBudgetError:
                usual = [task.execution.forms() for task in tasks]
                if len(tasks) > 1 or usual == list(forms):
                    raise
                values = held.enter_context(self._folded.lease(self._want_all(tasks, usual)))
            yield values  # type: ignore[misc]
        self._return_memory()

    @contextmanager
    def admitted(
        self, task: Served, packed: PackedTask, forms: KernelForms
    ) -> Iterator[FoldedTask]:
        """Hold both the folded weights and the gates of a task that is not yet served.

        Nothing of it is visible to others, and nothing of it can go before the block ends.
        Folded weights come first, as for requests: who waits for them holds no gates that
        another who holds folded weights waits for.

        Args:
            task: from no other call.
            packed: its gates, which have just been read.
            forms: that its weights are wanted in.
        """
        with ExitStack() as gates:

            def fold() -> FoldedTask:
                held = gates.enter_context(self._hold_gates(task, packed))
                return task.execution.fold(held, task.plan, forms)

            wanted = [self._want_folded(task, forms, fold)]
            # What was taken last is let go first.
            with self._folded.lease(wanted) as (folded,), gates.pop_all():
                yield folded  # type: ignore[misc]
        self._return_memory()

    @contextmanager
    def channels(self, tasks: Sequence[Served], shared: OnePass) -> Iterator[list[ChannelTask]]:
        """Hold what tasks have of their own in a shared pass, for the length of a with block."""
        wanted = [self._want_channels(task, shared) for task in tasks]
        with self._folded.lease(wanted) as values:
            yield values  # type: ignore[misc]

    def pin(self, task: Served) -> None:
        """Keep a task folded, whatever comes, at least in the forms that were used last."""
        self._folded.pin(task)

    def unpin(self, task: Served) -> None:
        """Let a task be unfolded when room is needed."""
        self._folded.unpin(task)

    def evict(self, task: Served) -> bool:
        """Let a task's folded weights and factors go now, unless they are pinned or in use."""
        gone = [self._folded.evict(group) for group in (task, _factors_of(task))]
        return any(gone)

    def succeed(self, before: Served, after: Served) -> None:
        """Let a task's next generation take its place: a pin goes over, everything else goes."""
        if self._folded.is_pinned(before):
            self._folded.pin(after)
        self.drop(before)

    def drop(self, task: Served) -> None:
        """Let go of a generation that is not served any more, at the end of its last request."""
        for group in (task, _factors_of(task)):
            self._folded.drop(group)
        self._gates.drop(task)

    def reports(self) -> tuple[TierReport, ...]:
        """Say how both tiers stand."""
        return self._folded.report(), self._gates.report()

    def _forget(self, execution: Execution, in_use: Collection[KernelForms]) -> None:
        """Let go of weights in forms that no image size wants any more."""

        def is_stale(key: Hashable) -> bool:
            if not isinstance(key, _InForms) or key.task.execution is not execution:
                return False
            return key.forms not in in_use

        self._folded.forget(is_stale)
        self._stirred = True

    def _return_memory(self) -> None:
        """Give back what was evicted, and what folding and reordering needed meanwhile."""
        if self._stirred and return_free_memory(every_s=5.0):
            self._stirred = False

    def _want_all(
        self, tasks: Sequence[Served], forms: Sequence[KernelForms]
    ) -> list[Wanted[FoldedTask | ChannelTask]]:
        def fold(task: Served, forms: KernelForms) -> FoldedTask:
            with self._hold_gates(task) as gates:
                return task.execution.fold(gates, task.plan, forms)

        return [
            self._want_folded(task, form, partial(fold, task, form))
            for task, form in zip(tasks, forms, strict=True)
        ]

    def _want_folded(
        self, task: Served, forms: KernelForms, fold: Callable[[], FoldedTask]
    ) -> Wanted[FoldedTask | ChannelTask]:
        def make() -> FoldedTask:
            self._stirred = True
            return fold()

        size = task.execution.count_bytes(task.plan, forms)
        return self._want(task, key=_InForms(task, forms), group=task, size=size, make=make)

    def _want_channels(self, task: Served, shared: OnePass) -> Wanted[FoldedTask | ChannelTask]:
        def make() -> ChannelTask:
            with self._hold_gates(task) as gates:
                return task.execution.shared.factors(shared, gates, task.plan)

        size = task.execution.shared.count_bytes(shared, task.plan)
        key = _factors_of(task)
        return self._want(task, key=key, group=key, size=size, make=make)

    @contextmanager
    def _hold_gates(self, task: Served, packed: PackedTask | None = None) -> Iterator[PackedTask]:
        """Hold a task's gates; `packed` if they have just been read."""

        def make() -> PackedTask:
            found = packed or task.kept
            if found is None:
                check_may_wait()
                found = self._read_again(task)
            return found

        wanted = self._want(task, key=task, group=task, size=task.packed_bytes, make=make)
        with self._gates.lease([wanted]) as (value,):
            if task.kept is not None:
                self._gates.pin(task)  # it could not come back
            yield value

    def _want(
        self, task: Served, *, key: Hashable, group: Hashable, size: int, make: Callable[[], V]
    ) -> Wanted[V]:
        return Wanted(
            key=key,
            group=group,
            bytes=size,
            make=make,
            alive=lambda: self._is_current(task),
            name=f"task '{task.info.task}'",
        )


def _factors_of(task: Served) -> Hashable:
    """Return what a task's factors are kept as, beside its folded weights."""
    return "channels", task
