"""Pulls in processes of their own, which begin at the same moment.

    python -m tests.hub.puller HUB LOCK NAME...

Each is a fork, which spares it the seconds that imports take.
"""

from __future__ import annotations

import os
import sys
import traceback

import gatehub.adapter.files
from gatehub.hub import pull


def main(hub: str, lock: str, names: list[str]) -> int:
    """Pull each name with one lock file, and return how many failed."""
    assert gatehub.adapter.files
    begin, end = os.pipe()
    children = []
    for name in names:
        child = os.fork()
        if child == 0:
            os.close(end)
            os.read(begin, 1)  # until the parent closes its end
            try:
                pull(name, hub=hub, lock=lock)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(end)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
