"""What a caller is told: sentences on the way, and what the operating system refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gatehub.errors import GatehubError, HubError, HubWarning

Report = Callable[[str], None]


def warn(sentence: str) -> None:
    """Tell a caller who has not said how to."""
    warnings.warn(sentence, HubWarning, stacklevel=3)


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
