"""Whether a thread may wait: who answers for many tasks must not be held up by one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_HURRIED: ContextVar[bool] = ContextVar("gatehub_hurried", default=False)


class NotAtOnceError(Exception):
    """What was asked for has to be read, or waited for; no caller of an engine ever sees it."""


@contextmanager
def at_once() -> Iterator[None]:
    """Let nothing in the block wait for files, hubs, other threads or room.

    Raises:
        NotAtOnceError: it would have to; whoever may wait should ask again.
    """
    token = _HURRIED.set(True)
    try:
        yield
    finally:
        _HURRIED.reset(token)


def is_hurried() -> bool:
    """Whether nothing may wait here."""
    return _HURRIED.get()


def check_may_wait() -> None:
    """Return if this may take its time.

    Raises:
        NotAtOnceError: it may not.
    """
    if is_hurried():
        raise NotAtOnceError
