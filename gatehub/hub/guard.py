"""One at a time, where several processes write the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gatehub.errors import HubError

# What is done meanwhile takes milliseconds, and a process that dies lets go.
PATIENCE_S = 60.0


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Keep out everybody else who guards the same path, for the length of a with block.

    A hidden file beside the path is locked, and stays: were it removed, one process could lock the
    removed file, and another one the next.

    Args:
        path: of the file to be read and written, or of nothing yet; the folders above it are made.

    Raises:
        HubError: another process holds it for `PATIENCE_S`, or nothing can be locked there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.guard"), timeout=PATIENCE_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise HubError(
            f"'{path}' was busy for {PATIENCE_S:.0f} s: another process is writing it.",
            hint="Stop that process if it hangs, and run the same again.",
        ) from error
    except NotImplementedError as error:
        raise HubError(
            f"'{path}' cannot be written safely: its file system does not lock files.",
            hint="Put it on another file system.",
        ) from error
    try:
        yield
    finally:
        lock.release()
