"""The HTTP server: one engine, a route for each task.

    with running_server(engine) as url:
        httpx.post(f"{url}/tasks/birds", content=Path("photo.jpg").read_bytes()).json()

`serve` does the same in the foreground, until a signal, and `serve_workers` from several processes;
`listen` takes an address before there is an engine; `create_app` gives the bare ASGI application to
any other server.
"""

from __future__ import annotations

from gatehub.server.app import create_app
from gatehub.server.listening import Listener, listen
from gatehub.server.processes.serve_workers import serve_workers
from gatehub.server.serve import running_server, serve
from gatehub.server.settings import ServerSettings

__all__ = [
    "Listener",
    "ServerSettings",
    "create_app",
    "listen",
    "running_server",
    "serve",
    "serve_workers",
]
