"""Budgets, leases, pins and single flights, on values that are no tensors."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from gatehub.errors import MemoryBudgetError, TaskUnavailableError
from gatehub.runtime.tasks.entries import Wanted
from gatehub.runtime.tasks.residency import Tier


def want(
    key: str,
    size: int = 10,
    *,
    make: Callable[[], str] | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> Wanted[str]:
    return Wanted(
        key=key, bytes=size, make=make or (lambda: key.upper()), alive=alive, name=f"task '{key}'"
    )


def tier(budget: int | None = 30, wait_s: float = 0.05) -> Tier[str]:
    return Tier("folded", budget_bytes=budget, wait_s=wait_s)


def use(cache: Tier[str], *keys: str) -> None:
    with cache.lease([want(key) for key in keys]) as values:
        assert values == [key.upper() for key in keys]


def held(cache: Tier[str]) -> list[str]:
    """Return the keys whose values are there, ready to use."""
    return sorted(str(key) for key, entry in cache._entries.items() if entry.ready)


def test_a_value_is_made_once_and_stays() -> None:
    cache = tier()
    made = []
    for _ in range(3):
        with cache.lease([want("a", make=lambda: made.append(1) or "A")]) as (value,):
            assert value == "A"
    assert made == [1]
    report = cache.report()
    assert (report.hits, report.misses, report.bytes, report.entries) == (2, 1, 10, 1)


def test_the_least_used_goes_first() -> None:
    cache = tier()
    use(cache, "a")
    use(cache, "b")
    use(cache, "c")
    use(cache, "a")
    use(cache, "d")
    assert held(cache) == ["a", "c", "d"]
    assert cache.report().evictions == 1
    assert cache.report().bytes == 30


def test_what_is_leased_or_pinned_stays() -> None:
    cache = tier()
    cache.pin("a")
    use(cache, "a")
    with cache.lease([want("b")]):
        use(cache, "c")
        use(cache, "d")
        assert held(cache) == ["a", "b", "d"]
        assert not cache.evict("a")
        assert not cache.evict("b")
    assert cache.evict("b")
    cache.unpin("a")
    assert cache.evict("a")
    assert not cache.evict("a")


def test_a_value_larger_than_the_budget_is_refused_at_once() -> None:
    cache = tier(budget=30, wait_s=60)
    use(cache, "a")
    with (
        pytest.raises(MemoryBudgetError, match="Task 'b' would take 31 bytes folded, of 30"),
        cache.lease([want("b", 31)]),
    ):
        pass
    cache.pin("a")
    with pytest.raises(MemoryBudgetError, match="of 20"), cache.lease([want("b", 21)]):
        pass
    assert "a" in held(cache)


def test_a_name_keeps_its_capitals_in_a_sentence() -> None:
    wanted = Wanted(key=1, bytes=31, make=str, alive=lambda: True, name="task 'Birds-EU'")
    with pytest.raises(MemoryBudgetError, match=r"^Task 'Birds-EU' would"), tier().lease([wanted]):
        pass


def test_without_room_a_lease_waits_and_then_says_so() -> None:
    cache = tier(budget=20)
    with (
        cache.lease([want("a"), want("b")]),
        pytest.raises(TaskUnavailableError, match=r"No room for task 'c' .* within 0.05 s"),
        cache.lease([want("c")]),
    ):
        pass
    use(cache, "c")


def test_a_lease_gets_room_as_soon_as_there_is_some() -> None:
    cache = tier(budget=20, wait_s=30)
    taken = threading.Event()

    def take() -> None:
        use(cache, "c")
        taken.set()

    with cache.lease([want("a"), want("b")]):
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)
    assert taken.wait(5)
    thread.join()


def test_several_are_taken_together_or_not_at_all() -> None:
    """Two requests that each want both of two values, with room for two, never wait for ever."""
    cache = tier(budget=20, wait_s=30)
    done = []

    def take(first: str, second: str) -> None:
        for _ in range(200):
            use(cache, first, second)
        done.append(first)

    pairs = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")]
    threads = [threading.Thread(target=take, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == ["a", "b", "b", "c"]
    assert cache.report().bytes <= 20


def test_ten_threads_make_a_value_once() -> None:
    cache = tier(wait_s=30)
    made, values = [], []
    begun, go = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        made.append(1)
        assert go.wait(5)
        return "A"

    def take() -> None:
        with cache.lease([want("a", make=make)]) as (value,):
            values.append(value)

    threads = [threading.Thread(target=take) for _ in range(10)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    use(cache, "b")  # making one value holds nobody up who wants another
    go.set()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert values == ["A"] * 10


def test_a_failure_is_told_to_all_who_wait_and_leaves_nothing() -> None:
    cache = tier(wait_s=30)
    begun, go, told = threading.Event(), threading.Event(), []

    def fail() -> str:
        begun.set()
        assert go.wait(5)
        raise ValueError("half way")

    def take() -> None:
        try:
            with cache.lease([want("a", make=fail)]):
                pass
        except ValueError as error:
            told.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(3)]
    threads[0].start()
    assert begun.wait(5)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)
    go.set()
    for thread in threads:
        thread.join()
    assert told == ["half way"] * 3
    report = cache.report()
    assert (report.bytes, report.entries, report.leased) == (0, 0, 0)
    use(cache, "a")


def test_a_failure_is_not_told_to_who_comes_later() -> None:
    """Even while somebody who waited for the failed value still holds on to others."""
    cache = tier(wait_s=30)
    failing, fail, busy, go = (threading.Event() for _ in range(4))

    def make_fail() -> str:
        failing.set()
        assert fail.wait(5)
        raise ValueError("once")

    def make_slowly() -> str:
        busy.set()
        assert go.wait(5)
        return "B"

    def take(*wanted: Wanted[str]) -> None:
        with contextlib.suppress(ValueError), cache.lease(wanted):
            pass

    first = threading.Thread(target=take, args=(want("a", make=make_fail),))
    first.start()
    assert failing.wait(5)
    both = threading.Thread(target=take, args=(want("a"), want("b", make=make_slowly)))
    both.start()
    assert busy.wait(5)
    fail.set()
    first.join()
    use(cache, "a")
    go.set()
    both.join()
    assert cache.report().leased == 0


def test_who_waits_for_a_value_that_hangs_is_told() -> None:
    cache = tier(wait_s=0.05)
    begun, go = threading.Event(), threading.Event()

    def hang() -> str:
        begun.set()
        go.wait(5)
        return "A"

    def take() -> None:
        with cache.lease([want("a", make=hang)]):
            pass

    thread = threading.Thread(target=take)
    thread.start()
    assert begun.wait(5)
    with (
        pytest.raises(TaskUnavailableError, match=r"Task 'a' was not ready within 0\.05 s"),
        cache.lease([want("a")]),
    ):
        pass
    go.set()
    thread.join()


def test_what_is_not_alive_goes_with_its_last_lease() -> None:
    cache = tier()
    alive = True
    wanted = want("a", alive=lambda: alive)
    with cache.lease([wanted]), cache.lease([wanted]):
        alive = False
        cache.drop("a")
        assert "a" in held(cache)
    assert "a" not in held(cache)
    assert cache.report().bytes == 0
    with cache.lease([wanted]):  # a request that began before may come back for it
        assert cache.report().bytes == 10
    assert cache.report().bytes == 0


def test_a_dropped_value_loses_its_pin() -> None:
    cache = tier()
    cache.pin("a")
    use(cache, "a")
    cache.drop("a")
    assert "a" not in held(cache)
    assert not cache.is_pinned("a")


def test_no_budget_means_no_limit() -> None:
    cache = tier(budget=None)
    for number in range(100):
        use(cache, f"k{number}")
    assert cache.report().bytes == 1000
    assert cache.report().evictions == 0


def test_one_key_wanted_twice_is_one_lease() -> None:
    cache = tier(budget=10)
    with cache.lease([want("a"), want("a")]) as values:
        assert values == ["A", "A"]
        assert cache.report().leased == 1
    assert cache.report().leased == 0


def fail(error: BaseException) -> Callable[[], str]:
    def make() -> str:
        raise error

    return make


def test_what_comes_after_a_failure_is_left_to_whoever_wants_it() -> None:
    cache = tier(None, wait_s=0.5)
    with (
        pytest.raises(OSError, match="broken"),
        cache.lease([want("a", make=fail(OSError("broken"))), want("b")]),
    ):
        pass
    assert cache.report().entries == 0
    use(cache, "b")


@pytest.mark.parametrize("error", [OSError("broken"), KeyboardInterrupt()])
def test_nobody_waits_for_an_entry_that_a_failed_lease_had_taken(error: BaseException) -> None:
    """A lease of [a, b] fails at a while another thread waits for b, which is sound."""
    cache = tier(None, wait_s=20)
    waits, answers = threading.Event(), []

    def wait_for_b() -> None:
        waits.set()
        try:
            with cache.lease([want("b")]) as (value,):
                answers.append(value)
        except TaskUnavailableError as refused:
            answers.append(str(refused))

    waiter = threading.Thread(target=wait_for_b)

    def fail_once_b_is_waited_for() -> str:
        waiter.start()
        assert waits.wait(20)
        while cache.report().hits == 0:  # until its lease is taken
            time.sleep(0.001)
        raise error

    made = []
    with (
        pytest.raises(type(error)),
        cache.lease(
            [
                want("a", make=fail_once_b_is_waited_for),
                want("b", make=lambda: made.append(1) or "B"),
            ]
        ),
    ):
        pass
    waiter.join(20)
    assert not waiter.is_alive()
    if isinstance(error, Exception):
        assert (answers, made) == (["B"], [1])
    else:  # this thread was told to stop, so it makes nothing more
        assert "thread that was stopped" in answers[0]
    use(cache, "b")
