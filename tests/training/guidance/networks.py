"""Small networks of several kinds for the tests of this folder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def make_convolutional(seed: int = 0) -> nn.Sequential:
    """(B, 3, 8, 8) → (B, 5), through convolutions, a pool and an in-place ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(6, 5),
        )


def make_connected(depth: int = 4, seed: int = 1) -> nn.Sequential:
    """(B, 3, 8, 8) → (B, 5), through linear layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [192, *[10] * (depth - 1)]
        hidden = [(nn.Linear(i, o), nn.Tanh()) for i, o in pairwise(widths)]
        return nn.Sequential(nn.Flatten(), *[m for pair in hidden for m in pair], nn.Linear(10, 5))


class Recurrent(nn.Module):
    """(B, T, 3) → (B, 2): an RNN with time first, attention, and a cell that is called T times."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6)
        self.attention = nn.MultiheadAttention(6, 2)
        self.cell = nn.RNNCell(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        steps, _ = self.rnn(inputs.transpose(0, 1))
        steps, _ = self.attention(steps, steps, steps)
        state = None
        for step in steps:
            state = self.cell(step, state)
        return self.head(state)  # type: ignore[no-any-return]


def draw_images(count: int = 12, seed: int = 2) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def hooks_left(*networks: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for network in networks
        for module in network.modules()
    )
