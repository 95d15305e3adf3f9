"""Run the application: bind, say when it accepts, serve, drain."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from gatehub.errors import ServerError
from gatehub.server.app import create_app
from gatehub.server.connections import Connection
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from gatehub.runtime.engine import Engine

# Longer than common clients keep an idle connection, so that they are the ones to close it;
# the other way round, a request can meet a connection that is just being closed.
_KEEP_ALIVE_S = 30


def serve(
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServerSettings | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve an engine's tasks until SIGINT or SIGTERM, then finish what is in flight.

    Returns once the last answer is sent, or `drain_timeout_s` is over; a second SIGINT does
    not wait. Signals reach a program's main thread only: anywhere else, use `running_server`.

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        host: address to listen on; the default cannot be reached from other machines.
        port: Port to listen on; 0 picks a free one.
        settings: limits; None for the defaults.
        on_ready: called once, in a thread of its own, with the server's URL as soon as it
            answers.

    Raises:
        ServerError: the address cannot be listened on.
    """
    with _listen(host, port) as listener:
        server = _server(engine, listener, settings, on_ready)
        with _stopped_by_signals(server):
            server.run(sockets=[listener])


@contextmanager
def running_server(
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: ServerSettings | None = None,
) -> Iterator[str]:
    """Serve an engine's tasks from a background thread, for the length of a with block.

    Yields:
        The server's URL. At the end of the block requests in flight are finished.

    Raises:
        ServerError: the address cannot be listened on.
    """
    url: Future[str] = Future()
    with _listen(host, port) as listener:
        server = _server(engine, listener, settings, url.set_result)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            except BaseException as error:
                if url.done():
                    raise
                url.set_exception(error)

        thread = threading.Thread(target=run, name="gatehub-server")
        thread.start()
        try:
            yield url.result()
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it accepts requests."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # In a thread: the callback may itself ask the server something.
        await asyncio.to_thread(self._announce)


def _server(
    engine: Engine,
    listener: socket.socket,
    settings: ServerSettings | None,
    on_ready: Callable[[str], None],
) -> _Server:
    settings = settings or ServerSettings()
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        create_app(engine, settings=settings),
        # uvicorn's own configuration would write to stdout, which belongs to results. Without
        # one, warnings and errors go to stderr, or wherever the program configures logging.
        log_config=None,
        # uvicorn calls it as it would call its own class.
        http=cast(Any, partial(Connection, settings=settings)),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    return _Server(config, lambda: on_ready(url))


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded, so that the port is known and a conflict is told early."""
    if not 0 <= port <= 65535:
        raise ServerError(f"Port {port} does not exist; ports are 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ServerError(
            f"Cannot listen on {host} port {port}: {error.strerror}.",
            hint="Choose another port, or 0 for any free one.",
        ) from error


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server and not the program.

    uvicorn raises a signal again once it has drained, for whoever handled it before. By
    default that kills the process, with no chance for the caller to clean up. So its own
    handler stands underneath as well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
