"""Swap tasks in and out, and print whether the answers stayed the same and memory grew.

    python -m tests.runtime.swapping_program 10000      → "True 0.0012"

One folded task fits at a time, so every request folds its task anew. Memory is the resident set
after the last swap, over that after the first 500.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gatehub.adapter import Adapter
from gatehub.runtime.engine import Engine
from tests.tiny import make_backbone, make_trained, random_images


def swap(swaps: int) -> tuple[bool, float]:
    backbone = make_backbone()
    adapters = {
        f"task{seed}": Adapter.from_model(make_trained(backbone, seed=seed), task="t")
        for seed in range(8)
    }
    images = random_images(1)
    sizing = Engine(backbone)
    sizing.load("task", adapters["task0"])
    engine = Engine(backbone, folded_bytes=sizing.memory()[0].bytes)
    for task, adapter in adapters.items():
        engine.load(task, adapter)
    tasks = list(adapters)
    first = {task: engine.predict(task, images) for task in tasks}
    same, before = True, 0
    for number in range(swaps):
        task = tasks[number % len(tasks)]
        same &= torch.equal(engine.predict(task, images), first[task])
        if number == min(500, swaps // 2):
            before = _resident_bytes()
    assert engine.memory()[0].misses >= swaps
    return same, _resident_bytes() / before - 1


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*swap(int(sys.argv[1])))
