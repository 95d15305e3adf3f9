"""A program gives its network's numbers, whatever the batch and the labels, from any thread."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, fx, nn

from gatehub.backbone import Backbone
from gatehub.compiler.lowering import compile_graph
from gatehub.compiler.program import Constant, Effect, Program, describe
from gatehub.compiler.tracing import named_tensors
from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import NETWORKS, SIDE, Wired, in_a_row, wire
from tests.compiler.test_recording import record_backbone
from tests.tiny import random_images

# These view their values in ways that only the usual order in memory allows.
USUAL_ORDER = {"changes_a_view_that_is_read_later", "scales_in_place"}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in USUAL_ORDER])
def test_the_program_gives_the_modules_numbers(name: str) -> None:
    merged = MergedBackbone(NETWORKS[name]())
    run = compile_graph(record_backbone(merged).graph)
    for labels, batch in ((1, 1), (2, 7), (11, 2)):
        model = merged.model(labels, dtype=torch.float32)
        images = random_images(batch, SIDE).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = model(images.clone())
            found = run(images.clone(), dict(named_tensors(model)), labels)
        assert torch.equal(found, expected)


def test_a_program_names_what_it_reads() -> None:
    program = record_backbone(MergedBackbone(NETWORKS["reads_a_kernel_itself"]()))
    layers = {f"{layer}.{part}" for layer in ("stem", "body", "fc") for part in ("weight", "bias")}
    norm = {f"norm2.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    assert program.weights == layers | norm
    assert program.kernels == {"stem.weight"}
    assert not program.changes_images
    assert record_backbone(MergedBackbone(NETWORKS["changes_its_images"]())).changes_images


def test_a_padding_by_name_and_constants_of_every_kind_are_kept() -> None:
    backbone = wire(in_a_row)
    backbone.model.body = nn.Conv2d(8, 8, 3, padding="same")
    merged = MergedBackbone(Backbone(backbone.model))
    program = record_backbone(merged)
    assert "body.weight" not in program.kernels
    constants = record_backbone(MergedBackbone(NETWORKS["constant"]()))
    assert sum(isinstance(node.target, Constant) for node in constants.graph.nodes) == 2


def test_threads_run_one_program_with_weights_of_their_own() -> None:
    merged = MergedBackbone(NETWORKS["adds_to_what_it_shares"]())
    run = compile_graph(record_backbone(merged).graph)
    model = merged.model(4, dtype=torch.float32)
    images = random_images(3, SIDE).contiguous(memory_format=torch.channels_last)
    weights = [
        {name: tensor * (1 + scale / 10) for name, tensor in named_tensors(model)}
        for scale in range(4)
    ]
    with torch.inference_mode():
        expected = [run(images, each, 4) for each in weights]
    wrong: list[int] = []

    def answer(index: int) -> None:
        with torch.inference_mode():
            for _ in range(30):
                if not torch.equal(run(images, weights[index], 4), expected[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=answer, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def computes_in_vain(net: Wired, x: Tensor) -> Tensor:
    h = net.begin(x)
    net.body(h).tanh() * net.body.weight.sum() * net.fc.bias[0]
    return net.end(net.pointwise(h))


def test_what_nothing_reads_is_in_no_program() -> None:
    program = record_backbone(MergedBackbone(wire(computes_in_vain, pointwise=nn.Conv2d(8, 8, 1))))
    assert not program.weights & {"body.weight", "body.bias"}
    assert program.kernels == {"stem.weight", "pointwise.weight"}
    targets = {node.target for node in program.graph.nodes}
    assert not targets & {torch.ops.aten.tanh.default, torch.ops.aten.sum.default}
    assert program.batch in program.graph.nodes  # though nothing reads it


def test_a_change_that_nothing_reads_by_name_is_not_dead() -> None:
    graph = fx.Graph()
    images = graph.placeholder("images")
    view = graph.call_function(torch.ops.aten.select.int, (images, 1, 0))
    change = graph.call_function(torch.ops.aten.mul_.Tensor, (view, 2))
    describe(change, Effect(reads=frozenset({1}), writes=frozenset({1})))
    graph.call_function(torch.ops.aten.neg.default, (images,))
    graph.output(images)
    run = compile_graph(graph)
    assert [node.target for node in run.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.select.int,
        torch.ops.aten.mul_.Tensor,
    ]
    found: Tensor = run(torch.ones(2, 2))
    assert found.tolist() == [[2, 1], [2, 1]]
    assert isinstance(record_backbone(MergedBackbone(wire(in_a_row))), Program)
