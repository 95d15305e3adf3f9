"""What tasks share is run once, and only where their images do not get mixed up."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import Tensor

from gatehub.compiler.lowering import compile_graph
from gatehub.compiler.partition import count_rows, find_rest
from gatehub.compiler.program import Value, describe
from gatehub.compiler.recording import split
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.execution import Execution, FoldedTask
from tests.compiler.networks import (
    NETWORKS,
    SIDE,
    Wired,
    hands_over_and_changes_chunks,
    in_a_row,
    make_task,
    wire,
)
from tests.compiler.test_recording import record_backbone
from tests.tiny import random_images

OWN = frozenset({"body.weight", "body.bias", "norm2.weight", "norm2.bias", "fc.weight", "fc.bias"})

# In these, what the first layers make for one image does not lie in one piece.
MIXED = {"doubles_the_batch", "moves_positions_into_the_batch", "turns_the_batch_around"}
# In these, what crosses over cannot be copied alone, or the first layers belong to the task.
WHOLE = {
    "changes_a_view_afterwards",
    "changes_a_view_that_is_read_later",
    "hands_over_and_changes_chunks",
}


def make_execution(name: str) -> tuple[Execution, FoldedTask]:
    backbone = NETWORKS[name]()
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    task = make_task(backbone, "task", gates="full", norm="frozen", start="body")
    return execution, execution.fold(task, merged.plan_task(task))


@pytest.mark.parametrize("name", NETWORKS)
def test_first_layers_are_shared_wherever_that_is_sound(name: str) -> None:
    execution, task = make_execution(name)
    stem = execution._stem([task], execution._sizes.home())
    assert (stem is None) == (name in MIXED | WHOLE)


def test_operations_are_divided_by_what_they_depend_on() -> None:
    program = record_backbone(MergedBackbone(wire(in_a_row)))
    stem = split(program, OWN)
    assert stem is not None
    names = {getattr(node.target, "__name__", "") for node in find_rest(program, OWN)}
    assert {"convolve", "mean.dim", "linear.default"} <= names
    assert "relu.default" not in names
    assert stem.rows == (1,)
    assert stem.changed == (False,)
    assert split(program, ()) is None
    assert split(program, ("stem.weight",)) is None


def test_a_stem_and_what_follows_give_the_numbers_of_the_whole() -> None:
    merged = MergedBackbone(wire(in_a_row))
    program = record_backbone(merged)
    stem = split(program, OWN)
    assert stem is not None
    weights = {name: merged.weight(name, dtype=torch.float32) for name in merged.names}
    images = random_images(5, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole = compile_graph(program.graph)(images, weights, 4)
        values = stem.stem(images, weights)
        parts = [
            stem.rest(stem.take(values, start, stop), weights, 4, stop - start)
            for start, stop in ((0, 2), (2, 3), (3, 5))
        ]
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)


def test_a_view_that_is_changed_beside_its_base_is_not_divided() -> None:
    program = record_backbone(MergedBackbone(wire(hands_over_and_changes_chunks)))
    assert split(program, OWN) is None


def counts_labels_in_a_stem(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x) + torch.zeros(net.num_classes).sum()
    return net.end(net.body(h))


def test_what_depends_on_the_number_of_labels_waits_for_a_task() -> None:
    program = record_backbone(MergedBackbone(wire(counts_labels_in_a_stem)))
    rest = find_rest(program, OWN)
    sizes = [node for node in program.graph.nodes if node.target is operator.mul]
    assert sizes
    assert {*sizes} <= rest


def test_rows_are_counted_from_two_shapes() -> None:
    program = record_backbone(MergedBackbone(wire(in_a_row)))
    node = program.inputs["images"]
    for shapes, rows in (
        (((2, 4), (3, 4)), 1),
        (((6, 4), (9, 4)), 3),
        (((5,), (5,)), 0),
        (((), ()), 0),
        (((4, 2), (4, 3)), None),
        (((3, 4), (4, 4)), None),
        (((2, 4), (3, 4, 1)), None),
    ):
        describe(node, Value(shapes=shapes, dtype=torch.float32, storage=1))
        assert count_rows(node) == rows
    assert count_rows(program.batch) is None
