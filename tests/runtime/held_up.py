"""Calls that stand still half way, each in its own thread, until they are let go: no race."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from gatehub.errors import GatehubError


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the class of the error that it refuses with."""
    try:
        return call()
    except GatehubError as error:
        return type(error)


class HeldUp:
    """A call that stands still where it first passes a point, if it does.

    Args:
        call: run in a thread of its own.
        point: as it is named to `pass_by`.

    Attributes:
        stands: whether it does; if not, it has ended.
    """

    _here = threading.local()

    def __init__(self, call: Callable[[], object], point: str) -> None:
        self._call, self._point = call, point
        self._news: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._go = threading.Event()
        self._found: object = AssertionError("A call that was let go did not end.")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.stands = self._news.get(timeout=20)

    def let_go(self) -> object:
        """Return the call's outcome, or the error that it fell over."""
        self._go.set()
        self._thread.join(20)
        return self._found

    @classmethod
    def pass_by(cls, point: str) -> None:
        """Stand still here, if this thread is to."""
        call = getattr(cls._here, "call", None)
        if call is not None and call._point == point and not call._go.is_set():
            call._news.put(True)
            assert call._go.wait(20)

    def _run(self) -> None:
        self._here.call = self
        try:
            self._found = outcome(self._call)
        except BaseException as error:
            self._found = error
        self._news.put(False)
