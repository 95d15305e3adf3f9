"""What the processes of one training tell each other.

Gates are few, so nothing is wrapped: after each step the gradients of what is learned are added up,
on the processor and through gloo, on whatever device they were computed. The first process leads.
It finds the start, measures, writes and talks; the others only take steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gatehub.errors import GatehubError

_VALUES = "values"


class Lost(Exception):
    """Another process is gone, and the first one says why."""


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
        own = torch.cat([tensor.detach().flatten().float().cpu() for tensor in tensors])
        sums = self._exchange(lambda: _reduce(own))
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
        # As a tensor: the header of safetensors is limited, and a million images have long names.
        whole[_VALUES] = _to_bytes(json.dumps(dict(values)).encode())
        data = _to_bytes(safetensors.torch.save(whole))
        self._exchange(lambda: _broadcast(torch.tensor(len(data))))
        self._exchange(lambda: _broadcast(data))

    def hear(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Wait for what the first process tells."""
        length = self._exchange(lambda: _broadcast(torch.tensor(0)))
        empty = torch.empty(int(length), dtype=torch.uint8)
        data = self._exchange(lambda: _broadcast(empty))
        tensors = safetensors.torch.load(data.numpy().tobytes())
        return json.loads(tensors.pop(_VALUES).numpy().tobytes()), tensors

    def _exchange(self, do: Callable[[], Tensor]) -> Tensor:
        try:
            if not self._joined:
                self._join()
                self._joined = True
            return do()
        except RuntimeError as error:
            if self._explain is None or isinstance(error, GatehubError):
                raise
            raise self._explain() from error


ALONE = Team()


def _to_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _reduce(tensor: Tensor) -> Tensor:
    from accelerate.utils import reduce

    total: Tensor = reduce(tensor, reduction="sum")
    return total


def _broadcast(tensor: Tensor) -> Tensor:
    from accelerate.utils import broadcast

    received: Tensor = broadcast(tensor)
    return received
