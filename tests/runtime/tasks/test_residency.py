"""Budgets, leases, pins and single flights, on values that are no tensors."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.errors import HubUnreachableError, MemoryBudgetError, TaskUnavailableError
from gatehub.runtime.tasks.entries import Wanted
from gatehub.runtime.tasks.residency import Tier


def want(
    key: str,
    size: int = 10,
    *,
    group: str | None = None,
    make: Callable[[], str] | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> Wanted[str]:
    return Wanted(
        key=key,
        group=group or key,
        bytes=size,
        make=make or (lambda: key.upper()),
        alive=alive,
        name=f"task '{group or key}'",
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
    wanted = Wanted(key=1, group=1, bytes=31, make=str, alive=lambda: True, name="task 'Birds-EU'")
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


def form(key: str, size: int = 10, **choices: object) -> Wanted[str]:
    """Want "a1", a form of "a"."""
    return want(key, size, group=key[0], **choices)  # type: ignore[arg-type]


def take(cache: Tier[str], *keys: str) -> list[str]:
    with cache.lease([form(key) for key in keys]) as values:
        return values


def test_a_pinned_group_answers_with_the_form_that_is_there() -> None:
    cache = tier(budget=15, wait_s=60)
    cache.pin("a")
    assert take(cache, "a1") == ["A1"]
    assert take(cache, "a2") == ["A1"]
    assert take(cache, "a3", "a1", "a2") == ["A1"] * 3
    report = cache.report()
    assert (report.bytes, report.entries, report.pinned, report.leased) == (10, 1, 1, 0)
    assert (report.hits, report.stand_ins, report.misses, report.evictions) == (4, 3, 1, 0)


def test_with_room_each_form_is_made() -> None:
    cache = tier(budget=20)
    cache.pin("a")
    take(cache, "b1")
    assert take(cache, "a1") == ["A1"]
    assert take(cache, "a2") == ["A2"]  # b1 goes for it
    assert held(cache) == ["a1", "a2"]
    assert take(cache, "a3") == ["A3"]
    assert held(cache) == ["a2", "a3"]
    report = cache.report()
    assert (report.stand_ins, report.pinned, report.evictions) == (0, 1, 2)


def test_a_group_that_is_not_pinned_gets_the_form_that_it_wants() -> None:
    cache = tier(budget=15, wait_s=0.05)
    assert take(cache, "a1") == ["A1"]
    assert take(cache, "a2") == ["A2"]
    with cache.lease([form("a2")]), pytest.raises(TaskUnavailableError, match="No room"):
        take(cache, "a1")
    assert cache.report().stand_ins == 0


def test_the_last_form_of_a_pinned_group_stays() -> None:
    cache = tier(budget=30)
    cache.pin("a")
    for key in ("a1", "a2", "a3", "a1"):
        take(cache, key)
    take(cache, "b1")
    assert held(cache) == ["a1", "a3", "b1"]
    with cache.lease([form("b1"), form("c1")]):
        assert held(cache) == ["a1", "b1", "c1"]
        with pytest.raises(TaskUnavailableError, match="No room for task 'd'"):
            take(cache, "d1")
        assert take(cache, "a2") == ["A1"]
    assert not cache.evict("a")
    cache.unpin("a")
    assert cache.evict("a")
    assert held(cache) == ["b1", "c1"]


def test_as_few_forms_as_need_be_are_replaced() -> None:
    cache = tier(budget=40)
    cache.pin("a")
    cache.pin("b")
    take(cache, "a1", "b1", "c1")
    assert take(cache, "a2", "b2", "c1") == ["A1", "B2", "C1"]
    assert held(cache) == ["a1", "b1", "b2", "c1"]


def test_a_form_in_use_makes_another_of_its_group_free_to_go() -> None:
    cache = tier(budget=20)
    cache.pin("a")
    take(cache, "a1")
    take(cache, "a2")
    with cache.lease([form("a1")]):
        assert take(cache, "b1") == ["B1"]
        assert held(cache) == ["a1", "b1"]


def test_a_refusal_counts_one_form_of_each_pinned_group_of_others() -> None:
    cache = tier(budget=60, wait_s=60)
    for group in "abc":
        cache.pin(group)
    with cache.lease([form("a1", 10), form("a2", 14), form("b1", 12), form("c1", 9)]):
        pass
    with (
        pytest.raises(MemoryBudgetError, match=r"Task 'd' would take 26 bytes folded, of 25 that"),
        cache.lease([form("d1", 26)]),  # 60 - 14 - 12 - 9: of a, the one used last
    ):
        pass
    with (  # a and c are answered with what is there
        pytest.raises(MemoryBudgetError, match=r"'a', .* would take 58 bytes folded, of 48 that"),
        cache.lease([form("a3", 99), form("c3", 99), form("d1", 35)]),
    ):
        pass
    with cache.lease([form("a3", 99), form("c3", 99), form("d1", 25)]) as values:
        assert values == ["A2", "C1", "D1"]
    assert cache.report().bytes == 60


def test_what_cannot_be_made_of_a_pinned_group_is_answered_with_what_is_there() -> None:
    cache = tier(budget=None)
    take(cache, "a1")
    unreachable = HubUnreachableError("The hub does not answer.")
    with pytest.raises(HubUnreachableError), cache.lease([form("a2", make=fail(unreachable))]):
        pass
    cache.pin("a")
    with cache.lease([form("a2", make=fail(unreachable)), form("b1")]) as values:
        assert values == ["A1", "B1"]
    with (  # what nobody foresaw is not hidden
        pytest.raises(ZeroDivisionError),
        cache.lease([form("a2", make=fail(ZeroDivisionError()))]),
    ):
        pass
    with pytest.raises(HubUnreachableError), cache.lease([form("c1", make=fail(unreachable))]):
        pass
    report = cache.report()
    assert (report.entries, report.leased, report.pinned) == (2, 0, 1)


def test_who_waits_for_a_form_that_hangs_is_answered_with_what_is_there() -> None:
    cache = tier(budget=None, wait_s=0.05)
    cache.pin("a")
    take(cache, "a1")
    begun, go = threading.Event(), threading.Event()

    def hang() -> str:
        begun.set()
        go.wait(20)
        return "A2"

    def make() -> None:
        with cache.lease([form("a2", make=hang)]):
            pass

    thread = threading.Thread(target=make)
    thread.start()
    assert begun.wait(20)
    assert take(cache, "a2") == ["A1"]
    go.set()
    thread.join()
    assert take(cache, "a2") == ["A2"]


def test_a_form_that_was_not_made_leaves_the_pin_alone() -> None:
    cache = tier()
    cache.pin("a")
    take(cache, "a1")
    with (
        pytest.raises(ZeroDivisionError),
        cache.lease([form("a2", make=fail(ZeroDivisionError()))]),
    ):
        pass
    assert cache.is_pinned("a")
    assert held(cache) == ["a1"]


def test_a_group_is_dropped_with_all_its_forms() -> None:
    cache, alive = tier(), True
    cache.pin("a")
    wanted = [form(key, alive=lambda: alive) for key in ("a1", "a2")]
    with cache.lease(wanted[1:]):
        with cache.lease(wanted[:1]):
            pass
        alive = False
        cache.drop("a")
        assert held(cache) == ["a2"]
    assert held(cache) == []
    assert not cache.is_pinned("a")
    assert cache.report().bytes == 0


def test_stale_values_are_forgotten_but_the_last_of_a_pinned_group() -> None:
    cache = tier(budget=None)
    for group in "ab":
        cache.pin(group)
    take(cache, "a1", "a2", "b1", "b2", "c1", "c2")
    with cache.lease([form("c2")]):
        cache.forget(lambda key: key in ("a2", "b1", "b2", "c1", "c2"))
        assert held(cache) == ["a1", "b2", "c2"]
    assert cache.report().bytes == 30
    assert cache.report().evictions == 0


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "hold", "release", "pin", "unpin", "evict", "drop"]),
            st.lists(st.sampled_from(["a1", "a2", "b1", "b2", "c1"]), min_size=1, max_size=3),
        ),
        max_size=30,
    ),
    budget=st.integers(9, 60),
)
def test_what_is_pinned_and_there_always_answers(
    steps: list[tuple[str, list[str]]], budget: int
) -> None:
    sizes = {"a1": 10, "a2": 13, "b1": 9, "b2": 21, "c1": 16}
    cache, holds = tier(budget=budget, wait_s=0), []

    def lease(keys: list[str]) -> contextlib.AbstractContextManager[list[str]]:
        return cache.lease([form(key, sizes[key]) for key in keys])

    def pinned_and_there() -> set[str]:
        return {key[0] for key in held(cache) if cache.is_pinned(key[0])}

    for step, keys in steps:
        before = pinned_and_there()
        if step in ("take", "hold"):
            held_now = lease(keys)
            try:
                values = held_now.__enter__()
            except (MemoryBudgetError, TaskUnavailableError):
                continue
            assert [value[0] for value in values] == [key[0].upper() for key in keys]
            for key, value in zip(keys, values, strict=True):
                assert value == key.upper() or cache.is_pinned(key[0])
            holds.append(held_now)
            if step == "take":
                holds.pop().__exit__(None, None, None)
        elif step == "release" and holds:
            holds.pop().__exit__(None, None, None)
        elif step != "release":
            getattr(cache, step)(keys[0][0])
        assert cache.report().bytes == sum(sizes[key] for key in held(cache)) <= budget
        assert before - pinned_and_there() <= ({keys[0][0]} if step in ("unpin", "drop") else set())
        for key in sizes:
            if key[0] in pinned_and_there():
                with lease([key]) as (value,):
                    assert value[0] == key[0].upper()
    for held_now in holds:
        held_now.__exit__(None, None, None)
    assert cache.report().leased == 0
