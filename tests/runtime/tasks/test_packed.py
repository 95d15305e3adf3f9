"""A packed task holds an adapter's numbers exactly, and in as few bytes as its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.coding.packed import SIZES
from gatehub.backbone import Backbone
from gatehub.runtime.tasks.packed import Packer
from tests.tiny import make_trained


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_numbers_stay_exact_and_take_no_more_than_in_the_file(
    dtype: str, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    adapter = Adapter.load(tiny_adapter.save(tmp_path / "birds", dtype=dtype))
    packed = Packer().pack(adapter)
    assert packed.tensors.keys() == adapter.tensors.keys()
    for name, tensor in adapter.tensors.items():
        found = packed.tensors[name]
        assert torch.equal(found.to(tensor.dtype), tensor)
        assert found.itemsize <= SIZES[adapter.config.tensors[name].dtype]
    file = (tmp_path / "birds" / "gates.safetensors").stat().st_size
    assert packed.bytes <= file
    assert (packed.task, packed.labels, packed.digest) == ("birds", adapter.labels, adapter.digest)


def test_values_that_the_stored_dtype_does_not_hold_stay_wide(
    tiny_adapter: Adapter, tmp_path: Path
) -> None:
    adapter = Adapter.load(tiny_adapter.save(tmp_path / "birds"))
    name = next(name for name in adapter.tensors if name.endswith(".gate"))
    moved = {**adapter.tensors, name: adapter.tensors[name] + 1e-6}
    packed = Packer().pack(Adapter(config=adapter.config, tensors=moved))
    assert torch.equal(packed.tensors[name], moved[name])
    assert packed.tensors[name].dtype is torch.float32


def test_an_adapter_that_was_never_stored_is_packed_as_it_is(tiny_adapter: Adapter) -> None:
    packed = Packer().pack(tiny_adapter)
    for name, tensor in tiny_adapter.tensors.items():
        assert torch.equal(packed.tensors[name], tensor)
        assert not packed.tensors[name].requires_grad


def test_a_packed_task_does_not_change_with_its_adapter(tiny_backbone: Backbone) -> None:
    adapter = Adapter.from_model(make_trained(tiny_backbone), task="birds")
    packed = Packer().pack(adapter)
    before = {name: tensor.clone() for name, tensor in packed.tensors.items()}
    for tensor in adapter.tensors.values():
        tensor.data.zero_()
    assert all(torch.equal(packed.tensors[name], tensor) for name, tensor in before.items())


def test_tasks_of_a_layout_share_what_they_have_in_common(tiny_backbone: Backbone) -> None:
    packer = Packer()
    one, other, third = (
        packer.pack(
            Adapter.from_model(make_trained(tiny_backbone, seed=seed, gates=gates), task="birds")
        )
        for seed, gates in ((1, "scale"), (2, "scale"), (3, "full"))
    )
    assert one.layout is other.layout
    assert one.index is other.index
    assert one.backbone is third.backbone
    assert one.preprocessing is third.preprocessing
    assert one.layout != third.layout
    assert one.digest != other.digest
