"""A network of which everything is learned: fine-tuning, and training from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import safetensors.torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.backbone.classifier import is_inside
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.norms import STATISTICS, find_norm_tensors, has_statistic
from gatehub.training.methods.network import CONFIG_FILE, read_labels

if TYPE_CHECKING:
    from typing_extensions import Self

MODEL_FILE = "model.safetensors"


class WholeModel(nn.Module):
    """A `Learner` of every weight of a network.

    Args:
        net: of the task's own, with its classifier.
        backbone: of whose architecture it is.
        config: from `describe_network`.
        preprocessing: how files become tensors.
        norm: "affine": running statistics stay as they are; or "stats": they follow the batches.
    """

    def __init__(
        self,
        net: nn.Module,
        backbone: Backbone,
        config: bytes,
        *,
        preprocessing: Preprocessing,
        norm: str,
    ) -> None:
        super().__init__()
        self.net = net.requires_grad_(True)
        self.labels = tuple(read_labels(config))
        self.preprocessing = preprocessing
        self._config = config
        self._moves = norm == "stats"
        norms = find_norm_tensors(net, norm=norm, start=None, exclude=backbone.heads)
        learned = dict(net.named_parameters())
        self._norms = {name: learned[name] for name in norms if name in learned}
        self._head = {name: p for name, p in learned.items() if is_inside(name, backbone.heads)}
        others = self._norms.keys() | self._head.keys()
        self._body = {name: p for name, p in learned.items() if name not in others}
        # Batches are counted, too, which changes no answer, but would tell a resumed run.
        self._counts = {
            name: tensor.clone()
            for name, tensor in net.state_dict().items()
            if not tensor.is_floating_point()
        }
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Answer for the task: images (B, 3, H, W), normalised → logits (B, len(labels))."""
        return cast(Tensor, self.net(images))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch statistics move only where they are to."""
        super().train(mode)
        if not self._moves:
            hold_statistics(self.net)
        return self

    def gate_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the weights that are neither the head's nor normalisation values."""
        return self._body

    def gate_rests(self) -> Mapping[str, float]:
        """Return nothing: no weight decays."""
        return {}

    def norm_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the normalisation values."""
        return self._norms

    def head_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the head's parameters."""
        return self._head

    def task_tensors(self) -> Mapping[str, Tensor]:
        """Return every tensor of the network, but for those that count."""
        return {n: t for n, t in self.net.state_dict().items() if t.is_floating_point()}

    def files(self) -> dict[str, bytes]:
        """Return the network as timm's files, by their name."""
        tensors = {**self.net.state_dict(), **self._counts}
        whole = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        weights = safetensors.torch.save(whole, metadata={"format": "pt"})
        return {CONFIG_FILE: self._config, MODEL_FILE: weights}


def hold_statistics(net: nn.Module) -> None:
    """Put every layer that keeps running statistics into evaluation mode."""
    for module in net.modules():
        if any(has_statistic(module, part) for part in STATISTICS):
            module.eval()
