"""Commands on file systems that are full or read-only, in a mount namespace that ends with them.

    unshare --map-root-user --mount python -m tests.hub.confined

Reads one JSON object: {"small": {PLACE: bytes}, "readonly": [PLACE], "run": [[ARGUMENT]]}, mounts
a tmpfs of so many bytes at each small place and makes the others read-only, runs each
`gatehub ARGUMENT...`, and prints a JSON list of {"status", "out", "err", "left"}: `left` has the
size of every file in the small places after it. An argument list that begins with "fill" writes
zeros to the file that follows until nothing more fits; one that begins with "rm" removes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GATEHUB = (sys.executable, "-c", "from gatehub.cli import main; main()")


def main() -> None:
    job = json.load(sys.stdin)
    for place, size in job["small"].items():
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    for place in job["readonly"]:
        subprocess.run(["mount", "--bind", place, place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    results = []
    for arguments in job["run"]:
        results.append({**run(arguments), "left": find_files(job["small"])})
    print(json.dumps(results))


def run(arguments: list[str]) -> dict[str, Any]:
    command, *rest = arguments
    if command == "fill":
        fill(Path(rest[0]))
    elif command == "rm":
        Path(rest[0]).unlink()
    else:
        done = subprocess.run([*GATEHUB, *arguments], capture_output=True, text=True, timeout=120)
        return {"status": done.returncode, "out": done.stdout, "err": done.stderr}
    return {"status": 0, "out": "", "err": ""}


def fill(path: Path) -> None:
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


def find_files(places: dict[str, int]) -> dict[str, int]:
    return {
        str(path): path.stat().st_size
        for place in places
        for path in sorted(Path(place).rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()
