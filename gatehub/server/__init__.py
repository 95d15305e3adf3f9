"""The HTTP server: one engine, a route for each task.

    with running_server(engine) as url:
        httpx.post(f"{url}/tasks/birds", content=Path("photo.jpg").read_bytes()).json()

`serve` does the same in the foreground, until a signal; `create_app` gives the bare ASGI
application to any other server.
"""

from __future__ import annotations

from gatehub.server.app import create_app
from gatehub.server.serve import running_server, serve
from gatehub.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "running_server", "serve"]
