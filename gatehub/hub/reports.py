"""What a caller is told: sentences on the way, and what the operating system refuses."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gatehub.errors import GatehubError, HubError, HubUnreachableError, HubWarning

Report = Callable[[str], None]

# What a mounted drive says while its server is away; not every system has each.
_NAMES = (
    "EIO ENODEV ENXIO ENOTCONN ESTALE EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET "
    "ECONNABORTED ECONNRESET ETIMEDOUT EREMOTEIO"
)
_AWAY = {number for number, name in errno.errorcode.items() if name in _NAMES.split()}


def warn(sentence: str) -> None:
    """Tell a caller who has not said how to."""
    warnings.warn(sentence, HubWarning, stacklevel=4)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses (full disk, no permission) into a sentence."""
    try:
        yield
    except GatehubError:  # some of them are OSErrors too
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HubError(
            f"{doing} failed: {error.strerror or error}{where}.",
            hint="Nothing half-written is left in its place. Fix that, and run the command again.",
        ) from error


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Tell a mounted hub that does not answer from what else the operating system refuses.

    Raises:
        HubUnreachableError: the drive's server is away.
    """
    try:
        yield
    except GatehubError:
        raise
    except OSError as error:
        if error.errno not in _AWAY:
            raise
        raise HubUnreachableError(
            f"{where} cannot be read: {os.strerror(error.errno)}.",
            hint="Check the drive and its server.",
        ) from error
