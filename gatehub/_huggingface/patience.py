"""How long the Hub may be silent, and that "too many requests" is told at once.

The client asks up to six times by itself, with pauses in between; after a 429 they are as long as
the Hub says, which may be minutes. Its version 2 waits for each answer forever. What is set here
holds only while gatehub asks: other users of the same client keep its own ways.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from huggingface_hub import get_session

from gatehub.errors import HubBusyError, HubUnreachableError

try:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
except ImportError:  # the first versions do not say which HTTP library is theirs
    httpx = import_module("httpx")

__all__ = ["PATIENCE_S", "httpx", "patient", "refuse_more"]

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
PATIENCE_S = 20.0

_RESET = re.compile(r"\bt=(\d+)")


class _Asking(threading.local):
    """What this thread asks now, since when it got no use out of it, and what it got instead.

    Uploads run in threads of the client's own, which ask nothing: there, only the limits hold.
    """

    what: str | None = None
    hub = ""
    since_s: float | None = None
    got = "did not answer in time"


_asking = _Asking()
_count = 0
_lock = threading.Lock()


@contextmanager
def patient(what: str, hub: str) -> Iterator[None]:
    """Bound the waits of everything that is asked of the Hub.

    Args:
        what: the beginning of a sentence, such as "Pushing to acme/birds".
        hub: the Hub's address, as it may be shown.

    Raises:
        HubBusyError: there were too many requests.
        HubUnreachableError: no answer came for `PATIENCE_S`, and the client would ask again.
    """
    global _count
    hooks = get_session().event_hooks
    outer = vars(_asking).copy()
    with _lock:
        _count += 1
        if _before not in hooks["request"]:
            hooks["request"].append(_before)
            hooks["response"].append(_after)
    vars(_asking).clear()
    _asking.what, _asking.hub = what, hub
    try:
        yield
    finally:
        vars(_asking).clear()
        vars(_asking).update(outer)
        with _lock:
            _count -= 1


def refuse_more(what: str, hub: str, headers: Mapping[str, str]) -> HubBusyError:
    """The sentence for a 429, with the seconds to wait where its headers say so."""
    wait = _read_wait(headers)
    when = f"Wait {wait} s" if wait is not None else "Wait a while"
    return HubBusyError(
        f"{what} failed: {hub} says there were too many requests.",
        hint=f"{when}, and run the command again.",
        retry_after_s=wait,
    )


def _read_wait(headers: Mapping[str, str]) -> int | None:
    if (after := headers.get("Retry-After", "")).isdecimal():
        return int(after)
    found = _RESET.search(headers.get("RateLimit", ""))
    return None if found is None else int(found[1])


def _before(request: Any) -> None:
    limits = request.extensions.get("timeout", {})
    if _count and not any(limits.values()):
        limits = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S).as_dict()
        request.extensions = {**request.extensions, "timeout": limits}
    if _asking.what is None:
        return
    if _asking.since_s is None:
        _asking.since_s = time.monotonic()
    elif time.monotonic() - _asking.since_s > PATIENCE_S:
        raise HubUnreachableError(
            f"{_asking.what} failed: {_asking.hub} {_asking.got}.", hint="Try again later."
        )


def _after(response: Any) -> None:
    if _asking.what is None:
        return
    if response.status_code == 429:
        raise refuse_more(_asking.what, _asking.hub, response.headers)
    if response.status_code >= 500:
        _asking.got = f"answered {response.status_code}"
    else:
        _asking.since_s = None
