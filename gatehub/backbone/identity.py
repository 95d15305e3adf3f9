"""Which weights a backbone has: their names and where they came from, and a digest of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneIdentity:
    """Which weights a backbone has, and where they came from.

    Args:
        architecture: timm's name without the tag, such as "resnet18".
        tag: timm's name of the weights, such as "a1_in1k", or "".
        source: "timm", "demo", "seed:N", "hf-hub:ORG/NAME", "local-dir:PATH", "file:PATH",
            or "memory" for a model that was handed over as an object.
        revision: commit of a hub repository, or None.
        digest: SHA-256 over everything but the classifier, 64 hexadecimal digits.
    """

    architecture: str
    tag: str
    source: str
    revision: str | None
    digest: str

    @property
    def name(self) -> str:
        """Architecture and tag, as timm writes them."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    def __str__(self) -> str:
        return f"{self.name} (digest {self.digest[:12]}…)"


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names, dtypes, shapes and bytes, as 64 hexadecimal digits.

    Each tensor adds one line "NAME DTYPE [D0, D1]" and then its little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
