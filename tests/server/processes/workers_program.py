"""A program that serves from several processes, for tests that kill it and them.

Writes "ready URL" and "returned". A request's first label is the process that answered. Its
arguments are the number of workers and the settings, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from gatehub.errors import ServerError
from gatehub.server import ServerSettings, listen, serve_workers
from tests.server.linear_engine import LinearEngine


def make_engine(note: Callable[[str], None]) -> Any:
    note("look at this")
    if os.environ.get("REFUSE"):
        raise ServerError("It will not do.", hint="Try another.")
    if os.environ.get("DIE"):
        os._exit(3)
    engine: Any = LinearEngine(pets=[f"process {os.getpid()}"])
    if os.environ.get("HOLD"):
        engine.hold()
        threading.Thread(target=report, args=(engine,), daemon=True).start()
    return engine


def report(engine: Any) -> None:
    engine.entered.acquire()
    print("computing", flush=True)
    threading.Timer(float(os.environ["HOLD"]), engine.release).start()


def main() -> None:
    with listen() as listener:
        serve_workers(
            make_engine,
            workers=int(sys.argv[1]),
            listener=listener,
            settings=ServerSettings(**json.loads(sys.argv[2])),
            on_ready=lambda url: print("ready", url, flush=True),
            on_note=lambda note: print("note", note, flush=True),
        )
    print("returned", flush=True)


if __name__ == "__main__":
    main()
