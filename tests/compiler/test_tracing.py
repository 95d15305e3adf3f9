"""What a recorder sees of a forward pass."""

from __future__ import annotations

import torch
from torch import nn

from gatehub.compiler.tracing import Recorder, copy_to_meta, named_tensors


def test_operations_are_kept_with_what_they_met() -> None:
    images = torch.ones(2, 3)
    with torch.inference_mode(), Recorder() as recorder:
        doubled = images * 2
        values, places = doubled.max(1)
        doubled.add_(1, alpha=3)
    product, largest, added = recorder.operations
    assert product.name == "aten.mul"
    assert product.function is torch.ops.aten.mul.Tensor
    assert product.inputs == (images,)
    assert product.result is doubled
    assert largest.result[0] is values
    assert [id(tensor) for tensor in largest.outputs] == [id(values), id(places)]
    assert added.result is doubled
    assert added.keywords == {"alpha": 3}


def test_what_an_operation_changes_is_read_from_its_schema() -> None:
    one, two, out = (torch.ones(3) for _ in range(3))
    with torch.inference_mode(), Recorder() as recorder:
        one + two
        one.add_(two)
        torch.add(one, two, out=out)
        torch._foreach_mul_([one, two], 2)
        two.detach_()  # it changes no number
    changed = [operation.changed for operation in recorder.operations]
    assert [[*map(id, tensors)] for tensors in changed] == [
        [],
        [id(one)],
        [id(out)],
        [id(one), id(two)],
        [],
    ]


def test_tensors_are_kept_alive() -> None:
    """Otherwise one that is made later could take the id of one that has gone."""
    with Recorder() as recorder:
        for _ in range(50):
            torch.ones(3) * 2
    outputs = [id(operation.outputs[0]) for operation in recorder.operations]
    assert len(set(outputs)) == len(outputs)


def test_a_literal_is_kept_as_it_was() -> None:
    with torch.inference_mode(), Recorder() as recorder:
        literal = torch.tensor([1.0, 2.0])
        literal *= 3
    made = next(o for o in recorder.operations if o.name == "aten.lift_fresh")
    assert made.arguments[0].tolist() == [1, 2]
    assert made.result.tolist() == [3, 6]


def test_a_copy_on_the_meta_device_has_the_structure_and_no_values() -> None:
    layer = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(layer, nn.BatchNorm2d(4), layer)
    copied = copy_to_meta(model)
    assert copied[0] is copied[2]
    names = [name for name, _ in named_tensors(copied)]
    assert names == [name for name, _ in named_tensors(model)]
    assert {"0.weight", "2.weight", "1.num_batches_tracked"} <= {*names}
    for (_, empty), (_, tensor) in zip(named_tensors(copied), named_tensors(model), strict=True):
        assert empty.device.type == "meta"
        assert (empty.shape, empty.dtype) == (tensor.shape, tensor.dtype)
        assert isinstance(empty, nn.Parameter) == isinstance(tensor, nn.Parameter)
