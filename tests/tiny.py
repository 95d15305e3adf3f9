"""Backbones and tasks of a few thousand parameters, each drawn from a seed."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel, attach_gates

SIDE = 32
LABELS = ("crow", "jay", "rook")


def make_backbone(name: str = "resnet18", *, seed: int = 0, **arguments: object) -> Backbone:
    """A backbone whose normalisation values are far from 0 and 1, as after a real training.

    Without arguments, a ResNet of one narrow block for each stage, for images of 32 x 32.
    """
    if name == "resnet18" and not arguments:
        arguments = {
            "layers": (1, 1, 1, 1),
            "channels": (8, 16, 24, 32),
            "num_classes": 10,
            "pretrained_cfg_overlay": {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0},
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, **arguments)
        settle_norms(model)
    return Backbone(model, source="memory")


def settle_norms(model: nn.Module) -> None:
    """Draw every normalisation value anew, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.2)
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(1000)


def make_trained(
    backbone: Backbone,
    *,
    labels: tuple[str, ...] = LABELS,
    gates: str = "auto",
    norm: str = "affine",
    start: str | None = None,
    seed: int = 1,
) -> GatedModel:
    """A gated model whose every task tensor has moved, as after a training, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = attach_gates(backbone, labels=labels, gates=gates, norm=norm, start=start)
        disturb(model)
    return model


def disturb(model: GatedModel) -> None:
    """Move every tensor that is the task's own, in place."""
    with torch.no_grad():
        for name, tensor in model.task_tensors().items():
            if name.endswith(".running_var"):
                tensor.mul_(torch.empty_like(tensor).uniform_(0.7, 1.3))
            else:
                tensor.add_(0.2 * torch.randn_like(tensor))


def take_steps(model: GatedModel, *, steps: int = 2, seed: int = 3) -> None:
    """Train in place with plain gradient descent on random images and labels."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for step in range(steps):
        images = random_images(4, seed=seed + step).to(next(model.parameters()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(4) % len(model.labels)).backward()
        optimizer.step()
    model.eval()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, to compare with later."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    """Names of the tensors that are no longer, bit by bit, what they were."""
    now = model.state_dict()
    assert now.keys() == before.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, now[name])}


def random_images(
    batch: int = 2, side: int = SIDE, *, seed: int = 2, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalised images (B, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, side, side, generator=generator).to(dtype)


class OneLayer(nn.Module):
    """The least that timm's interface asks for: one layer, then a classifier."""

    def __init__(self, layer: nn.Module, channels: int, classes: int = 4) -> None:
        super().__init__()
        self.layer = layer
        self.channels = channels
        self.reset_classifier(classes)

    def reset_classifier(self, classes: int) -> None:
        self.fc = nn.Linear(self.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layer(images).mean((2, 3)))
