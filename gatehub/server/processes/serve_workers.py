"""Serve from several processes: the call, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gatehub.errors import ServerError
from gatehub.server.app import check_path_prefix
from gatehub.server.listening import Listener
from gatehub.server.processes.supervisor import Supervisor
from gatehub.server.processes.worker import WorkerPlan
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from gatehub.runtime.engine import Engine


def serve_workers(
    make_engine: Callable[[Callable[[str], None]], Engine],
    *,
    workers: int,
    listener: Listener,
    settings: ServerSettings | None = None,
    path_prefix: str = "",
    on_ready: Callable[[str], None],
    on_note: Callable[[str], None] = lambda note: None,
) -> None:
    """Serve from several processes behind one address, until SIGINT or SIGTERM; see `serve`.

    Each has an engine and limits of its own. One that dies is replaced; a second signal kills all.
    From a program's main thread only.

    Args:
        make_engine: makes an engine in each process, and is given a function that takes notes for
            `on_note`. A function or an object of a module, which a new process can find.
        workers: how many processes.
        listener: an address from `listen`.
        settings: of each process; None for the defaults.
        path_prefix: see `create_app`.
        on_ready: called once with the server's URL, as soon as all of them answer.
        on_note: called with each note, once for all processes.

    Raises:
        ServerError: fewer than one worker, or one that cannot begin to serve.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ServerError(f"workers is {workers!r}; expected a whole number of at least 1.")
    plan = WorkerPlan(
        make_engine=make_engine,
        workers=workers,
        url=listener.url,
        settings=settings or ServerSettings(),
        path_prefix=check_path_prefix(path_prefix),
    )
    Supervisor(plan, listener, on_ready=on_ready, on_note=on_note).run()
