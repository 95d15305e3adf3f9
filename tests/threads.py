"""Threads in tests: the same call from many at once, and how long one waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# How long a test waits for what must come. Only a test that hangs reaches it, on any machine.
HANG_S = 600.0


def call_at_once(call: Callable[[], T], *, threads: int = 8) -> list[T]:
    """Return what each of the calls returned, which all begin when every thread is there."""
    start, found = threading.Barrier(threads), []

    def run() -> None:
        start.wait(HANG_S)
        found.append(call())

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(found) == threads
    return found
