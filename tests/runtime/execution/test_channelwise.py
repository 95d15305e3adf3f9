"""Tasks of kind `scale` share one pass where there is a rule for each operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gatehub.compiler.kernels import convolve
from gatehub.compiler.verification import verify_graph
from gatehub.gates.fold import fold
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.channelwise import OnePass, build_one_pass
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.execution.factors import Entering, Leaving, Plain, Shift, TaskVectors
from gatehub.runtime.execution.rewrite_rules import _RESHAPES, _RULES
from gatehub.runtime.tasks.packed import PackedTask, Packer
from tests.compiler.networks import (
    NETWORKS,
    SIDE,
    Block,
    Vector,
    Wired,
    Wiring,
    in_a_row,
    make_task,
    runs_blocks,
    wire,
)
from tests.parity import assert_parity
from tests.tiny import random_images

# In these, an operation reads a task's values in a way for which there is no rule, or mixes images.
WITHOUT = {
    "adds_twice_a_vector",
    "borrows_a_bias",
    "changes_a_literal_late",
    "changes_a_position",
    "convolves_answers",
    "convolves_without_a_batch",
    "counts_labels_early",
    "doubles_the_batch",
    "doubles_the_batch_side_by_side",
    "folds_channels_into_the_batch",
    "moves_positions_into_the_batch",
    "reads_a_kernel_itself",
    "scales_answers",
    "scales_by_a_convolution",
    "turns_the_batch_around",
}


def build(name: str, **choices: object) -> tuple[Execution, PackedTask, OnePass | None]:
    backbone = NETWORKS[name]()
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    task = Packer().pack(make_task(backbone, "task", **{"gates": "scale", **choices}))
    plan = merged.plan_task(task)
    return execution, task, execution.shared.find(plan, (3, SIDE, SIDE))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pass_is_shared_wherever_there_is_a_rule(name: str) -> None:
    execution, _, shared = build(name)
    assert (shared is None) == (name in WITHOUT)
    if shared is not None:
        kernels = execution._sizes.home().program.kernels
        for graph in (shared.body.graph, shared.heads.stem.graph, shared.heads.rest.graph):
            verify_graph(graph, kernels=kernels)


@pytest.mark.parametrize("gates", ["full", "lowrank:2", "auto"])
def test_other_gates_have_kernels_of_their_own(gates: str) -> None:
    _, _, shared = build("in_a_row", gates=gates)
    assert shared is None


def test_factors_are_counted_before_they_are_formed() -> None:
    execution, task, shared = build("grouped", norm="stats")
    assert shared is not None
    plan = execution._merged.plan_task(task)
    factors = execution.shared.factors(shared, task, plan).factors
    assert factors.shape == (shared.length,)
    assert "layers.2.weight" in shared.weights
    assert "layers.1.weight" not in shared.weights  # merged, so its values are factors


def test_kernels_of_a_shared_pass_are_the_backbones() -> None:
    execution, _, shared = build("standard")
    assert shared is not None
    weights = execution.shared._read_weights(shared, execution.forms())
    again = execution.shared._read_weights(shared, execution.forms())
    assert all(weights[name] is again[name] for name in weights)


def norms_without_kernels(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.norm3(net.body(net.begin(x)).relu()))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm", ["affine", "stats"])
def test_a_norm_that_is_not_merged_becomes_factors(affine: bool, norm: str) -> None:
    backbone = wire(norms_without_kernels, norm3=torch.nn.BatchNorm2d(8, affine=affine))
    merged = MergedBackbone(backbone)
    assert "body" not in merged.merges
    execution = Execution(merged, torch.float32)
    adapters = [make_task(backbone, "t", seed=s, gates="scale", norm=norm) for s in (1, 2)]
    tasks = [Packer().pack(adapter) for adapter in adapters]
    plan = merged.plan_task(tasks[0])
    shared = execution.shared.find(plan, (3, SIDE, SIDE))
    assert shared is not None
    images = random_images(3, SIDE)
    own = [execution.shared.factors(shared, task, plan) for task in tasks]
    found = execution.shared.run(shared, list(zip(own, (2, 1), strict=True)), images)
    for adapter, answer, rows in zip(adapters, found, ([0, 1], [2]), strict=True):
        assert_parity(answer, fold(backbone, adapter)(images[rows]))


aten = torch.ops.aten


def meets(operate: Callable[[Tensor, Tensor], Tensor]) -> Wiring:
    """A network in which a task's vector meets what a convolution has made of the images."""

    def wiring(net: Wired, x: Tensor) -> Tensor:
        return net.end(operate(net.body(net.begin(x)), net.scale.gamma))

    return wiring


def meets_last(operate: Callable[[Tensor, Tensor], Tensor]) -> Wiring:
    """Likewise, with features last."""

    def wiring(net: Wired, x: Tensor) -> Tensor:
        value = net.body(net.begin(x)).permute(0, 2, 3, 1)
        return net.fc(operate(value, net.scale.gamma).mean((1, 2)))

    return wiring


def norms(net: Wired, x: Tensor) -> Tensor:
    value = net.norm3(net.body(net.begin(x)).relu())
    value = net.group_norm(value).permute(0, 2, 3, 1)
    return net.fc(net.layer_norm(value).mean((1, 2)))


NORMS: dict[str, nn.Module] = {
    "norm3": nn.BatchNorm2d(8),
    "group_norm": nn.GroupNorm(2, 8),
    "layer_norm": nn.LayerNorm(8),
}
# For each operator that has a rule, a network that runs it on a task's own vector.
MEETINGS: dict[object, tuple[Wiring, dict[str, nn.Module]]] = {
    convolve: (in_a_row, {}),
    aten.conv2d.padding: (in_a_row, {"body": nn.Conv2d(8, 8, 3, padding="same")}),
    aten.linear.default: (runs_blocks, {"blocks": nn.Sequential(Block(8), Block(8))}),
    aten.batch_norm.default: (norms, NORMS),
    aten.layer_norm.default: (norms, NORMS),
    aten.group_norm.default: (norms, NORMS),
    aten.mul.Tensor: (meets(lambda value, gamma: gamma * value), {"scale": Vector(8, 1, 1)}),
    aten.mul_.Tensor: (meets(lambda value, gamma: value.mul_(gamma)), {"scale": Vector(8, 1, 1)}),
    aten.add.Tensor: (meets(lambda value, gamma: gamma + value), {"scale": Vector(8, 1, 1)}),
    aten.add_.Tensor: (meets(lambda value, gamma: value.add_(gamma)), {"scale": Vector(8, 1, 1)}),
    aten.reshape.default: (
        meets(lambda value, gamma: value * gamma.reshape(1, 8, 1, 1)),
        {"scale": Vector(8)},
    ),
    aten.view.default: (
        meets(lambda value, gamma: value + gamma.view(8, 1, 1)),
        {"scale": Vector(8)},
    ),
    aten.unsqueeze.default: (
        meets(lambda value, gamma: value.mul_(gamma[:, None, None])),
        {"scale": Vector(8)},
    ),
    aten.squeeze.default: (
        meets_last(lambda value, gamma: value * gamma.squeeze()),
        {"scale": Vector(1, 8, 1)},
    ),
    aten.squeeze.dim: (
        meets(lambda value, gamma: gamma.squeeze(3).squeeze(0) * value),
        {"scale": Vector(1, 8, 1, 1, 1)},
    ),
    aten.squeeze.dims: (
        meets_last(lambda value, gamma: value.add_(gamma.squeeze((0, 2)))),
        {"scale": Vector(1, 8, 1)},
    ),
}


def test_each_operator_that_has_a_rule_is_met() -> None:
    assert MEETINGS.keys() == {*_RULES, *_RESHAPES}


@pytest.mark.parametrize("operation", MEETINGS, ids=lambda operation: operation.__name__)
def test_each_overload_of_an_operator_gets_its_factors(operation: object) -> None:
    wiring, layers = MEETINGS[operation]
    backbone = wire(wiring, **layers)
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    assert operation in {node.target for node in execution._sizes.home().program.graph.nodes}
    adapters = [make_task(backbone, "t", seed=s, gates="scale") for s in (1, 2)]
    tasks = [Packer().pack(adapter) for adapter in adapters]
    plan = merged.plan_task(tasks[0])
    shared = execution.shared.find(plan, (3, SIDE, SIDE))
    assert shared is not None
    verify_graph(shared.body.graph)
    images = random_images(3, SIDE)
    own = [execution.shared.factors(shared, task, plan) for task in tasks]
    found = execution.shared.run(shared, list(zip(own, (2, 1), strict=True)), images)
    for adapter, answer, rows in zip(adapters, found, ([0, 1], [2]), strict=True):
        assert_parity(answer, fold(backbone, adapter)(images[rows]))


def test_nothing_is_built_where_heads_come_first() -> None:
    backbone = wire(in_a_row)
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    plan = merged.plan(make_task(backbone, "task", gates="scale").layout)
    program = execution._sizes.home().program
    assert build_one_pass(program, merged, plan, heads={"stem.weight"}) is None
    assert build_one_pass(program, merged, plan, heads={"norm2.weight"}) is None


def test_vectors_by_hand() -> None:
    """W' = a bᵀ W, then the norm: scale = weight / sqrt(var + eps), shift = bias - mean * scale."""
    backbone = NETWORKS["grouped"]()
    task = make_task(backbone, "task", gates="scale", norm="stats")
    merged = MergedBackbone(backbone)
    vectors = TaskVectors(merged, task, merged.plan(task.layout))
    own = task.tensors
    scale = own["layers.1.weight"] / (own["layers.1.running_var"] + 1e-5).sqrt()
    bias = backbone.model.layers[0].bias
    shift = own["layers.1.bias"] + (bias - own["layers.1.running_mean"]) * scale
    leaving = own["layers.0.gate_a"] * scale
    read = {
        Entering("layers.0", 4): own["layers.0.gate_b"].repeat(4),
        Leaving("layers.0"): leaving,
        Shift("layers.0"): shift,
        # One input channel in each group: b is one number.
        Leaving("layers.2"): own["layers.2.gate_a"]
        * own["layers.2.gate_b"]
        * own["layers.3.weight"]
        / (own["layers.3.running_var"] + 1e-5).sqrt(),
        Plain("layers.4.bias"): backbone.model.layers[4].bias,
    }
    for source, expected in read.items():
        assert_parity(source.read(vectors), expected)


def skips_the_body(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.begin(x))


def test_tasks_whose_gates_no_operation_reads_share_all_but_their_heads() -> None:
    backbone = wire(skips_the_body)
    choice = {"gates": "scale", "norm": "frozen", "start": "body"}
    engine = Engine(backbone)
    tasks = [make_task(backbone, f"t{seed}", seed=seed, **choice) for seed in (1, 2)]
    for task in tasks:
        engine.load(task.task, task)
    images = random_images(2, SIDE)
    found = torch.stack(engine.predict_mixed(["t1", "t2"], images))
    expected = torch.cat([engine.predict(f"t{n}", images[n - 1 : n]) for n in (1, 2)])
    assert_parity(found, expected)
