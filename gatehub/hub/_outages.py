"""What object stores raise, as sentences; and what only asks is asked once more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from gatehub._hf import first_line
from gatehub.errors import GatehubError, HubAccessError, HubUnreachableError

T = TypeVar("T")

_RETRY_AFTER_S = 1.0
_PATIENCE_S = 10.0


def ask_twice(where: str, ask: Callable[[], T]) -> T:
    """Ask a store, once more where the answer got lost or damaged on the way.

    Args:
        where: the store, for messages.
        ask: what changes nothing there.

    Raises:
        FileNotFoundError: what is asked for is not there.
        HubAccessError: the store does not allow it.
        HubUnreachableError: no sound answer came.
    """
    began = time.monotonic()
    try:
        with reaching(where):
            return ask()
    except HubUnreachableError:
        if time.monotonic() - began > _PATIENCE_S:  # the store's own client has tried for long
            raise
    time.sleep(_RETRY_AFTER_S)
    with reaching(where):
        return ask()


@contextmanager
def reaching(where: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what a store raises into a `HubError`; see `ask_twice`.

    Args:
        where: the store, for messages.
        writing: a missing file is then an error of the store (its bucket is not there).
    """
    try:
        yield
    except (GatehubError, FileExistsError):
        raise
    except PermissionError as error:
        raise HubAccessError(
            f"{where} does not allow it: {first_line(error)}.",
            hint="Check who you are there, and what that one may do.",
        ) from error
    except Exception as error:  # each store has classes of its own for a network that fails
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
            raise
        raise HubUnreachableError(
            f"{where} cannot be used: {first_line(error)}.",
            hint="Check the address, the network, and who you are there.",
        ) from error
