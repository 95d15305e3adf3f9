"""Count in a file: python -m tests.hub.counter FILE TIMES"""

from __future__ import annotations

import sys
from pathlib import Path

from gatehub.hub.guard import guarded


def main(path: Path, times: int) -> None:
    """Add one to the number in a file, so many times, each time reading it anew."""
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(times):
        with guarded(path):
            path.write_text(str(int(path.read_text()) + 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
