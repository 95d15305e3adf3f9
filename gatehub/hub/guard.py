"""One at a time, where several processes write the same file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from gatehub.errors import HubError

# What is done meanwhile takes milliseconds, and a process that dies lets go.
PATIENCE_S = 60.0
_POLL_S = 0.01


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Keep out everybody else who guards the same path, for the length of a with block.

    A hidden file beside the path is locked meanwhile.

    Args:
        path: of the file to be read and written, or of nothing yet; the folders above it are made.

    Raises:
        HubError: another process holds it for `PATIENCE_S`, or nothing can be locked there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = path.with_name(f".{path.name}.guard")
    began = time.monotonic()
    while (descriptor := _lock(guard)) is None:
        if time.monotonic() - began > PATIENCE_S:
            raise HubError(
                f"'{path}' was busy for {PATIENCE_S:.0f} s: another process is writing it.",
                hint="Stop that process if it hangs, and run the command again.",
            )
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        with suppress(OSError):
            guard.unlink()  # while it is locked, so that it is no other's; see `_lock`
        unlock_descriptor(descriptor)
        os.close(descriptor)
        if os.name != "posix":  # Windows removes only what nobody has open
            with suppress(OSError):
                guard.unlink()


def _lock(guard: Path) -> int | None:
    """Open a file and lock it; None if another has done so, or has removed it since."""
    descriptor = os.open(guard, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if lock_descriptor(descriptor, blocking=False) and os.fstat(descriptor).st_nlink > 0:
            return descriptor
    except OSError as error:
        os.close(descriptor)
        raise HubError(
            f"'{guard}' cannot be locked: {error.strerror or error}.",
            hint="Use a file system that locks files.",
        ) from error
    os.close(descriptor)
    return None
