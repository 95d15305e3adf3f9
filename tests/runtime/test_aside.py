"""A task that is read again from a slow place holds up nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatehub.backbone import Backbone
from gatehub.errors import HubUnreachableError, QueueFullError
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.engine import Engine
from gatehub.runtime.jobs import BatchTimes
from gatehub.runtime.scheduler import BatchSettings
from gatehub.runtime.tasks.sources import PlaceSource, Reading
from tests.runtime.known_answers import KnownAnswers, make_known


@pytest.fixture(scope="module")
def known(tiny_backbone: Backbone) -> KnownAnswers:
    return make_known(tiny_backbone, count=4)


class SlowPlace:
    """Stands in for reading from folders: `go` lets reads of task0 end, `error` makes them fail."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.reads = 0


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowPlace]:
    slow, read = SlowPlace(), PlaceSource.read

    def wait(source: PlaceSource) -> Reading:
        if slow.error is not None or str(source.place).endswith("task0"):
            slow.reads += 1
            slow.begun.set()
            assert slow.go.wait(30)
            if slow.error is not None:
                raise slow.error
        return read(source)

    slow.go.set()
    monkeypatch.setattr(PlaceSource, "read", wait)
    yield slow
    slow.go.set()


@pytest.fixture
def engine(tiny_backbone: Backbone, known: KnownAnswers, slow: SlowPlace, tmp_path: Path) -> Engine:
    """All tasks are served; task0 has left memory altogether, and whoever reads it has to wait."""
    sizes = []
    for adapter in known.adapters:
        probe = Engine(tiny_backbone)
        probe.load("task", adapter)
        sizes.append(probe.memory()[-1].bytes)
    engine = Engine(tiny_backbone, gates_bytes=sum(sizes[1:]) + sizes[0] // 2)
    for adapter in known.adapters:
        engine.load(adapter.task, adapter.save(tmp_path / adapter.task, dtype="float32"))
    engine.evict("task0")
    slow.reads = 0
    slow.go.clear()
    slow.begun.clear()
    return engine


def test_others_are_answered_while_one_is_read_and_it_is_read_once(
    engine: Engine, known: KnownAnswers, slow: SlowPlace
) -> None:
    with Batcher(engine, settings=BatchSettings(max_batch=4, max_wait_ms=1)) as batcher:
        waiting = [batcher.submit("task0", known.images[n % 4]) for n in range(6)]
        assert slow.begun.wait(30)
        waiting += [batcher.submit("task0", known.images[n % 4]) for n in (2, 3)]
        quick = [
            (n % 4, batcher.submit(f"task{1 + n % 3}", known.images[n % 4])) for n in range(24)
        ]
        for image, future in quick:
            assert known.check(future.result(30), image, exact=False) is None
        assert not any(future.done() for future in waiting)
        slow.go.set()
        for number, future in enumerate(waiting):
            answer = future.result(30)
            assert answer.task.task == "task0"
            assert known.check(answer, number % 4, exact=False) is None
    assert slow.reads == 1


def test_a_mixed_batch_loses_only_the_one_that_is_away(
    engine: Engine, known: KnownAnswers, slow: SlowPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "stem", lambda task: "the same")
    with Batcher(engine, settings=BatchSettings(max_batch=4, max_wait_ms=60_000)) as batcher:
        futures = [batcher.submit(f"task{n}", known.images[n]) for n in range(4)]
        for number in (1, 2, 3):
            assert known.check(futures[number].result(30), number, exact=False) is None
        assert not futures[0].done()
        slow.go.set()
        assert known.check(futures[0].result(30), 0, exact=False) is None


def test_a_read_that_fails_is_told_to_those_who_wait_and_tried_again_by_the_next(
    engine: Engine, known: KnownAnswers, slow: SlowPlace
) -> None:
    times = BatchTimes()
    with Batcher(engine) as batcher:
        first = batcher.submit("task0", known.images[0], times=times)
        assert slow.begun.wait(30)
        slow.error = HubUnreachableError("It is away.")
        slow.go.set()
        assert isinstance(first.exception(30), HubUnreachableError)
        slow.error = None
        assert (
            known.check(batcher.submit("task0", known.images[0]).result(30), 0, exact=False) is None
        )
    assert times.submitted is not None
    assert times.aside is not None
    assert times.ended is not None
    assert times.submitted <= times.aside <= times.ended


def test_those_who_wait_for_one_have_a_bound(
    engine: Engine, known: KnownAnswers, slow: SlowPlace
) -> None:
    settings = BatchSettings(max_batch=1, max_queue=3, max_wait_ms=0)
    with Batcher(engine, settings=settings) as batcher:
        futures: list[Any] = [batcher.submit("task0", known.images[0])]
        assert slow.begun.wait(30)
        for _ in range(4):
            futures.append(batcher.submit("task0", known.images[0]))
            batcher.submit("task1", known.images[0]).result(30)  # the one before has had its turn
        assert isinstance(futures[-1].exception(30), QueueFullError)
        assert batcher.depths() == {"task0": 3}
        slow.go.set()
        assert [future.exception(30) for future in futures[:-1]] == [None] * 4


def test_a_thread_that_waits_for_one_in_a_hurry_makes_it_itself(
    engine: Engine, known: KnownAnswers, slow: SlowPlace
) -> None:
    """A caller of the engine never learns that a batch would not wait."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(engine.run("task0", known.images[:1])))
    thread.start()
    assert slow.begun.wait(30)
    with Batcher(engine) as batcher:
        future = batcher.submit("task0", known.images[1])
        slow.go.set()
        thread.join(30)
        assert known.check(answers[0], 0, exact=False) is None
        assert known.check(future.result(30), 1, exact=False) is None
