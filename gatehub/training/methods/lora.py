"""Low-rank updates of a network's weights, arXiv 2106.09685, through PEFT."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import TrainingError
from gatehub.gates.sites import find_sites
from gatehub.training.methods.whole import hold_statistics

if TYPE_CHECKING:
    from typing_extensions import Self

_FILES = ("adapter_config.json", "adapter_model.safetensors")
_UPDATE, _HEAD = ".lora_", ".modules_to_save."


def check_peft() -> None:
    """Refuse the method where the package is missing that does it.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            "Method 'lora' needs the package peft, which is not installed.",
            hint="pip install 'gatehub[lora]'",
        ) from error


class LoraModel(nn.Module):
    """A `Learner` of PEFT's updates and a head; all else is frozen.

    Args:
        wrapped: PEFT's model around a network, which it has changed in place.
        net: that network.
        labels: class names, in the order of the logits.
        preprocessing: how files become tensors.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        net: nn.Module,
        labels: tuple[str, ...],
        *,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.net = net
        self.labels = labels
        self.preprocessing = preprocessing
        self._wrapped = [wrapped]  # no submodule: its parameters are the network's
        learned = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self._updates = {name: p for name, p in learned.items() if _UPDATE in name}
        self._head = {name: p for name, p in learned.items() if _HEAD in name}
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Answer for the task: images (B, 3, H, W), normalised → logits (B, len(labels))."""
        return cast(Tensor, self.net(images))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; running statistics stay as they are."""
        super().train(mode)
        hold_statistics(self.net)
        return self

    def gate_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the updates' factors."""
        return self._updates

    def gate_rests(self) -> Mapping[str, float]:
        """Return 0 for each factor, at which the network is the backbone's, as for `lowrank`."""
        return dict.fromkeys(self._updates, 0.0)

    def norm_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return nothing: normalisation values stay as they are."""
        return {}

    def head_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return the head's parameters."""
        return self._head

    def task_tensors(self) -> Mapping[str, Tensor]:
        """Return the updates and the head."""
        return {name: p.detach() for name, p in (self._updates | self._head).items()}

    def files(self) -> dict[str, bytes]:
        """Return PEFT's files, by their name."""
        with tempfile.TemporaryDirectory() as name:
            cast(Any, self._wrapped[0]).save_pretrained(
                name, safe_serialization=True, save_embedding_layers=False
            )
            return {file: (Path(name) / file).read_bytes() for file in _FILES}


def make_lora(
    net: nn.Module,
    backbone: Backbone,
    labels: tuple[str, ...],
    *,
    rank: int,
    preprocessing: Preprocessing,
) -> LoraModel:
    """Let PEFT give a network updates of a rank, in place, wherever a gate could be.

    Left out are grouped and depthwise convolutions, for which PEFT's rank would have to be a
    multiple of the groups, and convolutions of classes of their own, such as timm's `Conv2dSame`,
    whose padding PEFT's branch would lack.

    Args:
        net: with the backbone's weights and the task's head.
        backbone: the same without.
        labels: class names, in the order of the logits.
        rank: of the updates; they are scaled by 1.
        preprocessing: how files become tensors.

    Raises:
        TrainingError: PEFT is not installed, or finds no layer.
    """
    check_peft()
    from peft import LoraConfig, get_peft_model

    sites = [
        site.name
        for site in find_sites(backbone.model, exclude=backbone.heads)
        if _takes_update(net.get_submodule(site.name))
    ]
    if not sites:
        raise TrainingError(
            f"{backbone.identity.name} has no plain convolution or pointwise linear layer that "
            "PEFT's LoRA could update.",
            hint="Take another method, or another backbone.",
        )
    present = {name for name, _ in net.named_modules()}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sites,
        modules_to_save=[head for head in backbone.heads if head in present],
    )
    wrapped: nn.Module = get_peft_model(cast(Any, net), config)
    config.base_model_name_or_path = backbone.identity.name
    return LoraModel(wrapped, net, labels, preprocessing=preprocessing)


def _takes_update(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.groups == 1
    return type(layer) is nn.Linear
