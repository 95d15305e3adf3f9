"""Whether tensors still hold what they held: a checksum, for every time they are used."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor


class Seal:
    """Remembers dtype, shape and a checksum of some tensors, on any device.

    It is for mistakes, not for attacks: a digest takes two to five times as long. It sees what
    counters of changes do not, such as writing through `.data` or through a NumPy array.

    Args:
        tensors: by name; they are read, and not kept.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._known = _describe(tensors)

    def find_changed(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the names of tensors that differ, are missing or are new.

        Args:
            tensors: what has the place of those that were sealed, by name.
        """
        found = _describe(tensors)
        names = self._known.keys() | found.keys()
        return tuple(sorted(n for n in names if self._known.get(n) != found.get(n)))


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, int]]:
    return {name: (t.dtype, t.shape, _sum_bytes(t)) for name, t in tensors.items()}


def _sum_bytes(tensor: Tensor) -> int:
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(values.view(torch.uint8).numpy().data)
