"""What is made once is made once, and nobody waits for what he did not ask for."""

from __future__ import annotations

import threading

import pytest

from gatehub.runtime.execution.memo import Memo
from tests.threads import call_at_once


def test_threads_that_ask_together_get_one_value() -> None:
    memo, made = Memo(), []

    def make() -> object:
        made.append(object())
        threading.Event().wait(0.02)
        return made[-1]

    found = call_at_once(lambda: memo.get("key", make))
    assert len(made) == 1
    assert found == made * 8


def test_another_key_is_made_meanwhile() -> None:
    memo = Memo()
    making, go_on = threading.Event(), threading.Event()

    def make_slowly() -> int:
        making.set()
        assert go_on.wait(30)
        return 1

    slow = threading.Thread(target=memo.get, args=("slow", make_slowly))
    slow.start()
    assert making.wait(30)
    assert memo.get("quick", lambda: 2) == 2
    go_on.set()
    slow.join()
    assert memo.get("slow", lambda: 3) == 1


def test_one_value_may_be_made_of_another() -> None:
    memo = Memo()
    assert memo.get("outer", lambda: memo.get("inner", lambda: 1) + 1) == 2
    assert len(memo) == 2


def test_what_fails_is_tried_again_and_leaves_nothing() -> None:
    memo = Memo()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            memo.get("key", lambda: 1 // 0)
    assert not memo._making
    assert memo.get("key", lambda: 1) == 1
    assert not memo._making


def test_the_least_used_values_go() -> None:
    memo = Memo(limit=2)
    for key in "abac":
        memo.get(key, lambda key=key: key)
    assert len(memo) == 2
    assert memo.get("a", lambda: "new") == "a"
    assert memo.get("b", lambda: "new") == "new"


def test_none_is_a_value() -> None:
    memo = Memo()
    assert memo.get("key", lambda: None) is None
    assert memo.get("key", lambda: 1) is None


def test_whoever_wants_to_know_is_told_that_a_value_had_to_go() -> None:
    told: list[list[str]] = []
    memo = Memo(limit=2, gone=lambda: told.append(memo.values()))
    for key in "abac":
        memo.get(key, lambda key=key: key)
    assert told == [["a", "c"]]


def test_values_go_when_their_keys_are_not_wanted_any_more() -> None:
    memo = Memo()
    for key in range(6):
        memo.get(key, lambda key=key: key)
    memo.keep(lambda key: key % 2 == 0)
    assert memo.values() == [0, 2, 4]
    assert memo.get(1, lambda: "new") == "new"
