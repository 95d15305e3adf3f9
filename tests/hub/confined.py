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
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.source_tree import ROOT

NAMESPACE = ("unshare", "--map-root-user", "--mount")
SMALL_BYTES = 131_072
GATEHUB = (sys.executable, "-c", "from gatehub.cli import main; main()")


def find_obstacle() -> str:
    """Why nothing can be mounted here; empty where it can."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "there is no unshare or no mount here"
    trial = "mount -t tmpfs none /mnt && mount --bind /mnt /mnt && mount -o remount,bind,ro /mnt"
    done = subprocess.run([*NAMESPACE, "sh", "-c", trial], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"nothing can be mounted here: {done.stderr.strip()}"


def confine(
    *run: tuple[object, ...], small: tuple[Path, ...] = (), readonly: tuple[Path, ...] = ()
) -> list[dict[str, Any]]:
    """Run commands, and return what each left; see above.

    Args:
        run: the arguments of each.
        small: places that hold 128 KiB.
        readonly: places that cannot be written.
    """
    job = {
        "small": {str(path): SMALL_BYTES for path in small},
        "readonly": [str(path) for path in readonly],
        "run": [[str(argument) for argument in arguments] for arguments in run],
    }
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.hub.confined"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


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
        done = subprocess.run([*GATEHUB, *arguments], capture_output=True, text=True)
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
