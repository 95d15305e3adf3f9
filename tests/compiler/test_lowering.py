"""Convolutions take in what follows them, and nothing that anybody else reads or changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gatehub.compiler.kernel_forms import find_forms
from gatehub.compiler.kernels import FusedConvolution
from gatehub.compiler.lowering import compile_graph
from gatehub.compiler.program import Program
from gatehub.compiler.recording import split
from gatehub.compiler.tracing import named_tensors
from gatehub.gates.kernel_memory import lay_out
from gatehub.gates.merged_backbone import MergedBackbone
from tests.compiler.networks import SIDE, Wired, changes_what_was_read, wire
from tests.compiler.test_recording import record_backbone
from tests.parity import Tolerance, assert_parity
from tests.tiny import random_images

PACKED = Tolerance(name="another order of sums", relative=1e-5)


def activates(net: Wired, x: Tensor) -> Tensor:
    return net.end(F.silu(net.body(net.begin(x)), inplace=True))


def adds(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end(net.body(shortcut) + shortcut)


def adds_and_activates(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    value = net.body(shortcut)
    value += shortcut
    return net.end(F.relu_(value))


def adds_the_other_way(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end(F.relu(shortcut + net.body(shortcut)))


def adds_what_comes_later(net: Wired, x: Tensor) -> Tensor:
    value = net.begin(x)
    return net.end(F.relu(net.body(value) + net.norm2(value).tanh()))


def adds_two_convolutions(net: Wired, x: Tensor) -> Tensor:
    value = net.begin(x)
    return net.end(F.relu(net.body(value) + net.body(value.flip(2))))


def reads_it_twice(net: Wired, x: Tensor) -> Tensor:
    value = net.body(net.begin(x))
    return net.end(F.relu(value) + value)


def reads_the_sum_twice(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    value = net.body(shortcut) + shortcut
    return net.end(F.relu(value) * value)


def adds_it_to_itself(net: Wired, x: Tensor) -> Tensor:
    value = net.body(net.begin(x))
    return net.end(value + value)


def adds_twice_of_it(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end(torch.add(net.body(shortcut), shortcut, alpha=2))


def adds_a_row(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end(net.body(shortcut) + shortcut[:, :, :1])


def is_spread_over_the_other(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end(net.body(shortcut.mean((2, 3), keepdim=True)) + shortcut)


def adds_what_is_wider(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    return net.end((net.body(shortcut) + shortcut.double()).float())


def adds_a_number(net: Wired, x: Tensor) -> Tensor:
    return net.end(net.body(net.begin(x)) + 0.5)


def is_added_to_what_others_read(net: Wired, x: Tensor) -> Tensor:
    shortcut = net.begin(x)
    twin = shortcut.view_as(shortcut)
    shortcut += net.body(shortcut.tanh())
    return net.end(twin)


def scales_by_another(net: Wired, x: Tensor) -> Tensor:
    value = net.begin(x)
    return net.end(F.prelu(net.body(value), net.fc.bias[:1]))


# Behind the stem comes a ReLU, whose convolution always takes it in.
FUSED = {
    activates: ["convolve_relu", "convolve_swish"],
    adds: ["convolve_relu", "convolve"],
    adds_and_activates: ["convolve_relu", "convolve_relu"],
    adds_the_other_way: ["convolve_relu", "convolve_relu"],
    adds_what_comes_later: ["convolve_relu", "convolve_relu"],
    adds_two_convolutions: ["convolve_relu", "convolve_relu"],
}
APART = (
    reads_it_twice,
    adds_it_to_itself,
    adds_twice_of_it,
    adds_a_row,
    is_spread_over_the_other,
    adds_what_is_wider,
    adds_a_number,
    is_added_to_what_others_read,
    changes_what_was_read,
    scales_by_another,
)


def record_wired(wiring: Callable[[Wired, Tensor], Tensor]) -> tuple[Program, nn.Module]:
    merged = MergedBackbone(wire(wiring))
    return record_backbone(merged), merged.model(4, dtype=torch.float32)


def count_fused(program: Program) -> list[str]:
    nodes = compile_graph(program.graph).graph.nodes
    return [node.target.__name__ for node in nodes if isinstance(node.target, FusedConvolution)]


@pytest.mark.parametrize("wiring", FUSED, ids=lambda wiring: wiring.__name__)
def test_a_sum_and_an_activation_are_taken_in(
    wiring: Callable[[Wired, Tensor], Tensor],
) -> None:
    program, _ = record_wired(wiring)
    assert count_fused(program) == FUSED[wiring]
    left = [
        getattr(node.target, "__name__", "") for node in compile_graph(program.graph).graph.nodes
    ]
    assert not {"relu.default", "relu_.default", "silu_.default"} & {*left}
    assert not any("add" in name for name in left)


@pytest.mark.parametrize("wiring", APART, ids=lambda wiring: wiring.__name__)
def test_what_others_read_or_change_is_left_apart(
    wiring: Callable[[Wired, Tensor], Tensor],
) -> None:
    program, _ = record_wired(wiring)
    assert count_fused(program) == ["convolve_relu"]


def test_a_sum_that_is_read_twice_is_taken_in_without_its_activation() -> None:
    program, _ = record_wired(reads_the_sum_twice)
    assert count_fused(program) == ["convolve_relu", "convolve"]


@pytest.mark.parametrize(
    "wiring", [*FUSED, *APART, reads_the_sum_twice], ids=lambda wiring: wiring.__name__
)
def test_the_numbers_stay(wiring: Callable[[Wired, Tensor], Tensor]) -> None:
    program, model = record_wired(wiring)
    run, weights = compile_graph(program.graph), dict(named_tensors(model))
    for batch in (1, 3):
        forms = find_forms(program, batch, device=torch.device("cpu"), dtype=torch.float32)
        packed = {name: forms.form(lay_out(tensor), name) for name, tensor in weights.items()}
        images = random_images(batch, SIDE).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = model(images.clone())
            found = run(images.clone(), weights, 4)
            found_packed = run(images.clone(), packed, 4)
        assert torch.equal(found, expected)
        assert_parity(found_packed, expected, PACKED)


def read_graph(graph: fx.Graph) -> list[tuple[object, ...]]:
    return [(n, n.op, n.target, n.args, n.kwargs, {**n.meta}, [*n.users]) for n in graph.nodes]


@pytest.mark.parametrize(
    "wiring", [*FUSED, *APART, reads_the_sum_twice], ids=lambda wiring: wiring.__name__
)
def test_a_graph_stays_as_it_is(wiring: Callable[[Wired, Tensor], Tensor]) -> None:
    program, _ = record_wired(wiring)
    with program.graph.inserting_before(program.graph.output_node()):
        dead = program.graph.call_function(torch.neg, (program.answer,))
    before = read_graph(program.graph)
    run = compile_graph(program.graph)
    assert read_graph(program.graph) == before
    assert all(node.target is not dead.target for node in run.graph.nodes)
    assert not {*run.graph.nodes} & {*program.graph.nodes}


def test_a_rest_takes_in_what_it_is_given() -> None:
    program, _ = record_wired(adds_and_activates)
    stem = split(program, {"body.weight"})
    assert stem is not None
    names = [node.target.__name__ for node in stem.rest.graph.nodes if node.op == "call_function"]
    assert "convolve_relu" in names
    assert not any(name.startswith(("add", "relu")) for name in names)
