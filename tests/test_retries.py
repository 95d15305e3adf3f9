from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from gatehub._retries import retry


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, on a clock that only they move."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    return pauses


def failing(*errors: Exception) -> Callable[[], str]:
    """Raise each error in turn, and then answer."""
    left: Iterator[Exception] = iter(errors)

    def ask() -> str:
        for error in left:
            raise error
        return "answer"

    return ask


def wait(error: Exception, failed: int) -> float | None:
    return 2.0**failed if isinstance(error, OSError) else None


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_an_answer_is_waited_for(failures: int, slept: list[float]) -> None:
    errors = [OSError(str(number)) for number in range(failures)]
    assert retry(failing(*errors), attempts=4, wait=wait) == "answer"
    assert slept == [1.0, 2.0, 4.0][:failures]


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_the_last_attempt_raises_its_own_error(attempts: int, slept: list[float]) -> None:
    errors = [OSError(str(number)) for number in range(9)]
    with pytest.raises(OSError, match=f"^{attempts - 1}$") as caught:
        retry(failing(*errors), attempts=attempts, wait=wait)
    assert caught.value.__context__ is None  # the attempts before it explain nothing
    assert len(slept) == attempts - 1


def test_an_error_that_will_not_pass_ends_it(slept: list[float]) -> None:
    with pytest.raises(ValueError, match="no"):
        retry(failing(OSError("first"), ValueError("no")), attempts=4, wait=wait)
    assert slept == [1.0]


def test_who_took_long_to_fail_is_not_asked_again(slept: list[float]) -> None:
    def fail_after(seconds: float) -> Callable[[], str]:
        ask = failing(OSError("silence"))

        def slow() -> str:
            time.sleep(seconds)
            return ask()

        return slow

    assert retry(fail_after(10.0), attempts=2, wait=wait, patience_s=10.0) == "answer"
    with pytest.raises(OSError, match="silence"):
        retry(fail_after(10.5), attempts=2, wait=wait, patience_s=10.0)


def test_an_interruption_is_no_failure(slept: list[float]) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry(interrupt, attempts=4, wait=lambda error, failed: 0.0)
    assert slept == []
