"""The Hugging Face Hub's refusals and silences as sentences, for all that speaks to it.

`huggingface_hub` raises its own classes, those of an HTTP library that differs between its
versions 1 and 2, and builtins. Each becomes one `HubError` with a hint; no token and no
password of a URL is ever in it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.errors import RepositoryNotFoundError as HfRepositoryNotFoundError
from huggingface_hub.errors import RevisionNotFoundError as HfRevisionNotFoundError

from gatehub._huggingface.patience import PATIENCE_S, httpx, patient, refuse_more
from gatehub._huggingface.tokens import advise_login, choose_token
from gatehub._retries import retry
from gatehub._text import shorten
from gatehub.errors import (
    GatehubError,
    HubAccessError,
    HubBusyError,
    HubError,
    HubFileNotFoundError,
    HubNameError,
    HubUnreachableError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

__all__ = [
    "CLIENT_ERRORS",
    "asking",
    "current_endpoint",
    "explain",
    "find_cause",
    "first_line",
    "httpx",
    "may_pass",
    "persist",
    "redact",
]

RETRY_AFTER_S = 1.0

T = TypeVar("T")

# Everything that a call of huggingface_hub is known to raise; ValueError, TypeError, KeyError and
# RuntimeError come of malformed answers and of uploads that failed in a thread.
CLIENT_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    EntryNotFoundError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
)

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{4,}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_DISK = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Make it writable",
    errno.EPERM: "Make it writable",
}


class _Redacting(logging.Filter):
    """Takes secrets out of what the client logs: it writes down the addresses that it asks."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


for _room in ("utils._http", "file_download", "hf_api", "lfs"):
    logging.getLogger(f"huggingface_hub.{_room}").addFilter(_Redacting())
logging.getLogger(httpx.__name__).addFilter(_Redacting())


def current_endpoint() -> str:
    """The address of the Hub, from the environment as it is now or as the client read it."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


@contextmanager
def asking(
    what: str,
    repository: str,
    *,
    endpoint: str,
    revision: str | None = None,
    filename: str | None = None,
) -> Iterator[None]:
    """Ask the Hub within time limits, and turn what the client raises into a `HubError`.

    Args:
        what: the beginning of a sentence, such as "Pushing to acme/birds".
        repository: `org/name`.
        endpoint: the Hub's address.
        revision: the one asked for, if any.
        filename: the one asked for, if any.
    """
    try:
        with patient(what, redact(endpoint)):
            yield
    except GatehubError:
        raise
    except CLIENT_ERRORS as error:
        raise explain(
            error,
            what,
            repository,
            endpoint=endpoint,
            revision=revision,
            filename=filename,
        ) from error


def persist(ask: Callable[[], T]) -> T:
    """Ask once more where the Hub did not answer, for requests that change nothing twice."""

    def wait(error: Exception, failed: int) -> float | None:
        return RETRY_AFTER_S if may_pass(error) else None

    return retry(ask, attempts=2, wait=wait, patience_s=PATIENCE_S)


def may_pass(error: Exception) -> bool:
    """Whether the Hub may answer if it is asked again soon: it failed, or was silent."""
    return (
        isinstance(error, HubUnreachableError)
        and not isinstance(error, HubBusyError)
        and not isinstance(error.__cause__, OfflineModeIsEnabled)
    )


def explain(
    error: BaseException,
    what: str,
    repository: str,
    *,
    endpoint: str,
    revision: str | None = None,
    filename: str | None = None,
) -> HubError:
    """The one sentence and hint for what huggingface_hub raised; see `asking`."""
    error = find_cause(error)
    hub = redact(endpoint)
    match error:
        case HubError():  # of `patient`, wrapped by the client
            return error
        case GatedRepoError():
            return HubAccessError(
                f"{repository} on {hub} is gated, and you have no access to it.",
                hint=f"Ask for access at {hub}/{repository}, and log in with the account that has "
                "it (`hf auth login`, or HF_TOKEN).",
            )
        case HfRepositoryNotFoundError():
            known = "that you may see" if get_token() else "that may be seen without a token"
            return RepositoryNotFoundError(
                f"There is no repository {repository} on {hub} {known}.",
                hint=f"Check the name. If it is private: {advise_login(hub)}",
            )
        case HfRevisionNotFoundError():
            return RevisionNotFoundError(
                f"{repository} has no branch, tag or commit '{revision or 'main'}' on {hub}.",
                hint=f"See {hub}/{repository}/tree/main for what it has.",
            )
        case OfflineModeIsEnabled():
            return HubUnreachableError(
                f"{what} needs {hub}, but HF_HUB_OFFLINE is set.", hint="Unset HF_HUB_OFFLINE."
            )
        case LocalTokenNotFoundError():
            return HubAccessError(
                f"{what} needs a token, and there is none.", hint=advise_login(hub)
            )
        case LocalEntryNotFoundError():  # IncompleteSnapshotError is one, where there is it
            return HubUnreachableError(
                f"{what} failed: {hub} gave no usable answer.",
                hint="Check the network and HF_ENDPOINT.",
            )
        case EntryNotFoundError():
            return HubFileNotFoundError(
                f"{repository} has no {filename or 'such file'} at '{revision or 'main'}'.",
                hint=f"See {hub}/{repository} for what it has.",
            )
        case HfHubHTTPError():
            return _explain_status(error, what, repository, hub)
        case HFValidationError():
            return HubNameError(
                f"'{repository[:100]}' is not a repository name for {hub}.", hint="Give ORG/NAME."
            )
        case httpx.TimeoutException():
            return HubUnreachableError(
                f"{what} failed: {hub} did not answer in time.", hint="Try again."
            )
        case httpx.HTTPError() | httpx.InvalidURL():
            return HubUnreachableError(
                f"{what} failed: {hub} cannot be reached ({first_line(error)}).",
                hint="Check the network and HF_ENDPOINT.",
            )
        case ConnectionError():  # what hf-xet raises where an endpoint has no xet routes
            return HubUnreachableError(
                f"{what} failed in the xet transfer ({first_line(error)}), which {hub} may not "
                "offer.",
                hint="Set HF_HUB_DISABLE_XET=1 and run the command again.",
            )
        case OSError() if error.errno is not None:
            where = f" ({error.filename})" if error.filename else ""
            do = _DISK.get(error.errno, "Put it right")
            return HubError(
                f"{what} failed: {os.strerror(error.errno)}{where}.",
                hint=f"Nothing half-written is left in its place. {do}, and run the command again.",
            )
    return HubError(
        f"{what} failed: {hub} gave no valid answer ({first_line(error)}).",
        hint="Check that the address is that of a Hub.",
    )


def _explain_status(error: HfHubHTTPError, what: str, repository: str, hub: str) -> HubError:
    status = error.response.status_code
    said = _one_line(error.server_message or "")
    told = f" and said: {said}" if said else ""
    if status == 401:
        if get_token() is None or choose_token(hub) is False:
            return HubAccessError(
                f"{what} needs a token, and none was sent.", hint=advise_login(hub)
            )
        return HubAccessError(
            f"{hub} does not know the token that was sent.", hint=advise_login(hub)
        )
    if status == 403:
        return HubAccessError(
            f"{what} is not allowed with this token: {hub} answered 403{told}.",
            hint="Use a token with that permission (`hf auth login`, or HF_TOKEN), or another ORG.",
        )
    if status == 429:  # of an upload, which runs in a thread of its own
        return refuse_more(what, hub, error.response.headers)
    if status >= 500:
        return HubUnreachableError(
            f"{what} failed: {hub} answered {status}{told}.", hint="Try again later."
        )
    return HubError(
        f"{what} failed: {hub} answered {status}{told}.",
        hint="Check the name and the revision, and that the address is that of a Hub.",
    )


def find_cause(error: BaseException) -> BaseException:
    """What lies behind the errors with which the client wraps another one."""
    wrappers = (LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and isinstance(error.__cause__, CLIENT_ERRORS):
        error = error.__cause__
    return error


def redact(text: str) -> str:
    """The text without tokens and without the user's part of URLs."""
    token = get_token()
    if token:
        text = text.replace(token, "hf_…")
    return _CREDENTIALS.sub("…@", _TOKEN.sub("hf_…", text))


def first_line(error: BaseException) -> str:
    """What an error says, in one line that holds no secret; see `gatehub._text.first_line`."""
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return shorten(redact(text)).rstrip(". ")
