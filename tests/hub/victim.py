"""Pushes and pulls in processes of their own that are killed at a moment.

    python -m tests.hub.victim

Reads one JSON object a line: {"do": "push" or "pull", "folder", "name", "hub", "kill_after_s"},
does it in a fork, kills that after so many seconds (null: never), and prints one JSON object:
{"killed": bool, "seconds": float}. Forking spares each of them the seconds that imports take.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import gatehub.adapter.files
import gatehub.hub.huggingface.hub
from gatehub.hub import pull, push


def run(job: dict[str, str]) -> None:
    if job["do"] == "push":
        push(job["folder"], job["name"], hub=job["hub"])
    else:
        pull(job["name"], hub=job["hub"], out=job["folder"])


def main() -> None:
    assert gatehub.adapter.files
    assert gatehub.hub.huggingface.hub
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                run(job)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(3)
            os._exit(0)
        killed = False
        if job["kill_after_s"] is not None:
            time.sleep(job["kill_after_s"])
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        if not killed and os.WEXITSTATUS(status) != 0:
            sys.exit("the job failed by itself")
        print(json.dumps({"killed": killed, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
