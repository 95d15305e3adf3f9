from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gatehub.backbone.seal import Seal

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]


def make(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "kernel": torch.randn(4, 3, 2, 2).to(dtype),
        "vector": torch.randn(5).to(dtype),
        "count": torch.tensor(3),
        "nothing": torch.empty(0),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_tensors_are_unchanged(dtype: torch.dtype) -> None:
    seal = Seal(make(dtype))
    tensors = make(dtype)
    tensors["kernel"] = tensors["kernel"].contiguous(memory_format=torch.channels_last)
    assert seal.find_changed(tensors) == ()


CHANGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "one value": lambda t: t["kernel"].data.view(-1)[7].add_(1e-6),
    "its sign": lambda t: t["kernel"].neg_(),
    "order": lambda t: t["kernel"].copy_(t["kernel"].flip(1)),
    "shape": lambda t: t.update(kernel=t["kernel"].reshape(3, 4, 2, 2)),
    "dtype": lambda t: t.update(kernel=t["kernel"].double()),
    "gone": lambda t: t.pop("kernel"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change: str) -> None:
    tensors = make()
    seal = Seal(tensors)
    CHANGES[change](tensors)
    assert seal.find_changed(tensors) == ("kernel",)
    assert seal.find_changed(make()) == ()


def test_new_tensors_are_named() -> None:
    seal = Seal({})
    assert seal.find_changed({}) == ()
    assert seal.find_changed(make()) == ("count", "kernel", "nothing", "vector")


@given(position=st.integers(0, 47), bit=st.integers(0, 31))
def test_any_flipped_bit_is_seen(position: int, bit: int) -> None:
    tensors = {"kernel": make()["kernel"]}
    seal = Seal(tensors)
    bits = tensors["kernel"].view(torch.int32).view(-1)
    bits[position] ^= 1 << bit if bit < 31 else -(2**31)
    assert seal.find_changed(tensors) == ("kernel",)
