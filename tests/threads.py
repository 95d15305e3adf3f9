"""The same call from many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_at_once(call: Callable[[], T], *, threads: int = 8) -> list[T]:
    """Return what each of the calls returned, which all begin when every thread is there."""
    start, found = threading.Barrier(threads), []

    def run() -> None:
        start.wait(10)
        found.append(call())

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(found) == threads
    return found
