"""Run the application: take an address, say when it accepts, serve, drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from gatehub.server.app import Gather, create_app
from gatehub.server.connections import Connection, check_uvicorn
from gatehub.server.lifecycle import Lifecycle
from gatehub.server.listening import Listener, listen
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from gatehub.runtime.engine import Engine

# Longer than common clients keep an idle connection, so that they are the ones to close it;
# the other way round, a request can meet a connection that is just being closed.
_KEEP_ALIVE_S = 30
# Requests that the server gives up have an answer to get out.
_LAST_ANSWERS_S = 5


def serve(
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    listener: Listener | None = None,
    settings: ServerSettings | None = None,
    path_prefix: str = "",
    tracer_provider: TracerProvider | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve an engine's tasks until SIGINT or SIGTERM, then finish what is in flight.

    The first signal makes the server unready; it accepts for `drain_grace_s` more, and returns once
    the last answer is sent, or after `drain_timeout_s`. A second signal ends the process at once.
    Signals reach a program's main thread only: anywhere else, use `running_server`.

    Args:
        engine: tasks may be loaded, replaced and unloaded meanwhile.
        host: address to listen on; the default cannot be reached from other machines.
        port: to listen on; 0 picks a free one.
        listener: an address that was taken before, by `listen`; then host and port mean nothing.
        settings: limits; None for the defaults.
        path_prefix: see `create_app`; the server's URL ends with it.
        tracer_provider: see `create_app`.
        on_ready: called once, in a thread of its own, with the server's URL as soon as it
            answers.

    Raises:
        ServerError: the address cannot be listened on, or a prefix that is no path.
    """
    with listen(host, port) if listener is None else nullcontext(listener) as taken:
        server = make_server(engine, taken, settings, path_prefix, tracer_provider, on_ready)
        server.run(sockets=[taken.socket])


@contextmanager
def running_server(
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: Listener | None = None,
    settings: ServerSettings | None = None,
    path_prefix: str = "",
    tracer_provider: TracerProvider | None = None,
) -> Iterator[str]:
    """Serve an engine's tasks from a background thread, for the length of a with block.

    Args:
        engine: as for `serve`, and so is all the rest.

    Yields:
        The server's URL. At the end of the block requests in flight are finished.

    Raises:
        ServerError: the address cannot be listened on, or a prefix that is no path.
    """
    url: Future[str] = Future()
    with listen(host, port) if listener is None else nullcontext(listener) as taken:
        server = make_server(engine, taken, settings, path_prefix, tracer_provider, url.set_result)

        def run() -> None:
            try:
                server.run(sockets=[taken.socket])
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


class Server(uvicorn.Server):
    """uvicorn's server, which says when it accepts requests, and drains in steps.

    Args:
        config: uvicorn's.
        lifecycle: of the application.
        settings: see `ServerSettings`.
        announce: called when the server accepts.

    Attributes:
        supervised: whether another process decides on its end; then no signal ends it at once, and
            SIGINT, which a terminal sends to all processes, means nothing.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        settings: ServerSettings,
        announce: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._settings = settings
        self._announce = announce
        self._exit_at = float("inf")
        self.supervised = False

    def stop(self) -> None:
        """Begin to stop; callable from any thread, and more than once."""
        self._lifecycle.stop()
        self._exit_at = min(self._exit_at, time.monotonic() + self._settings.drain_grace_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # In a thread: the callback may itself ask the server something.
        await asyncio.to_thread(self._announce)

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.stop()
        asyncio.get_running_loop().call_later(self._settings.drain_timeout_s, self._lifecycle.end)
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at a first signal, and die of a second one.

        uvicorn's own handler notes a signal, to raise it again once the server has drained: by
        default that kills the process, with no chance for the caller to clean up.
        """
        if self.supervised:
            if sig != signal.SIGINT:
                self.stop()
            return
        if self._lifecycle.stopping:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self.stop()


def make_server(
    engine: Engine,
    listener: Listener,
    settings: ServerSettings | None,
    path_prefix: str,
    tracer_provider: TracerProvider | None,
    on_ready: Callable[[str], None],
    *,
    gather: Gather | None = None,
) -> Server:
    """Build a server that accepts from an address that was taken; the rest as for `serve`."""
    check_uvicorn()
    settings = settings or ServerSettings()
    app = create_app(
        engine,
        settings=settings,
        path_prefix=path_prefix,
        tracer_provider=tracer_provider,
        gather=gather,
    )
    url = f"{listener.url}{app.state.path_prefix}"
    config = uvicorn.Config(
        app,
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
        timeout_graceful_shutdown=settings.drain_timeout_s + _LAST_ANSWERS_S,
    )
    return Server(config, app.state.lifecycle, settings, lambda: on_ready(url))
