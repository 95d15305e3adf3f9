"""Asking again after a failure that may pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def retry(
    ask: Callable[[], T],
    *,
    attempts: int,
    wait: Callable[[Exception, int], float | None],
    patience_s: float = math.inf,
) -> T:
    """Ask until there is an answer, an error that will not pass, or no attempt left.

    Args:
        ask: what may fail.
        attempts: how often it is asked at most.
        wait: seconds from an error to the next attempt, None if another attempt is in vain. It gets
            the error, and how many attempts had failed before this one.
        patience_s: an attempt that fails after more seconds than these is the last one: whoever
            answers has had its time.

    Raises:
        Exception: what the last attempt raised.
    """
    for failed in range(attempts - 1):
        began = time.monotonic()
        try:
            return ask()
        except Exception as error:
            pause_s = wait(error, failed)
            if pause_s is None or time.monotonic() - began > patience_s:
                raise
        time.sleep(pause_s)
    return ask()
