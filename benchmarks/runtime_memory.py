"""How much memory tasks take, read from outside the process that holds them.

    python -m benchmarks.runtime_memory resnet18 auto 100 8     what the child prints: "ready"

The child loads its tasks, answers for as many as may be folded, says that it is ready, and waits;
the parent reads its resident set from /proc.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.runtime_tasks import make_adapter, make_backbone, random_images
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.heap import return_free_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a process holds.

    Args:
        resident: bytes of its resident set.
        folded: bytes of folded weights, as the engine counts them.
        gates: bytes of gates, as the engine counts them.
    """

    resident: int
    folded: int
    gates: int


def measure(name: str, gates: str, tasks: int, folded: int) -> Held:
    """Start a process with so many tasks, and read what it holds once it is ready.

    Args:
        name: of the backbone.
        gates: kind of the tasks' gates.
        tasks: how many; 0 for the backbone alone, as a timm model that has answered a batch of 8.
        folded: how many of them fit the budget of folded weights.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.runtime_memory",
        name,
        gates,
        str(tasks),
        str(folded),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        counted = child.stdout.readline().split()
        if len(counted) != 2:
            raise RuntimeError(f"{' '.join(command)} ended without an answer.")
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.stdin.close()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return Held(
        resident=int(resident.split()[1]) * 1024, folded=int(counted[0]), gates=int(counted[1])
    )


def _hold(name: str, gates: str, tasks: int, folded: int) -> None:
    backbone = make_backbone(name)
    images = random_images(8, backbone)
    with torch.inference_mode():
        backbone.model(images)
    if not tasks:
        make_adapter(backbone, seed=0, gates=gates)  # what this leaves behind is no task's
        _wait(0, 0)
        return
    budget = folded * _folded_bytes(backbone, gates)
    engine = Engine(backbone, dtype="float32", folded_bytes=budget)
    for number in range(tasks):
        adapter = make_adapter(backbone, seed=number, gates=gates)
        engine.load(f"task{number}", adapter.as_stored("float16"))
    for number in range(folded):
        engine.predict(f"task{number}", images)
    time.sleep(5.1)  # a server at rest: freed memory goes back once in five seconds
    engine.predict("task0", images)
    _wait(*(tier.bytes for tier in engine.memory()))


def _folded_bytes(backbone: Backbone, gates: str) -> int:
    engine = Engine(backbone, dtype="float32")
    engine.load("task", make_adapter(backbone, seed=0, gates=gates))
    size = engine.memory()[0].bytes
    del engine
    gc.collect()  # so that its weights are not counted as those of the engine that is measured
    return size


def _wait(folded: int, gates: int) -> None:
    if not gates:
        return_free_memory()  # of the bare backbone, so that it is not made to look larger
    print(folded, gates, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    torch.set_num_threads(2)
    _hold(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
