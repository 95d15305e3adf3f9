"""Pushes in processes of their own, for tests in which they race and die.

    python -m tests.hub.pusher race HUB FOLDER...
    python -m tests.hub.pusher die BASE HUBS FOLDER

It imports what stores and nothing more, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from gatehub.errors import HubConflictError
from gatehub.hub.folder.hub import FolderHub
from tests.hub.plain import push


def race(hub: Path, *folders: Path) -> None:
    """Push each folder once when a line arrives, and print what became of each."""
    store = FolderHub(hub)
    print("ready", flush=True)
    sys.stdin.readline()
    for folder in folders:
        try:
            outcome = {"commit": push(store, folder, message=folder.name).commit}
        except HubConflictError as error:
            outcome = {"expected": error.expected or "", "found": error.found or ""}
        print(json.dumps({"folder": folder.name, **outcome}), flush=True)


def die(base: Path, hubs: Path, folder: Path) -> None:
    """Push to a copy of `base` and die before the first file operation in it; to the next copy,
    and die before the second; and so on, until a push has nothing left to die of."""
    for step in range(1, 1_000):
        hub = hubs / f"{step:03d}"
        shutil.copytree(base, hub)
        child = os.fork()
        if child == 0:
            os.fsync = lambda fd: None  # what a power cut needs, a kill does not
            _kill_at(step, str(hub))
            push(FolderHub(hub), folder)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def _kill_at(step: int, root: str) -> None:
    left = step

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # Opening, listing, making, linking, renaming and removing all pass here.
        nonlocal left
        paths = (str(argument) for argument in arguments if isinstance(argument, str | Path))
        if any(path.startswith(root) for path in paths):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[2:]]
    if sys.argv[1] == "die":
        die(*paths)
    else:
        race(*paths)
