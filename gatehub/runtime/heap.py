"""Memory that the process has freed, given back to the system."""

from __future__ import annotations

import ctypes
import math
import time
from functools import cache
from typing import Protocol, cast


class _Trim(Protocol):
    def __call__(self, pad: int) -> int: ...


def return_free_memory(*, every_s: float = 0.0) -> bool:
    """Give freed memory back, where the C library can be told to (glibc).

    glibc keeps what was freed for later. After a short need of much memory, such as recording a
    network or reading an adapter, that would count as used for ever.

    Args:
        every_s: do nothing if it was done less than so many seconds ago, by any thread. What is
            given back has to be fetched again page by page, which takes longer than a fold.

    Returns:
        False if it was too early.
    """
    global _last
    trim = _find_trim()
    now = time.monotonic()
    if now - _last < every_s:
        return False
    _last = now
    if trim is not None:
        trim(0)
    return True


_last = -math.inf


@cache
def _find_trim() -> _Trim | None:
    try:
        return cast(_Trim, ctypes.CDLL("libc.so.6").malloc_trim)
    except (OSError, AttributeError):
        return None
