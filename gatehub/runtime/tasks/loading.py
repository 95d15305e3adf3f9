"""How a task comes to be served: read, folded and checked off to the side, then published."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import torch

from gatehub.adapter.probe import check_probe, draw_images
from gatehub.errors import ExecutionError, SelfCheckError, TaskUnavailableError
from gatehub.gates.layout_plan import TaskPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.dtypes import dtype_name, tolerance
from gatehub.runtime.execution.execution import Execution, FoldedTask
from gatehub.runtime.tasks.catalogue import Catalogue
from gatehub.runtime.tasks.packed import PackedTask, Packer
from gatehub.runtime.tasks.served import Served, TaskInfo
from gatehub.runtime.tasks.sources import Source
from gatehub.runtime.tasks.tiers import Tiers


class Loader:
    """Loads tasks into a catalogue, each as a generation of its own.

    Args:
        merged: the backbone.
        executions: one for each dtype that may be used, the preferred one first.
        packer: packs adapters.
        tiers: where weights are kept.
        catalogue: where tasks are published.
    """

    def __init__(
        self,
        merged: MergedBackbone,
        executions: Sequence[Execution],
        packer: Packer,
        tiers: Tiers,
        catalogue: Catalogue,
    ) -> None:
        self._merged = merged
        self._executions = executions
        self._packer = packer
        self._tiers = tiers
        self._catalogue = catalogue
        self._boarding = threading.Lock()
        self._flights: dict[tuple[str, object], Future[Served]] = {}
        self._generation = 0

    def load(
        self, task: str, source: Source | None = None, *, wait_s: float | None = None
    ) -> Served:
        """Load a task, or wait for who is loading the same one.

        Args:
            task: the name.
            source: where from; None for where it is registered.
            wait_s: how long to wait for another; None for as long as it takes.

        Returns:
            What is served now: this load, or one that began later and was faster.

        Raises:
            TaskNotFoundError: it is not registered.
            TaskUnavailableError: another thread loads it, and takes longer than that.
        """
        with self._boarding:
            if source is None:  # read here: an unload comes before it, or finds the flight
                source = self._catalogue.source(task)
            key = (task, source.key)
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
                self._generation += 1
                generation = self._generation
        if not mine:
            try:
                return flight.result(wait_s)
            except FutureTimeoutError:
                raise TaskUnavailableError(
                    f"Task '{task}' was not loaded within {wait_s:g} s; it is still being read.",
                    hint="Try again.",
                ) from None
        try:
            served = self._load(task, source, generation, flight)
        except BaseException as error:
            flight.set_exception(error)
            raise
        else:
            flight.set_result(served)
            return served
        finally:
            with self._boarding:
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def unload(self, task: str) -> None:
        """Take a task out; loads of it that have begun are answered, and not published any more.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        with self._boarding:
            gone = self._catalogue.remove(task)
            for key in [key for key in self._flights if key[0] == task]:
                del self._flights[key]
        if gone is not None:
            self._tiers.drop(gone)

    def _load(self, task: str, source: Source, generation: int, flight: Future[Served]) -> Served:
        """Publish a task in the first dtype in which it answers as it should."""
        packed = self._packer.pack(source.read())
        plan = self._merged.plan_task(packed)
        for execution in self._executions:
            last = execution is self._executions[-1]
            if packed.probe is None and not last:
                continue  # without a probe nobody would notice what rounding does to it
            served = self._describe(task, packed, plan, source, execution, generation)
            try:
                with self._tiers.admitted(served, packed) as folded:
                    self._check(packed, execution, folded, task)
                    return self._publish(served, (task, source.key), flight)
            except (ExecutionError, SelfCheckError):
                if last:
                    raise
        raise AssertionError("the last dtype is published or refused")

    def _publish(self, served: Served, key: tuple[str, object], flight: Future[Served]) -> Served:
        """Let a task be served, unless it was unloaded since; return what is served now."""
        with self._boarding:
            if self._flights.get(key) is not flight:
                return served
            current, before = self._catalogue.publish(served)
            if before is not None:  # in the generations' order, or a pin would be left behind
                self._tiers.succeed(before, served)
        return current

    def _describe(
        self,
        task: str,
        packed: PackedTask,
        plan: TaskPlan,
        source: Source,
        execution: Execution,
        generation: int,
    ) -> Served:
        return Served(
            info=TaskInfo(
                task=task,
                labels=packed.labels,
                preprocessing=packed.preprocessing,
                digest=packed.digest,
                generation=generation,
                backbone=self._merged.backbone.identity.name,
                dtype=dtype_name(execution.dtype),
            ),
            source=source if source.lasting else None,
            kept=None if source.lasting else packed,
            execution=execution,
            plan=plan,
            stem=execution.stem_key(plan),
            packed_bytes=packed.bytes,
            folded_bytes=execution.count_bytes(plan),
        )

    def _check(
        self, packed: PackedTask, execution: Execution, folded: FoldedTask, task: str
    ) -> None:
        """Hold a task's answers against its probe."""
        if packed.probe is None:
            return
        images = torch.from_numpy(draw_images(packed.probe.seed, packed.preprocessing))
        check_probe(
            packed.probe,
            execution.run(folded, images).numpy(),
            tolerance=tolerance(execution.dtype),
            task=task,
            where=f"{packed.backbone.name} in {dtype_name(execution.dtype)}",
        )
