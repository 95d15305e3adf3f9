"""The test hub on a loopback port, in a thread of the test's own process.

python -m tests.hub_server.serve    prints its address, and serves until Ctrl-C
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from tests.hub_server.app import make_app
from tests.hub_server.faults import Fault, Faulty
from tests.hub_server.state import State


@dataclass
class TestHub:
    """A hub that listens.

    Attributes:
        url: where.
        state: what it holds.
        faults: what it does wrong next; add to it.
    """

    __test__ = False  # pytest: no test class

    url: str
    state: State
    faults: list[Fault]


@contextmanager
def serve_hub() -> Iterator[TestHub]:
    """Serve until the block is left."""
    state, faults = State(), list[Fault]()
    # Two doors: the client reads large files only where they are at another host than the hub.
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
    url, state.files_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in listeners)
    app = Faulty(make_app(state), faults)
    # No log_config: it would change the loggers of every other test in this process.
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": listeners})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield TestHub(url, state, faults)
    finally:
        server.should_exit = True
        thread.join()
        for listener in listeners:
            listener.close()


if __name__ == "__main__":
    with serve_hub() as hub:
        print(hub.url, flush=True)
        threading.Event().wait()
