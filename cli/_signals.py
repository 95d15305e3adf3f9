"""Signals that end a command as an error ends it, so that it cleans up behind itself."""

from __future__ import annotations

import signal
import sys
from types import FrameType

# A closed terminal sends the first, `kill`, systemd, containers and time limits the second,
# a limit of processor time the third.
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGXCPU") if hasattr(signal, name)
)


def unwind_on_signals() -> None:
    """Let these signals raise SystemExit in the main thread, with 128 plus their number.

    By default they end a process at once, and what it was just making stays half made. Those
    that whoever started the command has set to be ignored, as `nohup` does, stay ignored.
    """
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)


def _unwind(number: int, frame: FrameType | None) -> None:
    # Some send one after the other. The second must not end the cleaning up; SIGKILL still does.
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)
