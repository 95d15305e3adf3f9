"""Which kernels oneDNN reorders while an engine answers, in a process that does nothing else.

    python -m tests.runtime.execution.reordering_program SIDE,SIDE,… THREADS

asks for images of each size in that order, for one image, three and one again, and prints as JSON
how many kernels were reordered in first calls, and in each call of a kind that came before. What
oneDNN takes is decided when torch is loaded (ONEDNN_MAX_CPU_ISA), so each try is a process.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile

import torch

from gatehub.runtime.engine import Engine
from tests.runtime.execution.known_networks import make_wide_backbone, make_wide_task

_REORDER = re.compile(rb"exec,cpu,reorder,.*?,(\d+(?:x\d+)+),")


def count_reorders(call: object, shapes: set[str]) -> int:
    """Call, and count the reorders of what has the shape of a kernel."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                call()  # type: ignore[operator]
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        told.seek(0)
        return sum(found.decode() in shapes for found in _REORDER.findall(told.read()))


def main(sides: list[int], threads: int) -> None:
    torch.set_num_threads(threads)
    backbone = make_wide_backbone()
    shapes = {
        "x".join(map(str, shape))
        for shape in (t.shape for t in backbone.model.parameters())
        if len(shape) == 4
    }
    engine = Engine(backbone, dtype="float32")
    for task in ("one", "two"):
        engine.load(task, make_wide_task(backbone, task))
    seen, first, again = set(), 0, []
    for side in sides:
        for batch in (1, 3, 1):
            images = torch.randn(batch, 3, side, side)
            for task in ("one", "two"):
                found = count_reorders(lambda: engine.predict(task, images), shapes)  # noqa: B023
                if (side, batch, task) in seen:
                    again.append(found)
                else:
                    first += found
                seen.add((side, batch, task))
    print(json.dumps({"first": first, "again": again}))


if __name__ == "__main__":
    main([int(side) for side in sys.argv[1].split(",")], int(sys.argv[2]))
