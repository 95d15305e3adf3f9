"""The same task in fewer bytes: gates of a lower rank, fewer of them, coarser ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gatehub._arguments import check_fields, checked
from gatehub.adapter.adapter import Adapter
from gatehub.adapter.arithmetic.matrices import balance, order_tensors, truncate
from gatehub.adapter.coding.packed import SPARSE
from gatehub.adapter.files import check_dtype, count_tensor_bytes
from gatehub.errors import AdapterError
from gatehub.gates.kinds import MAX_RANK
from gatehub.gates.policy import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How an adapter is made smaller. What is not given stays as it is.

    Args:
        rank: largest rank of M - 1; see `reduce_rank`.
        sparsity: share of the gates' values that go back to rest; see `prune_gates`.
        dtype: in which gates are stored, see `Adapter.save`; with a sparsity "sparse" unless given,
            else the adapter's own.

    Raises:
        AdapterError: a rank or a share that is none, or no change at all.
        TensorDtypeError: no such dtype.
    """

    rank: int | None = None
    sparsity: float | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, AdapterError)
        if self.rank is not None:
            _check_rank(self.rank)
        if self.sparsity is not None:
            _check_sparsity(self.sparsity)
        if self.dtype is not None:
            check_dtype(self.dtype)
        if self.rank is None and self.sparsity is None and self.dtype is None:
            raise AdapterError(
                "A compression changes nothing; expected a rank, a sparsity or a dtype.",
                hint="Give one of them, or several.",
            )

    def __str__(self) -> str:
        parts = [
            f"rank {self.rank}" if self.rank is not None else "",
            f"{self.sparsity:g} sparse" if self.sparsity is not None else "",
            self.dtype or "",
        ]
        return ", ".join(filter(None, parts))

    def dtype_for(self, adapter: Adapter) -> str:
        """Return the dtype in which an adapter is stored once it is compressed."""
        if self.dtype is not None:
            return self.dtype
        if self.sparsity is not None:
            return SPARSE
        return adapter.probe.dtype if adapter.probe is not None else "float16"

    @checked(AdapterError)
    def apply(self, adapter: Adapter) -> Adapter:
        """Return the compressed adapter with the values that it has once it is stored.

        It has no figures and no probe, since those of the adapter are not of it.
        """
        made = adapter
        if self.rank is not None:
            made = reduce_rank(made, self.rank)
        if self.sparsity is not None:
            made = prune_gates(made, self.sparsity)
        dtype = self.dtype_for(adapter)
        told = {
            "compressed_from": adapter.digest,
            "compressed_rank": self.rank,
            "compressed_sparsity": self.sparsity,
            "compressed_dtype": dtype,
        }
        training = {**made.config.training, **{k: v for k, v in told.items() if v is not None}}
        config = replace(made.config, metrics={}, training=training, probe=None)
        return replace(made, config=config).as_stored(dtype)

    def count_bytes(self, compressed: Adapter) -> int:
        """Return the size of gates.safetensors of an adapter that `apply` has returned."""
        return count_tensor_bytes(
            compressed.config, compressed.tensors, str(compressed.config.training[_DTYPE])
        )


_DTYPE = "compressed_dtype"


@checked(AdapterError)
def reduce_rank(adapter: Adapter, rank: int) -> Adapter:
    """Return the adapter with M - 1 of a rank at most, the nearest by singular values.

    Gates that would not become smaller stay: `scale` ones, and full ones of few channels.

    Raises:
        AdapterError: not from 1 to 4096.
    """
    _check_rank(rank)
    sites = dict(adapter.layout.sites)
    tensors = dict(adapter.tensors)
    changed = False
    for site, gate in adapter.layout.sites.items():
        parts = {part: tensors[f"{site}.{part}"] for part in gate.parts}
        found = truncate(gate, parts, rank)
        if found is None:
            continue
        changed = True
        sites[site], parts = found
        for part in gate.parts:
            del tensors[f"{site}.{part}"]
        tensors |= {f"{site}.{part}": value for part, value in parts.items()}
    if not changed:
        return adapter
    kinds = {str(gate.kind) for gate in sites.values()}
    layout = replace(adapter.layout, sites=sites, policy=kinds.pop() if len(kinds) == 1 else AUTO)
    config = replace(adapter.config, layout=layout, probe=None)
    return replace(adapter, config=config, tensors=order_tensors(tensors, layout))


@checked(AdapterError)
def prune_gates(adapter: Adapter, sparsity: float) -> Adapter:
    """Return the adapter with a share of its gates' values at rest, those that moved least.

    Values of one kind of gate are compared over all layers. Those of low-rank gates are compared
    after their factors are brought to the same lengths, which leaves M as it is.

    Args:
        adapter: to be pruned.
        sparsity: share of the values of each kind that are at rest afterwards, at least.

    Raises:
        AdapterError: not between 0 and 1.
    """
    _check_sparsity(sparsity)
    tensors = dict(adapter.tensors)
    for name in {gate.kind.name for gate in adapter.layout.sites.values()}:
        own: dict[str, Tensor] = {}
        rest = 0.0
        for site, gate in adapter.layout.sites.items():
            if gate.kind.name == name:
                rest = gate.kind.rest
                parts = {part: tensors[f"{site}.{part}"] for part in gate.parts}
                own |= {f"{site}.{part}": value for part, value in balance(gate, parts).items()}
        flat = torch.cat([value.reshape(-1) for value in own.values()])
        least = (flat - rest).abs().argsort(stable=True)[: math.floor(sparsity * flat.numel())]
        flat[least] = rest
        pieces = flat.split([value.numel() for value in own.values()])
        tensors |= {
            key: piece.view_as(value).clone()
            for (key, value), piece in zip(own.items(), pieces, strict=True)
        }
    return replace(adapter, config=replace(adapter.config, probe=None), tensors=tensors)


def _check_rank(rank: int) -> None:
    if not 1 <= rank <= MAX_RANK:
        raise AdapterError(f"A rank is {rank}; expected 1 to {MAX_RANK}.")


def _check_sparsity(sparsity: float) -> None:
    if not 0 < sparsity < 1:
        raise AdapterError(
            f"A sparsity is {sparsity}; expected a share between 0 and 1, such as 0.9."
        )
