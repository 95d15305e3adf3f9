"""A program that serves, for tests that send it signals.

Writes "ready URL", "computing" for each request that reaches the engine, and "returned". The
engine holds its answers until a line comes in.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from gatehub.server import serve
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
    serve(engine, port=0, on_ready=lambda url: print("ready", url, flush=True))
    print("returned", flush=True)


if __name__ == "__main__":
    main()
