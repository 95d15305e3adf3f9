"""Single images answered in batches: each gets its own answer, in time or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
import torch

from gatehub.backbone import Backbone
from gatehub.errors import (
    DeadlineError,
    EngineError,
    InputError,
    QueueFullError,
    TaskNotFoundError,
)
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.engine import Engine
from gatehub.runtime.scheduler import BatchSettings
from tests.runtime.known_answers import KnownAnswers, make_known


@pytest.fixture(scope="module")
def known(tiny_backbone: Backbone) -> KnownAnswers:
    return make_known(tiny_backbone, count=8)


@pytest.fixture
def engine(tiny_backbone: Backbone, known: KnownAnswers) -> Engine:
    engine = Engine(tiny_backbone)
    for adapter in known.adapters:
        engine.load(adapter.task, adapter)
    return engine


@pytest.fixture
def held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every batch waits until this is set; `began` says that one has begun."""
    go = threading.Event()
    for name in ("run", "run_mixed"):
        original = getattr(engine, name)

        def wait(*args: object, original: object = original) -> object:
            assert go.wait(20)
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(engine, name, wait)
    yield go
    go.set()


def test_each_image_gets_its_own_answer(engine: Engine, known: KnownAnswers) -> None:
    with Batcher(engine, threads=2) as batcher:
        futures = [
            (number % 4, batcher.submit(f"task{number % 8}", known.images[number % 4]))
            for number in range(200)
        ]
        for image, future in futures:
            assert known.check(future.result(20), image, exact=False) is None
    assert sum(batcher.depths().values()) == 0


def test_requests_of_one_stem_run_together(
    engine: Engine, known: KnownAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    for name in ("run", "run_mixed"):
        original = getattr(engine, name)

        def count(tasks: object, images: torch.Tensor, original: object = original) -> object:
            batches.append((tasks, len(images)))
            return original(tasks, images)  # type: ignore[operator]

        monkeypatch.setattr(engine, name, count)
    settings = BatchSettings(max_batch=8, max_wait_ms=200)
    with Batcher(engine, settings=settings) as batcher:
        # Kinds repeat with a period of four: tasks 2 and 6 share all layers before `layer4`.
        futures = [batcher.submit(f"task{2 + 4 * (n % 2)}", known.images[0]) for n in range(8)]
        for future in futures:
            future.result(20)
    assert len(batches) == 1
    assert sorted(set(batches[0][0])) == ["task2", "task6"]  # type: ignore[call-overload]


def test_a_deadline_is_told(engine: Engine, known: KnownAnswers, held: threading.Event) -> None:
    settings = BatchSettings(max_batch=1, max_wait_ms=0)
    with Batcher(engine, settings=settings) as batcher:
        first = batcher.submit("task0", known.images[0])
        late = batcher.submit("task1", known.images[0], timeout_s=0.01)
        threading.Event().wait(0.05)
        held.set()
        with pytest.raises(DeadlineError, match=r"'task1' waited .* its deadline passed"):
            late.result(20)
        assert known.check(first.result(20), 0, exact=True) is None


def test_a_cancelled_request_is_not_answered(
    engine: Engine, known: KnownAnswers, held: threading.Event
) -> None:
    settings = BatchSettings(max_batch=1, max_wait_ms=0)
    with Batcher(engine, settings=settings) as batcher:
        batcher.submit("task0", known.images[0])
        second = batcher.submit("task1", known.images[0])
        assert second.cancel()
        assert batcher.depths().get("task1", 0) == 0
        held.set()
        with pytest.raises(CancelledError):
            second.result(20)


def test_queues_are_bounded(engine: Engine, known: KnownAnswers, held: threading.Event) -> None:
    settings = BatchSettings(max_batch=1, max_wait_ms=0, max_queue=2)
    with Batcher(engine, settings=settings) as batcher:
        running = batcher.submit("task0", known.images[0])
        while batcher.depths().get("task0"):
            threading.Event().wait(0.001)
        waiting = [batcher.submit("task0", known.images[0]) for _ in range(2)]
        with pytest.raises(QueueFullError, match="at most 2"):
            batcher.submit("task0", known.images[0])
        held.set()
        for future in (running, *waiting):
            assert known.check(future.result(20), 0, exact=True) is None


def test_one_tasks_trouble_is_not_anothers(
    engine: Engine, known: KnownAnswers, held: threading.Event
) -> None:
    settings = BatchSettings(max_batch=4, max_wait_ms=0)
    with Batcher(engine, settings=settings) as batcher:
        batcher.submit("task0", known.images[0])
        threading.Event().wait(0.05)  # so that the others wait together behind it
        good = [batcher.submit("task2", known.images[0]) for _ in range(2)]
        bad = batcher.submit("task6", known.images[0])
        engine.unload("task6")
        held.set()
        with pytest.raises(TaskNotFoundError, match="task6"):
            bad.result(20)
        for future in good:
            assert known.check(future.result(20), 0, exact=False) is None


def test_closing_answers_what_waits(engine: Engine, known: KnownAnswers) -> None:
    batcher = Batcher(engine, settings=BatchSettings(max_wait_ms=60_000))
    futures = [batcher.submit("task0", known.images[n % 4]) for n in range(3)]
    batcher.close()
    for number, future in enumerate(futures):
        assert known.check(future.result(0), number % 4, exact=False) is None
    with pytest.raises(EngineError, match="closed"):
        batcher.submit("task0", known.images[0])
    assert not [t for t in threading.enumerate() if t.name.startswith("gatehub-batch")]


def test_wrong_requests_are_refused_at_once(engine: Engine, known: KnownAnswers) -> None:
    with Batcher(engine) as batcher:
        with pytest.raises(TaskNotFoundError, match="nothing"):
            batcher.submit("nothing", known.images[0])
        with pytest.raises(InputError, match=r"shape \(1, 3, 32, 32\)"):
            batcher.submit("task0", known.images[:1])
        with pytest.raises(InputError, match="float64"):
            batcher.submit("task0", known.images[0].double())
