"""A gated layer and its feed-forward nodes answer the same, and learn the same."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from gatehub.errors import SiteError
from gatehub.gates.fold import gate_kernel
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import SiteGate
from gatehub.gates.rules import registered_sites
from gatehub.inheritance import view_as_nodes

LAYERS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, 1, bias=False),
    nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv2d(4, 8, (3, 5), groups=4, padding=(1, 2), stride=(2, 1)),
    *(nn.Conv2d(4, 6, 3, padding=1, padding_mode=m) for m in ("reflect", "replicate", "circular")),
    nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    Conv2dSame(4, 6, 3, stride=2, groups=2),
    StdConv2d(4, 6, 3, padding=1, groups=2),
    StdConv2dSame(4, 6, 3, stride=2, padding="same"),
    ScaledStdConv2d(4, 6, 3, padding=1),
    nn.Linear(4, 6),
]


def make_parts(gate: SiteGate) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        part: gate.kind.rest + 0.5 * torch.randn(shape, generator=generator)
        for part, shape in gate.parts.items()
    }


def make_gate(layer: nn.Module, kind: str) -> SiteGate:
    shape = layer.weight.shape  # type: ignore[union-attr]
    return SiteGate(kind=parse_kind(kind), shape=(shape[0], shape[1]))  # type: ignore[index]


def run_gated(layer: nn.Module, gate: SiteGate, parts: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """What the project computes: the plain layer with the gated kernel."""
    rule = registered_sites()[type(layer)]
    plain = layer if rule.plain is None else rule.plain(layer)
    kernel = gate_kernel(rule.kernel(layer), gate, parts, gain=None)
    found: Tensor = torch.func.functional_call(plain, {"weight": kernel}, (inputs,))
    return found


def draw_inputs(layer: nn.Module) -> Tensor:
    shape = (2, 7, 9, 4) if isinstance(layer, nn.Linear) else (2, 4, 7, 9)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["full", "lowrank:2", "scale"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_gated_layer_is_a_sum_over_fixed_sub_functions(layer: nn.Module, kind: str) -> None:
    gate = make_gate(layer, kind)
    parts, inputs = make_parts(gate), draw_inputs(layer)
    nodes = view_as_nodes(layer, gate, parts)
    expected = run_gated(layer, gate, parts, inputs)
    found = nodes(inputs)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    # Each weight learns from its own sub-function: dL/dM[o, i] = <dL/dy_o, s_oi(x_i)>.
    learned = {name: part.clone().requires_grad_() for name, part in parts.items()}
    run_gated(layer, gate, learned, inputs).square().sum().backward()
    found.square().sum().backward()
    for name, part in nodes.parts.items():
        expected_gradient = learned[name].grad
        assert expected_gradient is not None
        assert torch.allclose(part.grad, expected_gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_sub_function_reads_one_input_and_is_never_changed_by_gates(layer: nn.Module) -> None:
    gate = make_gate(layer, "full")
    inputs = draw_inputs(layer)
    one = view_as_nodes(layer, gate, make_parts(gate)).sub_functions(inputs)
    other = view_as_nodes(layer, gate, {"gate": torch.zeros(gate.shape)}).sub_functions(inputs)
    assert torch.equal(one, other)
    channels = -1 if isinstance(layer, nn.Linear) else 1
    changed = inputs.clone()
    changed.select(channels, 0).add_(1)
    moved = view_as_nodes(layer, gate, make_parts(gate)).sub_functions(changed) != one
    where = moved.flatten(0, -3).any(0) if channels == -1 else moved.flatten(3).any(-1).any(0)
    groups = getattr(layer, "groups", 1)
    outs = gate.shape[0] // groups  # of the group that reads the first channel
    assert bool(where[:outs, 0].all())
    where[:outs, 0] = False
    assert not bool(where.any())


def test_what_is_no_gated_layer_is_refused() -> None:
    gate = SiteGate(kind=parse_kind("full"), shape=(6, 4))
    parts = {"gate": torch.ones(6, 4)}
    with pytest.raises(SiteError, match="A ConvTranspose2d cannot be gated"):
        view_as_nodes(nn.ConvTranspose2d(4, 6, 3), gate, parts)
    with pytest.raises(SiteError, match=r"A gate \(6, 4\) is given for a layer with a kernel"):
        view_as_nodes(nn.Conv2d(4, 8, 3), gate, parts)
