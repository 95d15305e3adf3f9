"""What the processes of one training tell each other.

Gates are few, so nothing is wrapped: after each step the gradients of what is learned are added up,
on the processor and through gloo, on whatever device they were computed. The first process leads.
It finds the start, measures, writes and talks; the others only take steps.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

# Others wait while the first one fits the probe, measures or saves: hours, on large data.
_PATIENCE = timedelta(days=30)
_KEY = "values"


class Team:
    """The processes of a training, as one of them sees them.

    Args:
        rank: which of them this is, from 0.
        size: how many there are.
        join: called before the first exchange; it returns when all are there.
        explain: what to raise where an exchange fails: one of the others is gone.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        join: Callable[[], None] = lambda: None,
        explain: Callable[[], Exception] | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self._join = join
        self._explain = explain
        self._joined = False

    def share(self, batch: Sequence[int]) -> list[int]:
        """Return what of a batch is this process's."""
        return list(batch[self.rank :: self.size])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Let each tensor be the sum of those of all processes, in place."""
        if self.size == 1:
            return
        sums = torch.cat([tensor.detach().flatten().float().cpu() for tensor in tensors])
        self._exchange(lambda: dist.all_reduce(sums))
        with torch.no_grad():
            for tensor, part in zip(
                tensors, sums.split([tensor.numel() for tensor in tensors]), strict=True
            ):
                tensor.copy_(part.view_as(tensor))

    def tell(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send the others what they `hear`."""
        if self.size == 1:
            return
        whole = {
            name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()
        }
        data = safetensors.torch.save(whole, metadata={_KEY: json.dumps(dict(values))})
        self._exchange(lambda: dist.broadcast(torch.tensor(len(data)), 0))
        self._exchange(
            lambda: dist.broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)
        )

    def hear(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Wait for what the first process tells."""
        length = torch.tensor(0)
        self._exchange(lambda: dist.broadcast(length, 0))
        data = torch.empty(int(length), dtype=torch.uint8)
        self._exchange(lambda: dist.broadcast(data, 0))
        raw = data.numpy().tobytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        return json.loads(header["__metadata__"][_KEY]), safetensors.torch.load(raw)

    def _exchange(self, do: Callable[[], object]) -> None:
        try:
            if not self._joined:
                self._join()
                self._joined = True
            do()
        except RuntimeError as error:
            if self._explain is None:
                raise
            raise self._explain() from error


ALONE = Team()


def join(folder: Path, rank: int, size: int) -> None:
    """Meet the others: through a file in a folder that is this team's alone, and on loopback."""
    # By default gloo listens where the name of this machine points, which may be nowhere.
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "gloo",
        init_method=(folder / "meeting").absolute().as_uri(),
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
