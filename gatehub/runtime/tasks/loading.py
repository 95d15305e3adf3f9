"""How a task comes to be served: read, folded and checked off to the side, then published."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.adapter.probe import PROBE_IMAGES, check_probe, draw_probe_images
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import ExecutionError, SelfCheckError, TaskUnavailableError
from gatehub.gates.layout_plan import TaskPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.dtypes import dtype_name, tolerance
from gatehub.runtime.execution.execution import Execution, FoldedTask
from gatehub.runtime.execution.programs import size_of
from gatehub.runtime.tasks.catalogue import Catalogue
from gatehub.runtime.tasks.packed import PackedTask
from gatehub.runtime.tasks.reading import Reader
from gatehub.runtime.tasks.served import Served, TaskInfo
from gatehub.runtime.tasks.sources import Source
from gatehub.runtime.tasks.tiers import Tiers

# Behind any convolution, for the images of `_draw_images`. Ordinary images then do not leave the
# range of float32 and bfloat16, where packed kernels make numbers of NaN.
_LARGEST = 1e18


@dataclass(slots=True, kw_only=True, eq=False)
class _Flight:
    """One load that is under way.

    Args:
        task: the name.
        source: where from.
        generation: which load of the engine it is.
        read: set once the source has been read.
        withdrawn: whether the task was unloaded since.
        served: what came of it.
    """

    task: str
    source: Source
    generation: int
    read: threading.Event = field(default_factory=threading.Event)
    withdrawn: bool = False
    served: Future[Served] = field(default_factory=Future)


class Loader:
    """Loads tasks into a catalogue, each as a generation of its own.

    A load brings what lay at its source when it was asked for, or later. So it joins another that
    began after it was asked for, and waits for one that began before that, to load once more.

    Args:
        merged: the backbone.
        executions: one for each dtype that may be used, the preferred one first.
        reader: reads adapters.
        tiers: where weights are kept.
        catalogue: where tasks are published.
    """

    def __init__(
        self,
        merged: MergedBackbone,
        executions: Sequence[Execution],
        reader: Reader,
        tiers: Tiers,
        catalogue: Catalogue,
    ) -> None:
        self._merged = merged
        self._executions = executions
        self._reader = reader
        self._tiers = tiers
        self._catalogue = catalogue
        self._boarding = threading.Lock()
        # Those that others can join, by task and source, and all of them.
        self._flights: dict[tuple[str, object], _Flight] = {}
        self._under_way: set[_Flight] = set()
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
        since: int | None = None
        while True:
            with self._boarding:
                if source is None:  # read here: an unload comes before it, or finds the flight
                    served, place = self._catalogue.find(task), self._catalogue.place(task)
                    if served is not None:
                        return served  # another thread was faster
                    assert place is not None
                    named, since = place
                else:
                    named, since = source, self._generation if since is None else since
                flight = self._flights.get((task, named.key))
                if flight is None:
                    flight, mine = self._board(task, named), True
                else:
                    mine = False
            if mine:
                return self._fly(flight)
            if flight.generation > since or not named.lasting:
                return _join(flight, wait_s)
            if not flight.read.wait(wait_s):
                raise _late(task, wait_s)
            with self._boarding:  # what it read may be older than what is asked for
                if self._flights.get((task, named.key)) is flight:
                    del self._flights[task, named.key]

    def register(self, task: str, source: Source) -> None:
        """Name where a task is to be loaded from before it answers again."""
        with self._boarding:
            self._catalogue.register(task, source, loads=self._generation)

    def settle(self, task: str, *, wait_s: float) -> None:
        """Wait for the loads of a task that are under way, whatever becomes of them."""
        with self._boarding:
            flights = [flight.served for flight in self._under_way if flight.task == task]
        wait(flights, wait_s)

    def unload(self, task: str) -> None:
        """Take a task out; loads of it that have begun are answered, and not published any more.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        with self._boarding:
            gone = self._catalogue.remove(task)
            for flight in self._under_way:
                if flight.task == task:
                    flight.withdrawn = True
                    self._flights.pop((task, flight.source.key), None)
        if gone is not None:
            self._tiers.drop(gone)

    def _board(self, task: str, source: Source) -> _Flight:
        """Begin a load that others may join. Only while boarding is locked."""
        self._generation += 1
        flight = _Flight(task=task, source=source, generation=self._generation)
        self._flights[task, source.key] = flight
        self._under_way.add(flight)
        return flight

    def _fly(self, flight: _Flight) -> Served:
        """Load for all who have joined a flight."""
        try:
            with pin_settings():
                served = self._load(flight)
        except BaseException as error:
            flight.served.set_exception(error)
            raise
        else:
            flight.served.set_result(served)
            return served
        finally:
            flight.read.set()
            with self._boarding:
                self._under_way.discard(flight)
                key = (flight.task, flight.source.key)
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def _load(self, flight: _Flight) -> Served:
        """Publish a task in the first dtype in which it answers as it should."""
        packed, task = self._reader.read(flight.source), flight.task
        flight.read.set()
        plan = self._merged.plan_task(packed)
        for execution in self._executions:
            last = execution is self._executions[-1]
            if packed.probe is None and not last:
                continue  # without a probe nobody would notice what rounding does to it
            served = self._describe(flight, packed, plan, execution)
            images = _draw_images(packed)
            try:
                forms = execution.forms(len(images), size_of(images))
                with self._tiers.admitted(served, packed, forms) as folded:
                    _check(packed, execution, folded, images, task)
                    return self._publish(served, flight)
            except (ExecutionError, SelfCheckError):
                if last:
                    raise
        raise AssertionError("the last dtype is published or refused")

    def _publish(self, served: Served, flight: _Flight) -> Served:
        """Let a task be served, unless it was unloaded since; return what is served now."""
        with self._boarding:
            if flight.withdrawn:
                return served
            current, before = self._catalogue.publish(served)
            if before is not None:  # in the generations' order, or a pin would be left behind
                self._tiers.succeed(before, served)
        return current

    def _describe(
        self, flight: _Flight, packed: PackedTask, plan: TaskPlan, execution: Execution
    ) -> Served:
        source = flight.source
        return Served(
            info=TaskInfo(
                task=flight.task,
                labels=packed.labels,
                preprocessing=packed.preprocessing,
                digest=packed.digest,
                generation=flight.generation,
                backbone=self._merged.backbone.identity.name,
                dtype=dtype_name(execution.dtype),
                problem=packed.problem,
            ),
            source=source if source.lasting else None,
            file_digest=packed.file_digest,
            kept=None if source.lasting else packed,
            execution=execution,
            plan=plan,
            stem=execution.stem_key(plan),
            packed_bytes=packed.bytes,
        )


def _draw_images(packed: PackedTask) -> Tensor:
    """Return the images of a task's probe, then a black and a white one: (5, C, H, W) float32.

    What is silent for noise can answer to a flat picture, and the other way round.
    """
    preprocessing = packed.preprocessing
    probe = torch.from_numpy(draw_probe_images(packed.probe, preprocessing))
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    flat = torch.stack([(shade - mean) / std for shade in (0.0, 1.0)])
    return torch.cat([probe, flat.expand(-1, -1, *probe.shape[2:])])


def _check(
    packed: PackedTask, execution: Execution, folded: FoldedTask, images: Tensor, task: str
) -> None:
    """Refuse a task that answers its probe's images otherwise, or with numbers near their end.

    Args:
        images: from `_draw_images`.
    """
    logits, largest = execution.measure(folded, images)
    logits = logits[:PROBE_IMAGES]
    where = f"{packed.backbone.name} in {dtype_name(execution.dtype)}"
    allowed = tolerance(execution.dtype)
    check_probe(packed.probe, logits.numpy(), tolerance=allowed, task=task, where=where)
    if largest > _LARGEST and execution.dtype != torch.float16:
        raise SelfCheckError(
            f"Task {quote(task)} computes values of {largest:.1g} from ordinary images on {where}, "
            f"so others could leave the range of numbers; expected at most {_LARGEST:.0g}.",
            hint="Train it again at a lower rate.",
        )


def _join(flight: _Flight, wait_s: float | None) -> Served:
    """Wait for what another thread loads."""
    if not wait([flight.served], wait_s).done:
        raise _late(flight.task, wait_s)
    error = flight.served.exception()
    if error is not None and not isinstance(error, Exception):  # it was told to stop; we are not
        raise TaskUnavailableError(
            f"Task {quote(flight.task)} was being loaded by a thread that was stopped.",
            hint="Try again.",
        )
    return flight.served.result()


def _late(task: str, wait_s: float | None) -> TaskUnavailableError:
    return TaskUnavailableError(
        f"Task {quote(task)} was not loaded within {wait_s or 0:g} s; it is still being read.",
        hint="Try again.",
    )
