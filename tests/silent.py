"""A server that takes connections and never says a word."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def serve_silence() -> Iterator[tuple[str, list[socket.socket]]]:
    """Listen on a loopback port.

    Yields:
        The URL, and the connections that were made so far, each held open until the end.
    """
    taken: list[socket.socket] = []

    def take() -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                taken.append(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()
