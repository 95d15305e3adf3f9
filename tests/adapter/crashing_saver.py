"""Saves that die or fail half-way, in a process that does nothing else.

    python -m tests.adapter.crashing_saver FOLDER

makes a folder for each trial, in which "new" was saved over "old", and tells what became of it:

    FOLDER/killed/001…   killed before the first file operation, before the second, and so on
    FOLDER/failed/001…   that operation failed instead, as on a full or broken disk
    FOLDER/random/001…   killed at a random moment
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.adapter.sample import make_sample

NEW = make_sample(task="new")
OUTCOMES = {0: "saved", 1: "raised", 2: "saved without a disturbance", -signal.SIGKILL: "killed"}


def run(old: Path, trial: Path, *, step: int = 0, fails: bool = False) -> int:
    """Save in a child process, disturbed before one of its file operations; return its id."""
    shutil.copytree(old, trial / "fruit")
    child = os.fork()
    if child == 0:
        left = disturb(step, trial, fails=fails) if step else [0]
        try:
            NEW.save(trial / "fruit")
        except OSError:
            os._exit(1)
        os._exit(2 if left[0] > 0 else 0)
    return child


def disturb(step: int, root: Path, *, fails: bool) -> list[int]:
    """Fail, or die, before the given file operation under `root`; what is left counts down."""
    os.fsync = lambda descriptor: None  # most of the time, and nothing that a dying process needs
    left = [step]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # Opening, listing, making, renaming and removing all pass here.
        if any(str(argument).startswith(f"{root}/") for argument in arguments):
            left[0] -= 1
            if left[0] == 0 and fails:
                raise OSError(28, "No space left on device")
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return left


def wait(child: int) -> str:
    return OUTCOMES[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def disturb_each(old: Path, root: Path, *, fails: bool) -> list[str]:
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] != OUTCOMES[2]:
        step = len(outcomes) + 1
        outcomes.append(wait(run(old, root / f"{step:03d}", step=step, fails=fails)))
    return outcomes


def kill_at_random(old: Path, root: Path, trials: int) -> list[str]:
    moments, outcomes = random.Random(0), []
    for number in range(trials):
        child = run(old, root / f"{number + 1:03d}")
        # The first at once, so that some trial is in time however fast the machine is.
        time.sleep(moments.uniform(0, 0.04) * number / trials)
        os.kill(child, signal.SIGKILL)
        outcomes.append(wait(child))
    return outcomes


def main(folder: Path) -> None:
    old = make_sample(task="old").save(folder / "old")
    outcomes = {
        "killed": disturb_each(old, folder / "killed", fails=False),
        "failed": disturb_each(old, folder / "failed", fails=True),
        "random": kill_at_random(old, folder / "random", trials=12),
    }
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
