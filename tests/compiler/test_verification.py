"""Programs keep their rules, and so does whatever is made of them; what breaks one is caught."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, fx, nn

from gatehub.compiler.partition import partition
from gatehub.compiler.program import (
    Constant,
    Effect,
    Lookup,
    Program,
    Value,
    describe,
    read_effect,
    read_lookup,
    read_value,
)
from gatehub.compiler.recording import Recording, record
from gatehub.compiler.stem import lower
from gatehub.compiler.verification import verify, verify_graph
from gatehub.errors import GatehubError, ProgramError
from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import NETWORKS, SIDE, Wired, wire

aten = torch.ops.aten


def record_either_way(merged: MergedBackbone) -> Recording:
    for memory_format in (torch.channels_last, torch.contiguous_format):
        try:
            return record(
                partial(merged.model, dtype=torch.float32, memory_format=memory_format),
                input_size=(3, SIDE, SIDE),
                device=merged.device,
                dtype=torch.float32,
                memory_format=memory_format,
            )
        except GatehubError as error:
            refused = error
    raise refused


@pytest.mark.parametrize("name", NETWORKS)
def test_whatever_is_made_of_a_program_keeps_its_rules(name: str) -> None:
    recording = record_either_way(MergedBackbone(NETWORKS[name]()))
    program = verify(recording.program)
    graphs = [recording.whole.graph]
    for parts in (("body.", "norm2.", "fc."), ("fc.",), ("body.bias",)):
        own = {weight for weight in program.weights if weight.startswith(parts)}
        divided = partition(program, own)
        if divided is not None:
            lowered = lower(divided)
            graphs += [divided.stem, divided.rest, lowered.stem.graph, lowered.rest.graph]
    for graph in graphs:
        assert verify_graph(graph, kernels=program.kernels) is graph
    verify(program)  # none of that has changed it


def runs_everything(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x + net.constant)
    left, right = h.split(4, 1)
    left.mul_(2)
    squeezed = net.pointwise(net.body(torch.cat([right, left], 1)).mean((2, 3), keepdim=True))
    return net.end(net.norm2(h * squeezed)).view(len(x), net.num_classes)


@pytest.fixture
def program() -> Program:
    backbone = wire(runs_everything, pointwise=nn.Conv2d(8, 8, 1))
    backbone.model.constant = torch.full((3, 1, 1), 0.5)
    found = record_either_way(MergedBackbone(backbone)).program
    assert found.matrices == {"pointwise.weight"}
    return found


def find(program: Program, target: object) -> fx.Node:
    return next(node for node in program.graph.nodes if node.target is target)


def find_lookup(program: Program, name: str) -> fx.Node:
    facts = ((node, read_lookup(node)) for node in program.graph.nodes)
    return next(node for node, lookup in facts if lookup is not None and lookup.name == name)


def add_before_the_end(program: Program, target: object, *arguments: object) -> fx.Node:
    with program.graph.inserting_before(program.graph.output_node()):
        return program.graph.call_function(target, arguments)


def value_of(node: fx.Node) -> Value:
    value = read_value(node)
    assert value is not None
    return value


def forget(node: fx.Node, fact: type) -> None:
    del node.meta[fact.__name__]


def misplace(program: Program) -> None:
    find(program, aten.cat.default).prepend(find(program, aten.mean.dim))


def look_up_twice(program: Program) -> None:
    lookup = find_lookup(program, "body.weight")
    again = add_before_the_end(program, operator.getitem, program.inputs["weights"], "body.weight")
    describe(again, read_lookup(lookup))


def look_up_another(program: Program) -> None:
    lookup = find_lookup(program, "body.weight")
    describe(lookup, Lookup(name="body.bias", shape=(8,), storage=1))


def read_a_kernel_otherwise(program: Program) -> None:
    add = add_before_the_end(program, aten.neg.default, find_lookup(program, "body.weight"))
    reads = frozenset({read_lookup(find_lookup(program, "body.weight")).storage})
    describe(add, Effect(reads=reads), replace(value_of(program.answer), storage=-1))


def add_another_input(program: Program) -> None:
    with program.graph.inserting_before(program.batch):
        program.graph.placeholder("more")


def call_a_method(program: Program) -> None:
    with program.graph.inserting_before(program.graph.output_node()):
        program.graph.call_method("relu", (program.answer,))


def read_another_attribute(program: Program) -> None:
    add_before_the_end(program, getattr, program.answer, "dtype")


def multiply_values_as_sizes(program: Program) -> None:
    add_before_the_end(program, operator.mul, program.answer, 2)


def take_an_item_of_a_value(program: Program) -> None:
    add_before_the_end(program, operator.getitem, program.answer, 0)


def give_an_operation_a_list(program: Program) -> None:
    add_before_the_end(program, aten.cat.default, find(program, aten.split.Tensor))


def answer_a_size(program: Program) -> None:
    program.graph.output_node().args = (program.batch,)


def lose_a_value(program: Program) -> None:
    forget(program.inputs["images"], Value)


def lose_an_effect(program: Program) -> None:
    forget(find(program, aten.cat.default), Effect)


def lose_a_lookup(program: Program) -> None:
    forget(find_lookup(program, "fc.bias"), Lookup)


def describe_a_size(program: Program) -> None:
    describe(program.batch, Effect())


def read_less(program: Program) -> None:
    describe(find(program, aten.cat.default), Effect())


def read_more(program: Program) -> None:
    cat = find(program, aten.cat.default)
    describe(cat, Effect(reads=read_effect(cat).reads | {-1}))


def write_unread_memory(program: Program) -> None:
    cat = find(program, aten.cat.default)
    describe(cat, replace(read_effect(cat), writes=frozenset({-1})))


def write_other_than_the_schema_says(program: Program) -> None:
    cat = find(program, aten.cat.default)
    describe(cat, replace(read_effect(cat), writes=read_effect(cat).reads))


def forget_a_change(program: Program) -> None:
    change = find(program, aten.mul_.Tensor)
    describe(change, replace(read_effect(change), writes=frozenset()))


def lie_in_anothers_memory(program: Program) -> None:
    mean, answer = find(program, aten.mean.dim), program.answer
    describe(answer, replace(value_of(answer), storage=value_of(mean).storage))


def put_a_part_into_anothers_memory(program: Program) -> None:
    storage = value_of(program.inputs["images"]).storage
    *_, part = find(program, aten.split.Tensor).users
    describe(part, replace(value_of(part), storage=storage), Effect(reads=frozenset({storage})))


def write_a_weight(program: Program) -> None:
    lookup = find_lookup(program, "fc.bias")
    reads = frozenset({read_lookup(lookup).storage})
    change = add_before_the_end(program, aten.zero_.default, lookup)
    value = replace(value_of(program.answer), storage=read_lookup(lookup).storage)
    describe(change, value, Effect(reads=reads, writes=reads))


def write_a_constant(program: Program) -> None:
    constant = next(n for n in program.graph.nodes if isinstance(n.target, Constant))
    reads = frozenset({value_of(constant).storage})
    change = add_before_the_end(program, aten.zero_.default, constant)
    describe(change, value_of(constant), Effect(reads=reads, writes=reads))


BROKEN: dict[Callable[[Program], None], str] = {
    misplace: "'order': it reads what does not stand before it",
    look_up_twice: "'lookup': its weight has been looked up",
    look_up_another: r"'lookup': it is said to be body\.bias",
    read_a_kernel_otherwise: "'kernels': another operation than a convolution reads it",
    add_another_input: "'input': no input has this name",
    call_a_method: "'operation': it is a call_method",
    read_another_attribute: "'size': it reads another attribute than a value's shape",
    multiply_values_as_sizes: "'size': it is not a size times an integer",
    take_an_item_of_a_value: "'part': it is no item of a mapping, a list or a shape",
    give_an_operation_a_list: "'operation': it is given other than values, weights and sizes",
    answer_a_size: "'output': it is not made of values",
    lose_a_value: r"'facts': it has the facts \[\], not \['Value'\]",
    lose_an_effect: r"'facts': it has the facts \['Value'\], not \['Effect', 'Value'\]",
    lose_a_lookup: r"'facts': it has the facts \[\], not \['Lookup'\]",
    describe_a_size: r"'facts': it has the facts \['Effect'\], not \[\]",
    read_less: r"'M1': it reads \[.+\], not \[\]",
    read_more: r"'M1': it reads \[.+\], not \[.*-1.*\]",
    write_unread_memory: "'M2': it writes what it does not read",
    write_other_than_the_schema_says: r"'M2': it writes \[\], by its schema",
    forget_a_change: r"'M2': it writes \[\d+\], by its schema",
    lie_in_anothers_memory: "'M3': it lies in memory that it has no part in",
    put_a_part_into_anothers_memory: "'M3': it lies in memory that it has no part in",
    write_a_weight: "'M4': it writes a weight or a constant",
    write_a_constant: "'M4': it writes a weight or a constant",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_graph_that_breaks_a_rule_is_caught(
    program: Program, damage: Callable[[Program], None]
) -> None:
    damage(program)
    with pytest.raises(
        ProgramError, match=f"of a program breaks its rule {BROKEN[damage]}"
    ) as info:
        verify(program)
    assert "fault of gatehub" in str(info.value.hint)


def test_a_program_that_says_other_than_its_graph_is_caught(program: Program) -> None:
    answers = program.answer.all_input_nodes
    shape = program.batch.args[0]
    for changes, message in (
        ({"inputs": {}}, "'P1': it names other inputs than its graph has"),
        ({"batch": shape}, "'P2': it takes its batch size from elsewhere"),
        ({"batch": program.inputs["labels"]}, "'P2': it takes its batch size from elsewhere"),
        ({"answer": answers[0]}, "'P3': its graph gives another answer"),
        ({"weights": program.weights - {"fc.bias"}}, "'P4': as weights it names"),
        ({"kernels": frozenset()}, "'P4': as kernels it names"),
        ({"matrices": frozenset()}, "'P4': as matrices it names"),
        ({"changes_images": True}, "'P5': it says True"),
    ):
        with pytest.raises(ProgramError, match=message):
            verify(replace(program, **changes))
    verify(program)


def test_an_answer_of_another_size_is_caught(program: Program) -> None:
    describe(program.answer, replace(value_of(program.answer), shapes=((2, 4), (3, 4))))
    with pytest.raises(ProgramError, match="'P3': its answer is Value"):
        verify(program)


def test_another_order_of_inputs_is_caught(program: Program) -> None:
    program.inputs["images"].prepend(program.inputs["labels"])
    with pytest.raises(ProgramError, match=r"'P1': its inputs are \['labels', 'images'"):
        verify(program)


def test_memory_may_be_shared_where_an_operation_says_so(program: Program) -> None:
    """Two constants on one tensor, a view of a weight, and two parts of one new memory."""
    constant = next(n for n in program.graph.nodes if isinstance(n.target, Constant))
    with program.graph.inserting_after(constant):
        twin = program.graph.call_function(constant.target)
    describe(twin, value_of(constant), Effect())
    lookup = find_lookup(program, "fc.bias")
    storage = read_lookup(lookup).storage
    for shape in ((2, 2), (4, 1)):
        view = add_before_the_end(program, aten.view.default, lookup, shape)
        value = Value(shapes=(shape, shape), dtype=torch.float32, storage=storage)
        describe(view, value, Effect(reads=frozenset({storage})))
    both = add_before_the_end(program, aten.var_mean.default, program.answer)
    describe(both, Effect(reads=frozenset({value_of(program.answer).storage})))
    for index in range(2):
        part = add_before_the_end(program, operator.getitem, both, index)
        describe(part, replace(value, storage=-1), Effect(reads=frozenset({-1})))
    verify(program)
