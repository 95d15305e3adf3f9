"""A program that serves, for tests that send it signals.

Writes "ready URL", "computing" for each request that reaches the engine, and "returned". The
engine holds its answers until a line comes in. Its argument is the settings, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from gatehub.server import ServerSettings, serve
from tests.server.linear_engine import LinearEngine


def main() -> None:
    engine: Any = LinearEngine(pets=["cat", "dog"])
    engine.hold()

    def release() -> None:
        sys.stdin.readline()
        engine.release()

    def report() -> None:
        while engine.entered.acquire():
            print("computing", flush=True)

    for job in (release, report):
        threading.Thread(target=job, daemon=True).start()
    settings = ServerSettings(**json.loads(sys.argv[1]))
    serve(engine, port=0, settings=settings, on_ready=lambda url: print("ready", url, flush=True))
    print("returned", flush=True)


if __name__ == "__main__":
    main()
