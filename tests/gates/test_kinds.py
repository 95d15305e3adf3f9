from __future__ import annotations

import pytest
import torch

from gatehub.errors import GateKindError
from gatehub.gates.kinds import GATE_PARTS, GateKind, parse_kind
from gatehub.gates.sites import Site

KINDS = ["full", "lowrank:1", "lowrank:3", "scale"]


def site(out_channels: int, in_channels: int, *, side: int) -> Site:
    return Site(
        name="conv", out_channels=out_channels, in_channels=in_channels, kernel_size=(side, side)
    )


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("full", {"gate": (6, 5)}),
        ("lowrank:3", {"gate_a": (6, 3), "gate_b": (5, 3)}),
        ("scale", {"gate_a": (6,), "gate_b": (5,)}),
    ],
)
def test_learned_tensors_have_the_shapes_of_the_table(
    text: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    kind = parse_kind(text)
    parts = kind.initialise(6, 5, like=torch.zeros(1))
    assert kind.shapes(6, 5) == shapes
    assert {name: tuple(tensor.shape) for name, tensor in parts.items()} == shapes
    assert shapes.keys() <= GATE_PARTS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("text", KINDS)
def test_every_kind_starts_at_exactly_one(text: str, dtype: torch.dtype) -> None:
    kind = parse_kind(text)
    parts = kind.initialise(6, 5, like=torch.zeros(1, dtype=dtype))
    assert torch.equal(kind.matrix(parts), torch.ones(6, 5, dtype=dtype))


def test_a_full_matrix_is_its_gate() -> None:
    gate = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(parse_kind("full").matrix({"gate": gate}), gate)


def test_a_lowrank_matrix_is_one_plus_a_product() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    b = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    matrix = parse_kind("lowrank:2").matrix({"gate_a": a, "gate_b": b})
    for o in range(6):
        for i in range(5):
            by_hand = 1 + a[o, 0] * b[i, 0] + a[o, 1] * b[i, 1]
            assert matrix[o, i].item() == pytest.approx(by_hand.item(), abs=1e-14)


def test_a_scale_matrix_is_an_outer_product() -> None:
    parts = {"gate_a": torch.tensor([2.0, 3.0]), "gate_b": torch.tensor([1.0, 5.0, 7.0])}
    expected = torch.tensor([[2.0, 10.0, 14.0], [3.0, 15.0, 21.0]])
    assert torch.equal(parse_kind("scale").matrix(parts), expected)


@pytest.mark.parametrize("text", KINDS)
def test_every_learned_tensor_has_a_gradient_within_two_steps(text: str) -> None:
    torch.manual_seed(0)
    kind = parse_kind(text)
    parts = kind.initialise(6, 5, like=torch.zeros(1))
    target = torch.randn(6, 5)
    for tensor in parts.values():
        tensor.requires_grad_(True)
    for _ in range(2):
        for tensor in parts.values():
            tensor.grad = None
        (kind.matrix(parts) - target).square().sum().backward()
        with torch.no_grad():
            for tensor in parts.values():
                tensor -= 0.01 * tensor.grad
    # The first step of a low rank moves A alone: B has no influence while A is 0.
    assert all(tensor.grad.abs().max() > 0 for tensor in parts.values())


def test_a_lowrank_start_repeats_with_the_seed() -> None:
    starts = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        starts.append(parse_kind("lowrank:2").initialise(6, 5, like=torch.zeros(1))["gate_b"])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("text", [*KINDS, "lowrank:4096"])
def test_a_kind_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_kind(text)) == text
    assert parse_kind(text) == parse_kind(str(parse_kind(text)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Full",
        "full ",
        "full\n",
        "full:2",
        "scale:1",
        "lowrank",
        "lowrank:",
        "lowrank:0",
        "lowrank:-1",
        "lowrank:04",
        "lowrank:4.0",
        "lowrank:٤",
        "lowrank:4097",
        "lowrank:99999",
        "auto",
    ],
)
def test_anything_else_is_no_kind(text: str) -> None:
    with pytest.raises(
        GateKindError, match=r"expected auto, full, lowrank:R .R from 1 to 4096., scale or none"
    ):
        parse_kind(text)


@pytest.mark.parametrize(
    ("name", "rank"), [("full", 1), ("scale", 2), ("lowrank", 0), ("lowrank", 4097), ("lora", 4)]
)
def test_a_kind_with_an_impossible_rank_is_refused(name: str, rank: int) -> None:
    with pytest.raises(GateKindError, match="is not a gate kind"):
        GateKind(name=name, rank=rank)
