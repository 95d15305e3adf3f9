"""A task as it waits in memory: all its numbers in one block for each dtype, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeVar, cast

import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.adapter.probe import Probe
from gatehub.backbone import BackboneIdentity
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.layout import GateLayout
from gatehub.problem import Problem
from gatehub.runtime.tasks.sources import TensorFile

T = TypeVar("T")

_Index = tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedTask:
    """An adapter in as few bytes as its file: what a thousand waiting tasks cost.

    Hundreds of small tensors cost more in objects than in numbers, and most of what a config
    says is the same for all tasks of a kind.

    Args:
        task: the name it was trained under.
        labels: class names, in the order of the logits.
        backbone: the weights it was trained on.
        layout: gates and normalisation; one object for all tasks of a layout.
        preprocessing: how an image becomes its input; shared likewise.
        probe: what it answered where it was made, or None.
        problem: whether an image has one of the labels, or any number of them.
        digest: SHA-256 of its tensors.
        file_digest: SHA-256 of the file that they were read from, or None.
        index: name, dtype and shape of each tensor, in the order in which they lie; shared.
        blocks: the numbers, one block for each dtype.
    """

    task: str
    labels: tuple[str, ...]
    backbone: BackboneIdentity
    layout: GateLayout
    preprocessing: Preprocessing
    probe: Probe | None
    problem: Problem
    digest: str
    file_digest: str | None
    index: _Index
    blocks: Mapping[torch.dtype, Tensor] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of its numbers."""
        return sum(block.nbytes for block in self.blocks.values())

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors by name, as views of the blocks."""
        views = {}
        starts = dict.fromkeys(self.blocks, 0)
        for name, dtype, shape in self.index:
            stop = starts[dtype] + prod(shape)
            views[name] = self.blocks[dtype][starts[dtype] : stop].view(shape)
            starts[dtype] = stop
        return views


class Packer:
    """Packs adapters, and keeps what many of them have in common once."""

    def __init__(self) -> None:
        self._common: dict[object, object] = {}

    def pack(
        self, adapter: Adapter, file: TensorFile | None = None, *, digest: str | None = None
    ) -> PackedTask:
        """Copy an adapter's numbers into blocks.

        Args:
            adapter: of any origin.
            file: that it has just been read from; its tensors take the dtypes that they have
                there. Without one, each takes the smallest dtype that holds its values exactly.
            digest: of its tensors, if that is known.
        """
        tensors = adapter.tensors
        if file is None:
            stored = {name: _shrink(tensor) for name, tensor in tensors.items()}
        else:
            stored = {name: tensor.to(file.dtypes[name]) for name, tensor in tensors.items()}
        index = tuple((name, t.dtype, tuple(t.shape)) for name, t in sorted(stored.items()))
        blocks = {
            dtype: torch.cat([stored[name].reshape(-1) for name, d, _ in index if d == dtype])
            for dtype in {tensor.dtype for tensor in stored.values()}
        }
        return PackedTask(
            task=adapter.task,
            labels=adapter.labels,
            backbone=self._share(adapter.backbone),
            layout=self._share(adapter.layout),
            preprocessing=self._share(adapter.preprocessing),
            probe=adapter.probe,
            problem=adapter.problem,
            digest=digest or adapter.digest,
            file_digest=None if file is None else file.digest,
            index=self._share(index),
            blocks=blocks,
        )

    def _share(self, value: T) -> T:
        return cast(T, self._common.setdefault(repr(value), value))


def _shrink(tensor: Tensor) -> Tensor:
    """Return a tensor in the smallest dtype of adapters that holds its values exactly."""
    for dtype in (torch.float16, torch.bfloat16):
        small = tensor.detach().to(dtype)
        if torch.equal(small.to(tensor.dtype), tensor):
            return small
    return tensor.detach()
