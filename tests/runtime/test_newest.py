"""A call's effect is at least as new as the call: loads, registrations and swaps in any order."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import MissingFileError, TaskNotFoundError, TaskUnavailableError
from gatehub.runtime.engine import Engine
from gatehub.runtime.tasks.sources import PlaceSource, Reading
from tests.tiny import make_trained, random_images


@pytest.fixture(scope="module")
def adapters(tiny_backbone: Backbone) -> list[Adapter]:
    models = [make_trained(tiny_backbone, seed=seed) for seed in (1, 2, 3)]
    return [Adapter.from_model(model, task="birds") for model in models]


class SlowReads:
    """Reads of folders that have read and do not return; `began` counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), 0
        self._one_more = threading.Condition()
        read = PlaceSource.read

        def read_slowly(source: PlaceSource) -> Reading:
            found = read(source)
            with self._one_more:
                self.began += 1
                self._one_more.notify_all()
            assert self.go.wait(20)
            return found

        monkeypatch.setattr(PlaceSource, "read", read_slowly)

    def wait_for(self, count: int) -> None:
        with self._one_more:
            assert self._one_more.wait_for(lambda: self.began >= count, 20)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowReads:
    return SlowReads(monkeypatch)


def start(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(call()))
    thread.start()
    return thread, ended


def test_a_load_brings_what_lay_there_when_it_was_called(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path, slow: SlowReads
) -> None:
    engine = Engine(tiny_backbone)
    folder = adapters[0].save(tmp_path / "birds", dtype="float32")
    first, _ = start(lambda: engine.load("birds", folder))
    slow.wait_for(1)
    adapters[1].save(folder, dtype="float32")

    later = [start(lambda: engine.load("birds", folder).digest) for _ in range(8)]
    slow.go.set()
    for thread, _ in (*later, (first, [])):
        thread.join(20)

    assert [digest for _, (digest,) in later] == [adapters[1].digest] * 8
    assert engine.task("birds").digest == adapters[1].digest
    assert slow.began == 2  # the old one, and one for all who came later


def test_a_task_is_registered_anew(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path
) -> None:
    engine = Engine(tiny_backbone)
    places = [a.save(tmp_path / f"{n}", dtype="float32") for n, a in enumerate(adapters)]
    for place, adapter in zip(places, adapters, strict=True):
        engine.register("birds", place)
        assert not engine.loaded("birds")
        assert engine.run("birds", random_images()).task.digest == adapter.digest
        assert engine.loaded("birds") == engine.task("birds")
    engine.load("birds", places[0])  # newer than what was registered
    assert engine.run("birds", random_images()).task.digest == adapters[0].digest
    engine.register("birds", tmp_path / "nowhere")
    with pytest.raises(MissingFileError):
        engine.predict("birds", random_images())
    engine.unload("birds")
    with pytest.raises(TaskNotFoundError):
        engine.predict("birds", random_images())


def test_a_registration_outlives_a_load_that_began_before_it(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path, slow: SlowReads
) -> None:
    engine = Engine(tiny_backbone)
    old, new = (a.save(tmp_path / f"{n}", dtype="float32") for n, a in enumerate(adapters[:2]))
    thread, _ = start(lambda: engine.load("birds", old))
    slow.wait_for(1)
    engine.register("birds", new)
    slow.go.set()
    thread.join(20)
    assert engine.run("birds", random_images()).task.digest == adapters[1].digest


def test_a_task_that_was_published_meanwhile_is_not_loaded_again(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path, slow: SlowReads
) -> None:
    engine = Engine(tiny_backbone)
    engine.register("birds", adapters[0].save(tmp_path / "birds", dtype="float32"))
    asked = [start(lambda: engine.predict("birds", random_images())) for _ in range(8)]
    slow.wait_for(1)
    slow.go.set()
    for thread, answers in asked:
        thread.join(20)
        assert len(answers) == 1
    assert slow.began == 1


def test_what_only_looks_loads_nothing(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path, slow: SlowReads
) -> None:
    engine = Engine(tiny_backbone)
    engine.register("birds", adapters[0].save(tmp_path / "birds", dtype="float32"))
    assert not engine.loaded("birds")
    assert engine.evict("birds") is False
    engine.unpin("birds")
    engine.stem("birds")
    assert engine.tasks() == ()
    assert slow.began == 0
    for look in (engine.loaded, engine.evict, engine.unpin, engine.stem):
        with pytest.raises(TaskNotFoundError, match="No task 'cars'"):
            look("cars")


def test_a_request_meets_a_swap_from_the_same_folder(
    tiny_backbone: Backbone,
    adapters: list[Adapter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has found the old generation, whose gates cannot come back, when the new one is loaded."""
    folder = adapters[0].save(tmp_path / "birds", dtype="float32")
    one = Engine(tiny_backbone)
    one.load("birds", folder)
    folded, gates = one.memory()
    engine = Engine(tiny_backbone, folded_bytes=folded.bytes, gates_bytes=gates.bytes)
    engine.load("birds", folder)
    engine.load("cars", adapters[2].save(tmp_path / "cars", dtype="float32"))  # evicts the birds
    adapters[1].save(folder, dtype="float32")
    lease = type(engine._tiers).folded

    def swap_first(tiers: object, tasks: object, forms: object) -> object:
        monkeypatch.setattr(type(engine._tiers), "folded", lease)
        engine.load("birds", folder)
        engine.prefetch("cars")
        return lease(tiers, tasks, forms)  # type: ignore[arg-type]

    monkeypatch.setattr(type(engine._tiers), "folded", swap_first)
    assert engine.run("birds", random_images()).task.digest == adapters[1].digest


def test_what_nobody_replaced_is_refused_when_it_is_gone(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path
) -> None:
    folder = adapters[0].save(tmp_path / "birds", dtype="float32")
    engine = Engine(tiny_backbone, gates_bytes=10**6, folded_bytes=10**7)
    engine.load("birds", folder)
    engine._tiers._gates.evict(engine._catalogue.served["birds"])
    engine.evict("birds")
    adapters[1].save(folder, dtype="float32")
    with pytest.raises(TaskUnavailableError, match="another"):
        engine.predict("birds", random_images())
    shutil.rmtree(folder)
    with pytest.raises(MissingFileError):
        engine.predict("birds", random_images())


def test_a_leaders_own_time_out_is_told_as_it_is(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()

    def time_out(source: PlaceSource) -> Reading:
        began.set()
        assert go.wait(20)
        raise TimeoutError("the file server does not answer")

    monkeypatch.setattr(PlaceSource, "read", time_out)
    engine = Engine(tiny_backbone)
    engine.register("birds", tmp_path / "birds")
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            engine.predict("birds", random_images())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert began.wait(20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert {str(error) for error in errors} == {"the file server does not answer"}
    assert len(errors) == 4


def test_logits_are_the_callers_own(tiny_backbone: Backbone, adapters: list[Adapter]) -> None:
    engine = Engine(tiny_backbone)
    for name, adapter in zip("ab", adapters, strict=False):
        engine.load(name, adapter)
    given = random_images(2)
    answers = [
        engine.predict("a", given),
        *engine.predict_mixed(["a", "b"], given),
        *engine.predict_all(given, ["a", "b"]).values(),
    ]
    for logits in answers:
        temperature = torch.tensor(2.0, requires_grad=True)
        (logits / temperature).sum().backward()
        assert temperature.grad is not None
        logits[0] = 0


@pytest.mark.parametrize("gates", ["scale", "full"])
def test_no_two_answers_share_memory(tiny_backbone: Backbone, gates: str) -> None:
    engine = Engine(tiny_backbone)
    for task in "ab":
        model = make_trained(tiny_backbone, gates=gates)
        engine.load(task, Adapter.from_model(model, task=task))
    given = random_images(4)
    for answers in (
        engine.predict_mixed(["a", "b", "a", "b"], given),
        [*engine.predict_all(given, ["a", "b"]).values()],
    ):
        assert len({logits.untyped_storage().data_ptr() for logits in answers}) == len(answers)


def test_what_is_to_be_replaced_is_unpinned_and_evicted(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path
) -> None:
    engine = Engine(tiny_backbone)
    engine.load("birds", adapters[0])
    engine.pin("birds")
    engine.register("birds", tmp_path / "of the next one")
    engine.unpin("birds")
    assert engine.memory()[0].pinned == 0
    assert engine.evict("birds")
    assert engine.memory()[0].bytes == 0
