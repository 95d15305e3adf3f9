"""Feed-forward networks as convolutional ones that answer the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MixerBlock, ResBlock
from torch import Tensor, nn

from gatehub.errors import EmbeddingError
from gatehub.gates.sites import find_sites
from gatehub.inheritance import embed

TOLERANCE = 1e-5


def draw(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give a network values with which every layer shows, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)
            elif name.endswith("running_mean"):
                nn.init.normal_(buffer)
    return network.eval()


class Branches(nn.Module):
    """A residual network with functions, a shared layer, a constant and a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.one(x)) * self.scale + 0.5 * x
        y = torch.tanh(self.two(y)) - self.one(y).relu()
        return torch.add(y, x)


STACKS = [
    (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 3)), (5,)),
    (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.SiLU(), nn.Linear(7, 3)), (5,)),
    (nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6, 7), nn.LayerNorm(7)), (3, 4, 6)),
    (nn.Sequential(nn.Flatten(), nn.Tanh()), (3, 4, 6)),
    (nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Flatten(), nn.Linear(30, 2)), (5, 4)),
    (nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 6)), (5, 4)),
    (nn.Sequential(nn.Linear(4, 6), nn.Flatten()), (5, 4)),
    (Branches(), (6,)),
    (Branches(), (5, 6)),
    (ResBlock(8, seq_len=5), (5, 8)),  # ResMLP's
    (ResBlock(8, seq_len=8), (8, 8)),  # as many tokens as channels
    (MixerBlock(8, seq_len=5), (5, 8)),
]


@pytest.mark.parametrize(("network", "shape"), STACKS)
def test_the_convolutional_network_is_equal(network: nn.Module, shape: tuple[int, ...]) -> None:
    embedded = embed(draw(network), shape)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = network(inputs), embedded(inputs)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    assert not any(isinstance(module, nn.Linear) for module in embedded.modules())


def test_gradients_are_equal_too() -> None:
    network = draw(ResBlock(8, seq_len=5))
    embedded = embed(network, (5, 8))
    inputs = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    one, other = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    network(one).square().sum().backward()
    embedded(other).square().sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_the_network_itself_stays_as_it_is_and_shares_nothing() -> None:
    network = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    embedded = embed(network, (5,))
    with torch.no_grad():
        for parameter in embedded.parameters():
            parameter.zero_()
    assert network.training
    assert all(torch.equal(network.state_dict()[name], t) for name, t in before.items())


def test_every_convolution_of_it_can_be_gated() -> None:
    """Which is what the embedding is for: the method reaches feed-forward networks."""
    embedded = embed(draw(ResBlock(8, seq_len=5)), (5, 8))
    sites = find_sites(embedded, start=None, exclude=())
    assert len(sites) == sum(isinstance(m, nn.Conv2d) for m in embedded.modules()) == 5


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(-1).values


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("network", "shape", "match"),
    [
        (nn.Sequential(nn.Linear(5, 5), nn.Softmax(-1)), (5,), "is Softmax on values"),
        (nn.Sequential(nn.Linear(5, 5), nn.LSTM(5, 5)), (4, 5), "for which no equal convolution"),
        (nn.Linear(6, 3), (3, 4, 6), r"Linear on values \(3, 4, 3\)"),
        (nn.Flatten(2), (3, 4, 6), "a flattening of dimensions 2 to -1"),
        (Sorted(), (5,), "'sort' on values"),
        (Branching(), (5,), "Branching cannot be followed"),
        (nn.Linear(5, 3), (4,), r"Linear cannot be followed from an input \(4,\)"),
        (nn.Linear(5, 3), (), "The input shape is"),
        (nn.Linear(5, 3), (0,), "The input shape is"),
    ],
)
def test_what_has_no_equal_convolution_is_refused_by_name(
    network: nn.Module, shape: tuple[int, ...], match: str
) -> None:
    with pytest.raises(EmbeddingError, match=match):
        embed(network, shape)
