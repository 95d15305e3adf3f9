"""Which techniques for weight matrices work on gate matrices: each line of the room's tables.

Of what carries over it is shown that it does on the convolution what it does on a feed-forward node
with the same weights. Of what is excluded it is shown that a linear layer has the property that it
rests on, and that a projected convolution with the same M lacks it.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import gatehub.inheritance
from gatehub.adapter import Adapter
from gatehub.adapter.arithmetic import merge_adapters, prune_gates, reduce_rank
from gatehub.adapter.coding.quantised import quantise, restore
from gatehub.backbone import Backbone
from gatehub.gates.fold import fold
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import SiteGate
from gatehub.inheritance import FeedForwardNodes, view_as_nodes
from tests.tiny import make_trained, random_images

OUTS, INS = 6, 6
SITE = "layer2.0.conv1"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def matrix() -> Tensor:
    """M: (6, 6), moved from 1."""
    return 1 + 0.5 * draw(OUTS, INS, seed=1)


@pytest.fixture
def conv() -> nn.Conv2d:
    layer = nn.Conv2d(INS, OUTS, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(draw(*layer.weight.shape, seed=2))
    return layer


@pytest.fixture
def images() -> Tensor:
    return draw(4, INS, 7, 7, seed=3)


def view(conv: nn.Conv2d, matrix: Tensor) -> FeedForwardNodes:
    gate = SiteGate(kind=parse_kind("full"), shape=(matrix.shape[0], matrix.shape[1]))
    return view_as_nodes(conv, gate, {"gate": matrix})


def convolve(conv: nn.Conv2d, matrix: Tensor, images: Tensor) -> Tensor:
    """The projected convolution: one convolution with the gated kernel."""
    kernel = conv.weight.detach() * matrix[:, :, None, None]
    return nn.functional.conv2d(images, kernel, padding=1)


def test_the_tables_and_the_tests_are_of_the_same_techniques() -> None:
    told = set(re.findall(r"^\| ([a-z_]+) \|", gatehub.inheritance.__doc__ or "", re.MULTILINE))
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert told == tested - {"the_tables_and_the_tests_are_of_the_same_techniques"}
    assert len(told) == 15


# What carries over.


def test_decay(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """Decayed all the way to 1, the layer is the backbone's; to 0, it would be nothing."""
    for share in (0.5, 1.0):
        decayed = matrix - share * (matrix - 1)
        mixed = (1 - share) * convolve(conv, matrix, images) + share * conv(images)
        assert torch.allclose(convolve(conv, decayed, images), mixed, atol=1e-4)


def test_drop_connect(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """A mask on M drops sub-functions, and its mean over masks is the layer."""
    nodes = view(conv, matrix)
    inputs, total = nodes.sub_functions(images), torch.zeros_like(conv(images))
    generator = torch.Generator().manual_seed(4)
    rounds = 400
    for _ in range(rounds):
        mask = (torch.rand(matrix.shape, generator=generator) < 0.5) / 0.5
        dropped = nodes.combine(inputs * mask[..., None, None], matrix)
        found = convolve(conv, mask * matrix, images)
        assert torch.allclose(found, dropped, atol=1e-4)
        total += found / rounds
    expected = convolve(conv, matrix, images)
    assert (total - expected).norm() < 0.15 * expected.norm()


def test_pruning(tiny_adapter: Adapter, tiny_backbone: Backbone) -> None:
    """Where a gate is pruned its node computes what the backbone's does; M = 0 would cut it off."""
    pruned = prune_gates(tiny_adapter, 0.8)
    gate, before = pruned.tensors[f"{SITE}.gate"], tiny_adapter.tensors[f"{SITE}.gate"]
    at_rest = gate == 1
    assert 0.6 < float(at_rest.float().mean()) < 1
    own = tiny_backbone.model.get_submodule(SITE).weight
    folded = fold(tiny_backbone, pruned).get_submodule(SITE).weight
    assert torch.equal(folded[at_rest], own[at_rest])
    assert torch.allclose(folded[~at_rest], own[~at_rest] * before[~at_rest][:, None, None])


def test_low_rank(tiny_adapter: Adapter, tiny_backbone: Backbone) -> None:
    """The higher the rank, the closer the answers, as for a weight matrix."""
    images = random_images(8)
    expected = fold(tiny_backbone, tiny_adapter)(images)
    errors = [
        float((fold(tiny_backbone, reduce_rank(tiny_adapter, rank))(images) - expected).norm())
        for rank in (1, 4, 10)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_quantisation(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """The error of an answer is that of the weights on the node's inputs, and falls with bits."""
    nodes = view(conv, matrix)
    inputs, expected = nodes.sub_functions(images), convolve(conv, matrix, images)
    errors = []
    for bits in (1, 4, 8):
        rounded = restore(*quantise(matrix, bits=bits, rest=1.0), rest=1.0)
        error = convolve(conv, rounded, images) - expected
        assert torch.allclose(error, nodes.combine(inputs, rounded - matrix), atol=1e-4)
        errors.append(float(error.norm()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_averaging(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """A mean of gates is a mean of answers, without anything to match before."""
    other = 1 + 0.5 * draw(OUTS, INS, seed=5)
    mean = (convolve(conv, matrix, images) + convolve(conv, other, images)) / 2
    assert torch.allclose(convolve(conv, (matrix + other) / 2, images), mean, atol=1e-4)


def test_task_arithmetic(tiny_backbone: Backbone) -> None:
    """A task added and taken away again leaves the other one."""
    one, two = (
        Adapter.from_model(make_trained(tiny_backbone, gates="full", seed=seed), task=f"task{seed}")
        for seed in (1, 2)
    )
    both = merge_adapters(tiny_backbone, [one, two], weights=[1, 1])
    back = merge_adapters(tiny_backbone, [both, two], weights=[1, -1])
    for name in one.layout.gate_shapes():
        moved = (one.tensors[name] - 1) + (two.tensors[name] - 1)
        assert torch.allclose(both.tensors[name], 1 + moved, atol=1e-5)
        assert torch.allclose(back.tensors[name], one.tensors[name], atol=1e-5)


def test_least_squares(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """Each row is found from the answers by a regression on that node's own inputs."""
    inputs = view(conv, matrix).sub_functions(images)
    answers = convolve(conv, matrix, images)
    for o in range(OUTS):
        design = inputs[:, o].movedim(1, -1).reshape(-1, INS)
        found = torch.linalg.lstsq(design, answers[:, o].reshape(-1, 1)).solution[:, 0]
        assert torch.allclose(found, matrix[o], atol=1e-3)


# What is excluded.


def test_permutation(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """A layer's units and the next one's columns may be permuted together; here they may not."""
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(
        matrix[:, order] @ images.movedim(1, -1)[..., order, None],
        matrix @ images.movedim(1, -1)[..., None],
        atol=1e-4,
    )
    moved = convolve(conv, matrix[:, order], images[:, order])
    assert (moved - convolve(conv, matrix, images)).norm() > 0.5 * moved.norm()


def test_weight_sharing(conv: nn.Conv2d, images: Tensor) -> None:
    """Weights shared along the inputs answer shifted inputs with shifted outputs; here not."""
    row = 1 + draw(INS, seed=6)
    shared = torch.stack([row.roll(o) for o in range(OUTS)])
    shifted = images.roll(1, dims=1)
    linear = torch.einsum("oi,bihw->bohw", shared, images)
    assert torch.allclose(
        torch.einsum("oi,bihw->bohw", shared, shifted), linear.roll(1, dims=1), atol=1e-4
    )
    here = convolve(conv, shared, images).roll(1, dims=1)
    assert (convolve(conv, shared, shifted) - here).norm() > 0.5 * here.norm()


def test_rotation(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """M x = (M R)(R' x) for every rotation; a projected layer has no such freedom."""
    rotation, _ = torch.linalg.qr(draw(INS, INS, seed=7))
    rotated = torch.einsum("ji,bjhw->bihw", rotation, images)
    linear = torch.einsum("oi,bihw->bohw", matrix, images)
    assert torch.allclose(
        torch.einsum("oi,bihw->bohw", matrix @ rotation, rotated), linear, atol=1e-4
    )
    expected = convolve(conv, matrix, images)
    assert (convolve(conv, matrix @ rotation, rotated) - expected).norm() > 0.5 * expected.norm()


def test_thin_layers(conv: nn.Conv2d, images: Tensor) -> None:
    """M of rank 1 is two layers of width 1; the kernel that it gates keeps its rank."""
    matrix = torch.outer(draw(OUTS, seed=8), draw(INS, seed=9))
    assert torch.linalg.matrix_rank(matrix) == 1
    # `scale` is the one exception: per-channel factors around the frozen kernel, not thin layers.
    for pixel in range(9):
        kernel = conv.weight.detach().flatten(2)[:, :, pixel]
        assert torch.linalg.matrix_rank(matrix * kernel) == min(OUTS, INS)


def test_shared_curvature(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """Least squares with one curvature for all rows is exact for a linear layer, and wrong here."""
    inputs = view(conv, matrix).sub_functions(images)
    design = inputs.movedim(2, -1).flatten(2, 3).transpose(0, 1).reshape(OUTS, -1, INS)
    curvatures = design.transpose(1, 2) @ design  # E[s_o s_o'] of each node
    answers = convolve(conv, matrix, images).transpose(0, 1).reshape(OUTS, -1, 1)
    slopes = design.transpose(1, 2) @ answers
    own = torch.linalg.solve(curvatures, slopes)[..., 0]
    assert torch.allclose(own, matrix, atol=1e-2)
    shared = torch.linalg.solve(curvatures[:1].expand_as(curvatures), slopes)[..., 0]
    assert torch.allclose(shared[0], matrix[0], atol=1e-2)
    assert ((shared - matrix).norm(dim=1)[1:] > 0.2).all()


def test_input_norms(conv: nn.Conv2d, images: Tensor, matrix: Tensor) -> None:
    """A linear layer's inputs have one norm; here each node's have their own."""
    norms = view(conv, matrix).sub_functions(images).flatten(2).norm(dim=2)  # (B, O)
    linear = images.flatten(1).norm(dim=1, keepdim=True).expand(-1, OUTS)
    assert float((linear / linear.mean(1, keepdim=True) - 1).abs().max()) < 1e-5
    assert float((norms / norms.mean(1, keepdim=True) - 1).abs().max()) > 0.05


def test_spectral_norm(conv: nn.Conv2d, images: Tensor) -> None:
    """An orthogonal matrix keeps lengths; the layer that it gates does not."""
    orthogonal, _ = torch.linalg.qr(draw(OUTS, INS, seed=10))
    linear = torch.einsum("oi,bihw->bohw", orthogonal, images)
    assert torch.allclose(linear.norm(), images.norm(), rtol=1e-4)
    answer = convolve(conv, orthogonal, images)
    assert abs(float(answer.norm() / images.norm()) - 1) > 0.5
