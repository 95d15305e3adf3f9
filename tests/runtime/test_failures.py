"""Whatever one task meets, its own requests are told in a sentence and all others go on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gatehub import _places
from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    HubUnreachableError,
    MemoryBudgetError,
    MissingFileError,
    TaskNotFoundError,
    TaskUnavailableError,
)
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.tasks.catalogue import Catalogue
from gatehub.runtime.tasks.entries import Wanted
from gatehub.runtime.tasks.residency import Tier
from gatehub.runtime.tasks.served import Served
from gatehub.runtime.tasks.sources import Source
from gatehub.runtime.tasks.tiers import Tiers
from tests.threads import call_at_once
from tests.tiny import make_trained, random_images


def save(backbone: Backbone, folder: Path, *, seed: int) -> Path:
    adapter = Adapter.from_model(make_trained(backbone, seed=seed), task="t")
    return adapter.save(folder, dtype="float32")


def sizes(backbone: Backbone, folder: Path) -> tuple[int, int]:
    """Bytes of one task: folded, and as gates."""
    engine = Engine(backbone)
    engine.load("t", folder)
    folded, gates = engine.memory()
    return folded.bytes, gates.bytes


def room_for_one(
    backbone: Backbone, place: Path, **settings: float
) -> tuple[Engine, dict[str, Path]]:
    """An engine with room for one task, folded and as gates, and the folders of two."""
    folders = {f"t{seed}": save(backbone, place / f"t{seed}", seed=seed) for seed in (1, 2)}
    folded, gates = sizes(backbone, folders["t1"])
    return Engine(backbone, folded_bytes=folded, gates_bytes=gates, **settings), folders


def test_a_task_that_fits_no_budget_is_refused_and_others_go_on(
    tiny_backbone: Backbone, adapter_folder: Path
) -> None:
    folded, gates = sizes(tiny_backbone, adapter_folder)
    small = Engine(tiny_backbone, folded_bytes=folded - 1)
    with pytest.raises(MemoryBudgetError, match=rf"'birds' would take {folded:,} bytes folded"):
        small.load("birds", adapter_folder)
    few = Engine(tiny_backbone, gates_bytes=gates - 1)
    with pytest.raises(MemoryBudgetError, match=rf"'birds' would take {gates:,} bytes gates"):
        few.load("birds", adapter_folder)
    one = Engine(tiny_backbone, folded_bytes=folded)
    one.load("birds", adapter_folder)
    one.pin("birds")
    with pytest.raises(MemoryBudgetError, match="unpin a task"):
        one.load("cars", adapter_folder)
    assert [info.task for info in one.tasks()] == ["birds"]
    one.predict("birds", random_images())


def test_gates_that_could_not_come_back_stay(
    tiny_backbone: Backbone, tiny_adapter: Adapter, adapter_folder: Path
) -> None:
    _, gates = sizes(tiny_backbone, adapter_folder)
    engine = Engine(tiny_backbone, gates_bytes=gates)
    engine.load("object", tiny_adapter)
    with pytest.raises(MemoryBudgetError, match="not pinned by other tasks"):
        engine.load("folder", adapter_folder)
    engine.unload("object")
    engine.load("folder", adapter_folder)


def test_gates_come_back_from_their_folder(tiny_backbone: Backbone, tmp_path: Path) -> None:
    engine, folders = room_for_one(tiny_backbone, tmp_path)
    images = random_images()
    answers = {}
    for task, folder in folders.items():
        engine.load(task, folder)
        answers[task] = engine.predict(task, images)
    for _ in range(3):
        for task in folders:
            assert torch.equal(engine.predict(task, images), answers[task])
            assert [tier.entries for tier in engine.memory()] == [1, 1]
    assert engine.memory()[1].evictions >= 5


def test_a_folder_that_vanished_is_named_and_others_go_on(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    engine, folders = room_for_one(tiny_backbone, tmp_path)
    for task, folder in folders.items():
        engine.load(task, folder)
    shutil.rmtree(folders["t1"])
    with pytest.raises(MissingFileError, match="t1"):
        engine.predict("t1", random_images())
    engine.predict("t2", random_images())
    assert [info.task for info in engine.tasks()] == ["t1", "t2"]
    save(tiny_backbone, folders["t1"], seed=1)
    engine.predict("t1", random_images())


def test_a_folder_that_holds_another_adapter_by_now_is_no_answer(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    engine, folders = room_for_one(tiny_backbone, tmp_path)
    for task, folder in folders.items():
        engine.load(task, folder)
    save(tiny_backbone, folders["t1"], seed=3)
    with pytest.raises(TaskUnavailableError, match="now lies another adapter: digest"):
        engine.predict("t1", random_images())
    engine.load("t1", folders["t1"])
    engine.predict("t1", random_images())


def test_a_load_and_a_request_never_wait_for_each_other(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request has room to fold and wants gates, while the load has gates and wants room."""
    engine, folders = room_for_one(tiny_backbone, tmp_path, wait_s=5)
    engine.load("t1", folders["t1"])
    engine.load("t2", folders["t2"])  # t1 had to leave memory
    folding, loading = threading.Event(), threading.Event()
    take = Tier.lease

    @contextmanager
    def lease(self: Tier[object], wanted: Sequence[Wanted[object]]) -> Iterator[list[object]]:
        is_gates, who = self.report().name == "gates", threading.current_thread().name
        if is_gates and who == "request":
            folding.set()  # its place among the folded tasks is taken
            loading.wait(0.3)  # and the load comes first to the gates, if it ever does
        with take(self, wanted) as values:
            if is_gates and who == "load":
                loading.set()
            yield values

    monkeypatch.setattr(Tier, "lease", lease)
    request = threading.Thread(target=lambda: engine.predict("t1", random_images()), name="request")
    request.start()
    assert folding.wait(10)
    told: list[Exception] = []

    def load() -> None:
        try:
            engine.load("t2", folders["t2"])
        except TaskUnavailableError as error:
            told.append(error)

    began = time.monotonic()
    loader = threading.Thread(target=load, name="load")
    loader.start()
    loader.join()
    request.join()
    assert told == []
    assert time.monotonic() - began < 4


def test_factors_that_do_not_fit_together_are_taken_in_parts(tiny_backbone: Backbone) -> None:
    adapters = [
        Adapter.from_model(make_trained(tiny_backbone, seed=seed, gates="scale"), task=f"t{seed}")
        for seed in range(4)
    ]
    images, tasks = random_images(4), [adapter.task for adapter in adapters]

    def load(budget: int | None) -> Engine:
        engine = Engine(tiny_backbone, folded_bytes=budget)
        for adapter in adapters:
            engine.load(adapter.task, adapter)
        return engine

    wide = load(None)
    folded = wide.memory()[0].bytes // 4
    for task in tasks:
        wide.evict(task)
    expected = wide.predict_mixed(tasks, images)
    factors = wide.memory()[0].bytes
    engine = load(folded + factors - 1)
    engine.pin("t0")
    for found, logits in zip(engine.predict_mixed(tasks, images), expected, strict=True):
        assert torch.allclose(found, logits, rtol=1e-4, atol=1e-4)
    assert engine.memory()[0].evictions > 4


def test_a_hub_that_hangs_holds_up_nobody_else(
    tiny_backbone: Backbone, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def pull(name: str) -> Path:
        asked.set()
        assert answer.wait(20)
        raise HubUnreachableError(f"The hub did not answer for '{name}'.")

    monkeypatch.setattr(_places, "_pull", pull)
    engine = Engine(tiny_backbone, wait_s=0.1)
    engine.load("birds", adapter_folder)
    engine.register("far", "org/far")
    told: list[str] = []

    def ask() -> None:
        try:
            engine.predict("far", random_images())
        except HubUnreachableError as error:
            told.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    engine.predict("birds", random_images())
    engine.load("more", adapter_folder)
    with pytest.raises(TaskUnavailableError, match=r"'far' was not loaded within 0\.1 s"):
        engine.predict("far", random_images())
    answer.set()
    thread.join()
    assert told == ["'org/far' is not a folder here. The hub did not answer for 'org/far'."]
    monkeypatch.setattr(_places, "_pull", lambda name: adapter_folder)
    assert engine.task("far").task == "far"


def test_what_is_unloaded_does_not_come_back_with_a_load_that_was_under_way(
    tiny_backbone: Backbone, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, send = threading.Event(), threading.Event()

    def pull(name: str) -> Path:
        asked.set()
        assert send.wait(20)
        return adapter_folder

    monkeypatch.setattr(_places, "_pull", pull)
    engine = Engine(tiny_backbone)
    engine.register("birds", "org/birds")
    answers = []

    def ask() -> None:
        answers.append(engine.run("birds", random_images()))

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    engine.unload("birds")
    send.set()
    thread.join()
    assert [answer.task.task for answer in answers] == ["birds"]
    assert engine.tasks() == ()
    assert [tier.bytes for tier in engine.memory()] == [0, 0]
    with pytest.raises(TaskNotFoundError):
        engine.predict("birds", random_images())
    engine.load("birds", "org/birds")
    engine.predict("birds", random_images())


def test_what_is_unloaded_does_not_come_back_with_a_request_that_has_just_begun(
    tiny_backbone: Backbone, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_backbone)
    engine.register("birds", adapter_folder)
    find = Catalogue.place

    def place(self: Catalogue, task: str) -> tuple[Source, int] | None:
        found = find(self, task)
        unloading.start()
        unloading.join(0.3)  # it ends at once, unless it has to wait for the load to be known
        return found

    monkeypatch.setattr(Catalogue, "place", place)
    unloading = threading.Thread(target=lambda: engine.unload("birds"))
    engine.predict("birds", random_images())
    unloading.join()
    assert engine.tasks() == ()
    assert [tier.bytes for tier in engine.memory()] == [0, 0]


def test_a_pin_goes_over_however_fast_generations_follow(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [save(tiny_backbone, tmp_path / f"{seed}", seed=seed) for seed in (1, 2, 3)]
    engine = Engine(tiny_backbone)
    engine.load("birds", folders[0])
    engine.pin("birds")
    succeed = Tiers.succeed
    loading = threading.Thread(target=lambda: engine.load("birds", folders[2]))

    def wait(self: Tiers, before: Served, after: Served) -> None:
        if threading.current_thread() is not loading:
            loading.start()
            loading.join(0.5)  # it is published meanwhile, unless it has to wait
        succeed(self, before, after)

    monkeypatch.setattr(Tiers, "succeed", wait)
    engine.load("birds", folders[1])
    loading.join()
    assert engine.task("birds").generation == 3
    assert engine.memory()[0].pinned == 1
    assert not engine.evict("birds")


def test_a_task_that_is_replaced_while_it_is_pinned_is_pinned(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [save(tiny_backbone, tmp_path / f"{seed}", seed=seed) for seed in (1, 2)]
    engine = Engine(tiny_backbone)
    engine.load("birds", folders[0])
    pin, replaced = Tiers.pin, []

    def replace_first(self: Tiers, task: Served) -> None:
        if not replaced:
            replaced.append(engine.load("birds", folders[1]))
        pin(self, task)

    monkeypatch.setattr(Tiers, "pin", replace_first)
    engine.pin("birds")
    assert engine.memory()[0].pinned == 1
    assert not engine.evict("birds")


def test_a_registered_task_is_loaded_by_the_first_who_asks(
    tiny_backbone: Backbone, adapter_folder: Path
) -> None:
    engine = Engine(tiny_backbone)
    engine.register("birds", adapter_folder)
    assert engine.tasks() == ()
    call_at_once(lambda: engine.run("birds", random_images()))
    assert engine.memory()[0].misses <= 2  # a request may come just as the load ends
    engine.unload("birds")
    with pytest.raises(TaskNotFoundError):
        engine.predict("birds", random_images())


def test_requests_of_two_tasks_run_at_the_same_time(
    tiny_backbone: Backbone, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits within its inference until the other is there as well: a lock would stop both."""
    engine = Engine(tiny_backbone)
    for task in ("a", "b"):
        engine.load(task, adapter_folder)
    both = threading.Barrier(2)
    original = Execution.run

    def run(self: Execution, *args: object, **choices: object) -> torch.Tensor:
        both.wait(10)
        return original(self, *args, **choices)  # type: ignore[arg-type]

    monkeypatch.setattr(Execution, "run", run)
    answered = []

    def ask(task: str) -> None:
        engine.predict(task, random_images())
        answered.append(task)

    threads = [threading.Thread(target=ask, args=(task,)) for task in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answered) == ["a", "b"]
