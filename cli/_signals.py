"""Signals that end a command as an error ends it, so that it cleans up behind itself."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# A closed terminal sends the first, `kill`, systemd, containers and time limits the second,
# a limit of processor time the third.
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGXCPU") if hasattr(signal, name)
)
_PAUSE_S = 0.02
# Torch's destructor of a loader whose workers a signal found half started: it wants all of them.
_HALF_MADE = "_MultiProcessingDataLoaderIter.__del__"


class _Ended(SystemExit):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def unwind_on_signals() -> None:
    """Let these signals raise SystemExit in the main thread, with 128 plus their number.

    By default they end a process at once, and what it was just making stays half made. Those
    that whoever started the command has set to be ignored, as `nohup` does, stay ignored.

    What is raised in a destructor, or while a process is forked, Python prints and drops. There it
    is raised once more, Ctrl-C likewise; else the command would go on as if nothing had been sent.
    """
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)
    show = sys.unraisablehook

    def hold(dropped: UnraisableHookArgs) -> None:
        error = dropped.exc_value
        if isinstance(error, _Ended):
            signal.signal(error.number, _unwind)
            _send_again(error.number)
        elif isinstance(error, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        elif getattr(dropped.object, "__qualname__", None) != _HALF_MADE:
            show(dropped)

    sys.unraisablehook = hold


def _unwind(number: int, frame: FrameType | None) -> None:
    # Some send one after the other. The second must not end the cleaning up; SIGKILL still does.
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise _Ended(number)


def _send_again(number: int) -> None:
    """Let the main thread take a signal once it has come out of where it is now."""

    def send() -> None:
        time.sleep(_PAUSE_S)
        _thread.interrupt_main(signal.Signals(number))

    threading.Thread(target=send, daemon=True).start()
