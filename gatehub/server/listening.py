"""The address of a server: taken before anything is loaded, so that a conflict is told at once."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gatehub._text import quote
from gatehub.errors import ServerError

# Whoever may write to it may ask: the user that the server runs as, and its group.
_SOCKET_MODE = 0o660


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that is listened on. Who connects waits until the server accepts.

    Args:
        socket: of the system.
        url: what clients call it; "unix:" and a path, for a socket in a folder.
    """

    socket: socket.socket
    url: str


@contextmanager
def listen(
    host: str = "127.0.0.1", port: int = 0, *, path: str | Path | None = None
) -> Iterator[Listener]:
    """Take an address, for the length of a with block.

    Args:
        host: address to listen on, of IPv4 or IPv6; the default cannot be reached from other
            machines.
        port: to listen on; 0 picks a free one.
        path: of a Unix socket to make instead. What a server that was killed has left there is
            replaced, and nothing else is.

    Raises:
        ServerError: the address cannot be listened on.
    """
    if path is not None:
        with _listen_in_folder(Path(path)) as listener:
            yield listener
        return
    if not 0 <= port <= 65535:
        raise ServerError(f"Port {port} does not exist; ports are 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ServerError(
            f"Cannot listen on {host} port {port}: {_reason(error)}.",
            hint="Choose another port, or 0 for any free one.",
        ) from error
    with opened:
        # Each connection inherits it. asyncio sets it on sockets that say that they are TCP's, and
        # `create_server` makes one that does not; an answer's body would then wait for the client
        # to acknowledge its head, which clients put off for 40 ms.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = opened.getsockname()[:2]
        yield Listener(
            opened, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        )


@contextmanager
def _listen_in_folder(path: Path) -> Iterator[Listener]:
    if not hasattr(socket, "AF_UNIX"):
        raise ServerError("This system has no Unix sockets.", hint="Listen on a port.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        try:
            if _is_left_over(path):
                path.unlink()
            before = os.umask(0o777 & ~_SOCKET_MODE)
            try:
                opened.bind(os.fspath(path))
            finally:
                os.umask(before)
            opened.listen()
            own = path.stat().st_ino
        except OSError as error:
            raise ServerError(
                f"Cannot listen on {quote(str(path))}: {_reason(error)}.",
                hint="Choose another path, of at most 100 characters, that nothing lies at.",
            ) from error
        try:
            yield Listener(opened, f"unix:{path}")
        finally:
            with suppress(OSError):
                if path.stat().st_ino == own:  # another server may have taken it
                    path.unlink()


def _reason(error: OSError) -> str:
    # Without what Python adds in some versions. A name that is not found has a number of its own.
    known = not isinstance(error, socket.gaierror) and error.errno
    return os.strerror(known) if known else error.strerror or str(error)


def _is_left_over(path: Path) -> bool:
    """Whether a socket lies there to which nobody listens."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        return False
