"""A hub that only serves files, on a loopback port, for the unmodified Hub client."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAIN = "a" * 40


@dataclass
class WeightsHub:
    """What the hub holds, and what it was asked for.

    Attributes:
        url: where it listens.
        repositories: repository name → revision (a commit of 40 digits) → file name → content.
        refusals: repository name → (status, X-Error-Code) with which it answers instead.
        cut: names of files of which only the first half is sent.
        asked: (method, path) of each request.
    """

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def put(self, repository: str, files: dict[str, bytes], *, revision: str = MAIN) -> None:
        """Store a commit; "main" is the one called `MAIN`."""
        self.repositories.setdefault(repository, {})[revision] = files


@contextmanager
def serve_weights() -> Iterator[WeightsHub]:
    """Serve until the block is left."""
    hub = WeightsHub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.asked.append((self.command, self.path))
            repository, _, rest = self.path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            commit = MAIN if revision == "main" else revision
            commits = hub.repositories.get(repository)
            if repository in hub.refusals:
                self._refuse(*hub.refusals[repository])
            elif commits is None:
                self._refuse(404, "RepoNotFound")
            elif commit not in commits:
                self._refuse(404, "RevisionNotFound")
            elif name not in commits[commit]:
                self._refuse(404, "EntryNotFound", commit)
            else:
                self._send(name, commits[commit][name], commit)

        def _send(self, name: str, content: bytes, commit: str) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if name in hub.cut else content)

        def _refuse(self, status: int, code: str, commit: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            if commit is not None:
                self.send_header("X-Repo-Commit", commit)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: `asked` holds what came."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
