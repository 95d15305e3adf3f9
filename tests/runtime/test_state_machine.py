"""Loads, pins, evictions and requests in any order, some of them held up, against a plain engine.

Nothing here races: a request that is held up stands still in its own thread until it is let go,
so that what goes wrong goes wrong again, and can be cut down to the steps it takes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from gatehub import _places
from gatehub.adapter import Adapter
from gatehub.compiler.kernel_forms import KernelForms
from gatehub.errors import (
    DigestMismatchError,
    GatehubError,
    HubUnreachableError,
    MissingFileError,
)
from gatehub.runtime.engine import Answer, Engine, TaskInfo
from gatehub.runtime.execution import programs
from gatehub.runtime.execution.programs import Recorded
from tests.runtime.facts import Facts, make_setting
from tests.runtime.held_up import HeldUp, outcome
from tests.runtime.plain_engine import PlainEngine, Source, Told
from tests.runtime.tasks.plain_tier import Steps

FOLDERS, IMAGES = 3, 3

anyone = st.sampled_from(["a", "b", "c"])
served = st.runner().flatmap(lambda machine: st.sampled_from(machine.names() or ["nobody"]))
tasks = st.one_of(served, served, served, anyone)
images = st.integers(0, IMAGES - 1)
folders = st.integers(0, FOLDERS - 1)
adapters = st.integers(0, 7)  # the last one does not answer its probe
places = st.tuples(st.sampled_from(["folder", "hub"]), folders)
objects = st.tuples(st.just("object"), adapters)
sources = st.one_of(places, places, places, objects)
stops = st.sampled_from([None, "pull", "pass"])


def advance(steps: Steps[object], point: str | None) -> tuple[bool, object]:
    """Let the plain engine go on to a point; say whether it stands there, or its outcome."""
    try:
        while next(steps) != point:
            pass
    except StopIteration as end:
        return False, end.value
    except GatehubError as error:
        return False, type(error)
    return True, None


class EngineMachine(RuleBasedStateMachine):
    """An engine and the plain one. Whatever is asked, both say the same and hold the same."""

    @initialize(
        folded=st.sampled_from([2.2, 1.2, 3.2]),
        gates=st.sampled_from([1.3, 1.0, 1.8]),
        saved=st.lists(adapters, min_size=FOLDERS, max_size=FOLDERS),
        sources=st.lists(sources, min_size=2, max_size=3),
    )
    def make(self, folded: float, gates: float, saved: list[int], sources: list[Source]) -> None:
        self._place = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        # A task takes as much memory again for each order in which a processor wants its kernels.
        self.patch.setattr(programs, "find_forms", lambda *_, **__: KernelForms())
        self.at = make_setting(adapters=7, images=IMAGES)
        facts = self.at.facts
        budgets = {
            "folded": int(folded * max(one.folded for one in facts)),
            "gates": int(gates * max(one.gates for one in facts)),
        }
        self.plain = PlainEngine(facts, [MissingFileError] * FOLDERS, **budgets)
        self.engine = Engine(
            self.at.backbone,
            dtype="float32",
            folded_bytes=budgets["folded"],
            gates_bytes=budgets["gates"],
            wait_s=0,
        )
        self.held_up: list[tuple[HeldUp, Steps[object]]] = []
        self.newest: dict[str, int] = {}
        self.patch.setattr(_places, "_pull", self._pull)
        enter = Recorded.enter

        def enter_late(recorded: Recorded, given: Tensor) -> Tensor:
            HeldUp.pass_by("pass")
            return enter(recorded, given)

        self.patch.setattr(Recorded, "enter", enter_late)
        for folder, adapter in enumerate(saved):
            self.change(folder, adapter)
        for task, source in zip("abc", sources, strict=False):
            self.load(task, source, None)

    def names(self) -> list[str]:
        return sorted({*self.plain.served, *self.plain.known})

    def teardown(self) -> None:
        if not hasattr(self, "patch"):
            return
        try:
            while self.held_up:
                self._let_go(0)
            self.memory_holds_what_it_should_and_no_more()
            self.what_is_served_is_what_was_loaded_last()
        finally:
            for call, _ in self.held_up:
                call.let_go()
            self.patch.undo()
            self._place.cleanup()

    @rule(task=anyone, source=sources, stop=stops)
    def load(self, task: str, source: Source, stop: str | None) -> None:
        if self.plain.can_load(task, source):  # it would wait for another one
            call = partial(self._load, task, source)
            self._ask(call, self.plain.load(task, source), stop)

    @rule(task=served, source=places, stop=stops)
    def replace(self, task: str, source: Source, stop: str | None) -> None:
        self.load(task, source, stop)

    @rule(task=anyone, source=places)
    def register(self, task: str, source: Source) -> None:
        call = partial(self.engine.register, task, self._open(source))
        self._ask(call, self.plain.register(task, source))

    @precondition(lambda self: len(self.names()) > 1)  # with none there is little to see
    @rule(task=tasks)
    def unload(self, task: str) -> None:
        self._ask(partial(self.engine.unload, task), self.plain.unload(task))

    @rule(task=tasks, image=images, stop=stops)
    def run(self, task: str, image: int, stop: str | None) -> None:
        def call() -> list[Told]:
            answer = self.engine.run(task, self._images([image]))
            return self._check([(answer, image)], exact=True)

        self._ask(call, self.plain.run(task, image), stop)

    @rule(asked=st.lists(st.tuples(served, images), min_size=1, max_size=5), stop=stops)
    def run_mixed(self, asked: list[tuple[str, int]], stop: str | None) -> None:
        def call() -> list[Told]:
            given = [image for _, image in asked]
            answers = self.engine.run_mixed([task for task, _ in asked], self._images(given))
            return self._check(list(zip(answers, given, strict=True)))

        self._ask(call, self.plain.run_mixed(asked), stop)

    @rule(some=st.lists(served, min_size=1, max_size=4), image=images, stop=stops)
    def run_all(self, some: list[str], image: int, stop: str | None) -> None:
        def call() -> list[Told]:
            answers = self.engine.run_all(self._images([image]), some)
            assert list(answers) == list(dict.fromkeys(some))
            return self._check([(answer, image) for answer in answers.values()])

        self._ask(call, self.plain.run_all(some, image), stop)

    @rule(task=tasks, stop=stops)
    def pin(self, task: str, stop: str | None) -> None:
        self._ask(partial(self.engine.pin, task), self.plain.pin(task), stop)

    @rule(task=tasks)
    def unpin(self, task: str) -> None:
        self._ask(partial(self.engine.unpin, task), self.plain.unpin(task))

    @rule(task=tasks)
    def evict(self, task: str) -> None:
        self._ask(partial(self.engine.evict, task), self.plain.evict(task))

    @rule(some=st.lists(served, min_size=1, max_size=4), stop=stops)
    def prefetch(self, some: list[str], stop: str | None) -> None:
        self._ask(partial(self.engine.prefetch, *some), self.plain.prefetch(some), stop)

    @rule(folder=folders, holds=st.one_of(adapters, adapters, st.sampled_from(["junk", "nothing"])))
    def change(self, folder: int, holds: int | str) -> None:
        place = self._folder(folder)
        if isinstance(holds, int):
            self.at.adapters[holds].save(place, dtype="float32")
            self.plain.folders[folder] = self.at.facts[holds]
        elif holds == "nothing":
            shutil.rmtree(place, ignore_errors=True)
            self.plain.folders[folder] = MissingFileError
        elif isinstance(self.plain.folders[folder], Facts):
            tensors = place / "gates.safetensors"
            data = bytearray(tensors.read_bytes())
            data[-1] ^= 1
            tensors.write_bytes(data)
            self.plain.folders[folder] = DigestMismatchError

    @precondition(lambda self: self.held_up)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self._let_go(data.draw(st.integers(0, len(self.held_up) - 1)))

    @invariant()
    def memory_holds_what_it_should_and_no_more(self) -> None:
        reports = self.engine.memory()
        assert reports == (self.plain.folded.report(), self.plain.gates.report())
        for tier in reports:
            assert tier.budget_bytes is not None
            assert tier.bytes <= tier.budget_bytes
            assert self.held_up or tier.leased == 0

    @invariant()
    def what_is_served_is_what_was_loaded_last(self) -> None:
        found = [tell(info) for info in self.engine.tasks()]
        assert found == sorted(generation.told for generation in self.plain.served.values())
        for task, generation, _ in found:
            assert generation >= self.newest.get(task, 0)
            self.newest[task] = generation

    def _ask(
        self, call: Callable[[], object], steps: Steps[object], stop: str | None = None
    ) -> None:
        """Ask both engines the same, and hold both up at a point if they come to it."""
        stands, expected = advance(steps, stop)
        if stop is None:
            return self._compare(outcome(call), expected)
        held = HeldUp(call, stop)
        if held.stands:
            self.held_up.append((held, steps))
            assert stands
        else:
            self._compare(held.let_go(), expected)

    def _let_go(self, number: int) -> None:
        call, steps = self.held_up.pop(number)
        _, expected = advance(steps, None)
        self._compare(call.let_go(), expected)

    def _compare(self, found: object, expected: object) -> None:
        if isinstance(found, BaseException):
            raise found
        assert found == expected

    def _load(self, task: str, source: Source) -> Told:
        return tell(self.engine.load(task, self._open(source)))

    def _open(self, source: Source) -> Adapter | Path | str:
        kind, number = source
        if kind == "object":
            return self.at.adapters[number]
        return self._folder(number) if kind == "folder" else f"hub/{number}"

    def _folder(self, number: int) -> Path:
        return Path(self._place.name, f"{number}")

    def _pull(self, name: str) -> Path:
        HeldUp.pass_by("pull")
        folder = self._folder(int(name.removeprefix("hub/")))
        if not folder.exists():
            raise HubUnreachableError(f"There is no '{name}'.")
        return folder

    def _images(self, chosen: list[int]) -> Tensor:
        return self.at.known.images[chosen]

    def _check(self, answers: list[tuple[Answer, int]], *, exact: bool = False) -> list[Told]:
        """Hold answers against what their tasks are known to answer; say whose they are."""
        wrong = [self.at.known.check(answer, image, exact=exact) for answer, image in answers]
        assert not any(wrong), wrong
        return [tell(answer.task) for answer, _ in answers]


def tell(info: TaskInfo) -> Told:
    return info.task, info.generation, info.digest


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=int(os.environ.get("GATEHUB_EXAMPLES", "20")),
    stateful_step_count=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
