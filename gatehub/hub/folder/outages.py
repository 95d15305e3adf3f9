"""Object stores that fail: how long they are waited for, and what they raise as sentences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec

from gatehub._huggingface.refusals import first_line
from gatehub._retries import retry
from gatehub.errors import GatehubError, HubAccessError, HubUnreachableError

T = TypeVar("T")

_RETRY_AFTER_S = 1.0
_PATIENCE_S = 10.0  # with one request: the store's own client tries several times

# Of one request to S3. By default five attempts of 15 s each are all made five times over.
S3_TIMEOUT_S = 10.0
S3_ATTEMPTS = 3


def open_store(place: str) -> tuple[Any, str]:
    """The file system behind a URL, and the path in it.

    S3 gets limits of time, unless fsspec's configuration or AWS_MAX_ATTEMPTS sets other ones.
    Other stores keep their own.
    """
    options: dict[str, Any] = {}
    if is_s3 := place.partition("://")[0].lower() in ("s3", "s3a"):
        limits: dict[str, Any] = {"connect_timeout": S3_TIMEOUT_S, "read_timeout": S3_TIMEOUT_S}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            limits["retries"] = {"mode": "standard", "total_max_attempts": S3_ATTEMPTS}
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {**limits, **given}
    fs, root = fsspec.core.url_to_fs(place, use_listings_cache=False, **options)
    if is_s3:
        fs.retries = 1  # its own, around those; the options make this instance gatehub's alone
    return fs, root


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

    def reach() -> T:
        with reaching(where):
            return ask()

    def wait(error: Exception, failed: int) -> float | None:
        return _RETRY_AFTER_S if isinstance(error, HubUnreachableError) else None

    return retry(reach, attempts=2, wait=wait, patience_s=_PATIENCE_S)


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
            hint="Check your credentials there, and what they allow.",
        ) from error
    except Exception as error:  # each store has classes of its own for a network that fails
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
            raise
        raise HubUnreachableError(
            f"{where} cannot be used: {first_line(error)}.",
            hint="Check the address, the network, and your credentials there.",
        ) from error
