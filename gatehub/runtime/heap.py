"""Memory that the process has freed, given back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Protocol, cast


class _Trim(Protocol):
    def __call__(self, pad: int) -> int: ...


def return_free_memory() -> None:
    """Give freed memory back, where the C library can be told to (glibc).

    glibc keeps what was freed for later. After a short need of much memory, such as recording a
    network or reading an adapter, that would count as used for ever.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> _Trim | None:
    try:
        return cast(_Trim, ctypes.CDLL("libc.so.6").malloc_trim)
    except (OSError, AttributeError):
        return None
