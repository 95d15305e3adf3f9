"""Batches, fairness, deadlines and bounds, on a clock that the tests move."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehub.errors import EngineError, QueueFullError
from gatehub.runtime.scheduler import BatchSettings, Request, Scheduler


def make(**values: float) -> Scheduler[int]:
    return Scheduler(BatchSettings(**values))  # type: ignore[arg-type]


def request(
    task: str, number: int = 0, *, stem: str | None = None, at: float = 0.0, until: float = math.inf
) -> Request[int]:
    return Request(task=task, stem=stem or task, payload=number, arrived=at, deadline=until)


def test_a_batch_is_due_when_it_is_full() -> None:
    scheduler = make(max_batch=3, max_wait_ms=10)
    for number in range(2):
        scheduler.submit(request("a", number))
    assert scheduler.take(0.0) == []
    scheduler.submit(request("a", 2))
    assert [r.payload for r in scheduler.take(0.0)] == [0, 1, 2]
    assert len(scheduler) == 0


def test_a_batch_is_due_when_its_oldest_request_has_waited() -> None:
    scheduler = make(max_batch=8, max_wait_ms=10)
    scheduler.submit(request("a", at=1.0))
    assert scheduler.wake_at() == pytest.approx(1.010)
    assert scheduler.take(1.009) == []
    assert len(scheduler.take(scheduler.wake_at())) == 1
    assert scheduler.wake_at() == math.inf


def test_where_requests_are_announced_a_batch_waits_for_those_alone() -> None:
    scheduler: Scheduler[int] = Scheduler(BatchSettings(max_wait_ms=10), announced=True)
    scheduler.submit(request("a", 1))
    assert [r.payload for r in scheduler.take(0.0)] == [1]
    scheduler.announce("a")
    scheduler.announce("a")
    scheduler.announce("b")
    scheduler.submit(request("a", 2))
    assert scheduler.take(0.009) == []
    assert [r.payload for r in scheduler.take(0.010)] == [2]
    scheduler.submit(request("a", 3, at=1.0))
    scheduler.arrive("a")
    assert scheduler.take(1.0) == []
    scheduler.arrive("a")
    assert [r.payload for r in scheduler.take(1.0)] == [3]
    scheduler.submit(request("b", 4, at=1.0))
    assert scheduler.take(1.0) == []


def test_tasks_of_one_stem_share_a_batch_and_stand_side_by_side() -> None:
    scheduler = make(max_batch=5, max_wait_ms=0)
    for number, task in enumerate("abab"):
        scheduler.submit(request(task, number, stem="s"))
    scheduler.submit(request("other", 9, stem="t"))
    batch = scheduler.take(0.0)
    assert sorted(r.payload for r in batch) == [0, 1, 2, 3]
    assert [r.task for r in batch] in (["a", "a", "b", "b"], ["b", "b", "a", "a"])
    assert [r.task for r in scheduler.take(0.0)] == ["other"]


def test_a_flooding_task_cannot_starve_another() -> None:
    """One task keeps its queue full; the other sends one image in each 100 ms. A batch takes 10."""
    scheduler = make(max_batch=8, max_wait_ms=5, max_queue=200, max_waiting=400)
    now, waits, flooded = 0.0, [], 0
    due = 0.0
    while now < 10.0:
        while scheduler.depths().get("flood", 0) < 200:
            scheduler.submit(request("flood", at=now))
        if now >= due:
            scheduler.submit(request("quiet", at=now))
            due += 0.1
        batch = scheduler.take(now)
        now += 0.010
        flooded += sum(r.task == "flood" for r in batch)
        waits += [now - r.arrived for r in batch if r.task == "quiet"]
    assert len(waits) >= 98
    # Its own wait for company, the batch that is running, and its own batch.
    assert max(waits) <= 0.005 + 0.010 + 0.010 + 1e-9
    assert flooded >= 7000


def test_busy_tasks_get_equal_shares() -> None:
    scheduler = make(max_batch=4, max_wait_ms=0, max_queue=100, max_waiting=1000)
    served: dict[str, int] = defaultdict(int)
    for _ in range(300):
        for task in "abc":
            while scheduler.depths().get(task, 0) < 50:
                scheduler.submit(request(task))
        for r in scheduler.take(0.0):
            served[r.task] += 1
    assert max(served.values()) - min(served.values()) <= 4


def test_an_idle_task_cannot_save_up() -> None:
    scheduler = make(max_batch=2, max_wait_ms=0, max_queue=100, max_waiting=1000)
    for number in range(100):
        scheduler.submit(request("early", number))
    for _ in range(20):
        scheduler.take(0.0)
    for number in range(60):
        scheduler.submit(request("late", number))
    next_twenty = [r.task for _ in range(10) for r in scheduler.take(0.0)]
    assert 8 <= next_twenty.count("late") <= 12


def test_a_task_that_comes_back_again_and_again_has_no_right_of_way() -> None:
    scheduler = make(max_batch=1, max_wait_ms=0, max_queue=100, max_waiting=1000)
    served: dict[str, int] = defaultdict(int)
    for _ in range(300):
        for task, depth in (("a", 20), ("b", 20), ("single", 1)):
            while scheduler.depths().get(task, 0) < depth:
                scheduler.submit(request(task))
        for r in scheduler.take(0.0):
            served[r.task] += 1
    assert max(served.values()) - min(served.values()) <= 3


def test_one_task_waits_with_several_stems() -> None:
    """Images of two sizes, or a task that was replaced meanwhile: each batch is of one stem."""
    scheduler = make(max_batch=8, max_wait_ms=10)
    for number, stem in enumerate(("small", "large", "small", "large", "large")):
        scheduler.submit(request("a", number, stem=stem, at=number * 0.001))
    scheduler.submit(request("b", 9, stem="large", at=0.005))
    assert scheduler.depths() == {"a": 5, "b": 1}

    assert [r.payload for r in scheduler.take(0.010)] == [0, 2]
    assert scheduler.take(0.010) == []  # the oldest of the others came a millisecond later
    assert sorted(r.payload for r in scheduler.take(0.011)) == [1, 3, 4, 9]
    assert len(scheduler) == 0
    assert scheduler.wake_at() == math.inf


def test_a_size_that_floods_does_not_starve_another_of_the_same_task() -> None:
    scheduler = make(max_batch=4, max_wait_ms=0, max_queue=100, max_waiting=100)
    scheduler.submit(request("a", -1, stem="rare", at=0.5))
    now = 1.0
    for turn in range(3):
        for number in range(8):
            scheduler.submit(request("a", number, stem="common", at=turn / 10))
        now += 1
    taken = [scheduler.take(now)[0].stem for _ in range(7)]
    assert taken == ["common"] * 6 + ["rare"]


def test_deadlines() -> None:
    scheduler = make(max_batch=8, max_wait_ms=50)
    scheduler.submit(request("a", 1, until=0.020))
    scheduler.submit(request("a", 2))
    assert scheduler.wake_at() == pytest.approx(0.020)
    assert scheduler.expire(0.019) == []
    assert [r.payload for r in scheduler.expire(0.020)] == [1]
    assert [r.payload for r in scheduler.take(0.050)] == [2]


def test_cancelling() -> None:
    scheduler = make(max_batch=8, max_wait_ms=0)
    first, second = request("a", 1), request("a", 2)
    scheduler.submit(first)
    scheduler.submit(second)
    assert scheduler.cancel(first)
    assert not scheduler.cancel(first)
    assert scheduler.take(0.0) == [second]
    assert not scheduler.cancel(second)


def test_queues_are_bounded() -> None:
    scheduler = make(max_batch=8, max_wait_ms=0, max_queue=2, max_waiting=3)
    scheduler.submit(request("a"))
    scheduler.submit(request("a"))
    with pytest.raises(
        QueueFullError, match=r"full: 2 requests wait for task 'a' \(at most 2\), 2 for all"
    ):
        scheduler.submit(request("a"))
    scheduler.submit(request("b"))
    with pytest.raises(QueueFullError, match=r"3 for all tasks \(at most 3\)"):
        scheduler.submit(request("c"))
    assert scheduler.depths() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_batch": 0}, "max_batch is 0"),
        ({"max_queue": 1.5}, "max_queue is 1.5"),
        ({"max_waiting": True}, "max_waiting is True"),
        ({"max_wait_ms": -1.0}, "max_wait_ms is -1.0"),
        ({"max_wait_ms": math.nan}, "max_wait_ms is nan"),
        ({"max_wait_ms": 1e15}, "expected 0 to 60,000"),
        ({"max_wait_ms": "5"}, "max_wait_ms is '5'"),
        ({"max_wait_ms": None}, "max_wait_ms is None"),
        ({"max_wait_ms": True}, "max_wait_ms is True"),
        ({"max_wait_ms": 1j}, "max_wait_ms is 1j"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        BatchSettings(**values)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from("abcd"), st.sampled_from([0.01, math.inf])),
        st.tuples(st.just("take"), st.just(""), st.just(0.0)),
        st.tuples(st.just("cancel"), st.sampled_from("abcd"), st.just(0.0)),
        st.tuples(st.just("pass"), st.just(""), st.floats(0.0, 0.02)),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, max_batch=st.integers(1, 5))
def test_every_request_leaves_once_and_in_order(
    steps: list[tuple[str, str, float]], max_batch: int
) -> None:
    scheduler = make(max_batch=max_batch, max_wait_ms=4, max_queue=5, max_waiting=12)
    stems = {"a": "s", "b": "s", "c": "c", "d": "d"}
    now, number = 0.0, 0
    waiting: dict[str, list[Request[int]]] = {task: [] for task in stems}
    for step, task, value in steps:
        if step == "submit":
            number += 1
            new = request(task, number, stem=stems[task], at=now, until=now + value)
            full = len(waiting[task]) >= 5 or sum(map(len, waiting.values())) >= 12
            if full:
                with pytest.raises(QueueFullError):
                    scheduler.submit(new)
            else:
                scheduler.submit(new)
                waiting[task].append(new)
        elif step == "cancel":
            if waiting[task]:
                assert scheduler.cancel(waiting[task].pop())
        elif step == "pass":
            now += value
        else:
            gone = scheduler.expire(now)
            late = [r for queue in waiting.values() for r in queue if r.deadline <= now]
            assert sorted(r.payload for r in gone) == sorted(r.payload for r in late)
            for r in late:
                waiting[r.task].remove(r)
            batch = scheduler.take(now)
            assert len(batch) <= max_batch
            assert len({r.stem for r in batch}) <= 1
            for r in batch:
                assert waiting[r.task].pop(0) is r
            if not batch and any(waiting.values()):
                assert scheduler.wake_at() > now
        assert len(scheduler) == sum(map(len, waiting.values()))
    assert {t: n for t, n in scheduler.depths().items() if n} == {
        task: len(queue) for task, queue in waiting.items() if queue
    }
