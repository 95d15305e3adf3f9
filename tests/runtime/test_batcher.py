"""Single images answered in batches: each gets its own answer, in time or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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


def test_who_is_announced_is_waited_for_and_nobody_else(
    engine: Engine, known: KnownAnswers
) -> None:
    settings = BatchSettings(max_batch=8, max_wait_ms=60_000)
    with Batcher(engine, settings=settings, announced=True) as batcher:
        alone = batcher.submit("task0", known.images[0])
        assert known.check(alone.result(20), 0, exact=False) is None
        with batcher.announce("task0", known.images[0].shape):
            first = batcher.submit("task0", known.images[1])
            other = batcher.submit("task1", known.images[0])
            assert known.check(other.result(20), 0, exact=False) is None
            assert not first.done()
            second = batcher.submit("task0", known.images[2])
        assert known.check(first.result(20), 1, exact=False) is None
        assert known.check(second.result(20), 2, exact=False) is None


def test_a_thread_that_died_is_replaced(engine: Engine, known: KnownAnswers) -> None:
    class Mortal(Batcher):
        lives = 1

        def _work(self) -> None:
            if self.lives:
                self.lives -= 1
            else:
                super()._work()

    with Mortal(engine) as batcher:
        future = batcher.submit("task0", known.images[0])
        assert known.check(future.result(20), 0, exact=False) is None


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


def test_images_of_several_sizes_wait_for_one_task(engine: Engine, known: KnownAnswers) -> None:
    large = torch.randn(3, 40, 48, generator=torch.Generator().manual_seed(0))
    expected = engine.predict("task0", large[None])[0]
    with Batcher(engine, settings=BatchSettings(max_wait_ms=50)) as batcher:
        small = [batcher.submit("task0", known.images[n % 4]) for n in range(5)]
        others = [batcher.submit("task0", large) for _ in range(3)]
        for number, future in enumerate(small):
            assert known.check(future.result(20), number % 4, exact=False) is None
        for future in others:
            torch.testing.assert_close(future.result(20).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_task_that_is_only_registered_is_loaded_with_its_batch(
    engine: Engine, known: KnownAnswers, tmp_path: Path
) -> None:
    engine.unload("task0")
    engine.register("task0", known.adapters[0].save(tmp_path / "task0", dtype="float32"))
    with Batcher(engine) as batcher:
        assert not engine.loaded("task0")
        assert (
            known.check(batcher.submit("task0", known.images[1]).result(20), 1, exact=False) is None
        )


NOT_IMAGES = [
    None,
    [[0.0]],
    np.zeros((3, 32, 32), np.float32),
    Image.new("RGB", (32, 32)),
    torch.zeros(3, 32, 32, device="meta"),
    torch.zeros(3, 32, 32).to_sparse(),
    torch.zeros(1).expand(3, 300_000, 300_000),
    torch.zeros(1).expand(3, 4000, 4000),
    torch.full((3, 32, 32), float("nan")),
    torch.zeros(4, 32, 32),
    torch.zeros(3, 0, 32),
]


@pytest.mark.parametrize("image", NOT_IMAGES, ids=lambda image: type(image).__name__)
def test_what_is_no_image_is_refused_and_ends_no_thread(
    engine: Engine, known: KnownAnswers, image: object
) -> None:
    with Batcher(engine) as batcher:
        with pytest.raises(InputError, match="Task 'task0' got"):
            batcher.submit("task0", image)  # type: ignore[arg-type]
        assert (
            known.check(batcher.submit("task0", known.images[0]).result(20), 0, exact=False) is None
        )


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300, 1e12, 10**400])
def test_any_length_of_time_can_be_waited_for(
    engine: Engine, known: KnownAnswers, timeout_s: float
) -> None:
    with Batcher(engine) as batcher:
        future = batcher.submit("task0", known.images[0], timeout_s=timeout_s)
        assert known.check(future.result(20), 0, exact=False) is None


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan"), "5", [1], 1j, Decimal(1), True])
def test_a_time_that_is_none_is_refused(
    engine: Engine, known: KnownAnswers, timeout_s: Any
) -> None:
    with Batcher(engine) as batcher, pytest.raises(EngineError, match="timeout_s is"):
        batcher.submit("task0", known.images[0], timeout_s=timeout_s)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_batcher_has_a_thread(engine: Engine, threads: int) -> None:
    with pytest.raises(EngineError, match="threads is"):
        Batcher(engine, threads=threads)


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_callback_raises_ends_no_thread(
    engine: Engine, known: KnownAnswers, held: threading.Event, error: BaseException
) -> None:
    def fail(future: object) -> None:
        raise error

    with Batcher(engine, settings=BatchSettings(max_wait_ms=50)) as batcher:
        futures = [batcher.submit("task0", known.images[n]) for n in range(4)]
        for future in futures:
            future.add_done_callback(fail)
        held.set()
        for number, future in enumerate(futures):
            assert known.check(future.result(20), number, exact=False) is None
        assert (
            known.check(batcher.submit("task0", known.images[0]).result(20), 0, exact=False) is None
        )


def test_an_error_of_the_engines_own_ends_no_thread(
    engine: Engine, known: KnownAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine.run

    def break_once(task: str, images: torch.Tensor) -> object:
        monkeypatch.setattr(engine, "run", original)
        raise SystemExit(1)

    monkeypatch.setattr(engine, "run", break_once)
    with Batcher(engine) as batcher:
        with pytest.raises(EngineError, match="interrupted"):
            batcher.submit("task0", known.images[0]).result(20)
        assert (
            known.check(batcher.submit("task0", known.images[0]).result(20), 0, exact=False) is None
        )


def test_a_caller_may_end_a_future_itself(
    engine: Engine, known: KnownAnswers, held: threading.Event
) -> None:
    with Batcher(engine, settings=BatchSettings(max_batch=1, max_wait_ms=0)) as batcher:
        first = batcher.submit("task0", known.images[0])
        second = batcher.submit("task0", known.images[0])
        first.set_exception(ValueError("mine"))
        second.set_exception(ValueError("mine"))
        held.set()
        assert (
            known.check(batcher.submit("task0", known.images[0]).result(20), 0, exact=False) is None
        )


def test_a_callback_may_close_the_batcher(engine: Engine, known: KnownAnswers) -> None:
    batcher = Batcher(engine, threads=2)
    closed = threading.Event()

    def close(future: object) -> None:
        batcher.close()
        closed.set()

    futures = [batcher.submit("task0", known.images[0]) for _ in range(4)]
    for future in futures:
        future.add_done_callback(close)
    for future in futures:
        assert known.check(future.result(20), 0, exact=False) is None
    assert closed.wait(20)
    batcher.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("gatehub-batch")]


def test_a_batch_of_large_images_is_divided(
    engine: Engine, known: KnownAnswers, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatehub.runtime.batcher.MAX_VALUES", 2 * known.images[0].numel())
    sizes: list[int] = []
    wait = engine.run

    def run(task: str, images: torch.Tensor) -> object:
        sizes.append(len(images))
        return wait(task, images)

    monkeypatch.setattr(engine, "run", run)
    with Batcher(engine, settings=BatchSettings(max_batch=7, max_wait_ms=60_000)) as batcher:
        futures = [batcher.submit("task0", known.images[n % 4]) for n in range(7)]
        held.set()
        for number, future in enumerate(futures):
            assert known.check(future.result(60), number % 4, exact=False) is None
    assert max(sizes) <= 2
    assert sum(sizes) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_fork_is_told_that_it_has_no_threads(
    engine: Engine, known: KnownAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Batcher(engine) as batcher:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with pytest.raises(EngineError, match="in the process that made it; a fork has none"):
            batcher.submit("task0", known.images[0])
