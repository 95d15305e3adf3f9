"""Networks of tasks of their own, which `eval` and `predict` take in the place of adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from gatehub.training.methods.trained_network import LoadedNetwork


def open_network(
    place: str, *, backbone: str | None, weights: Path | None, device: str
) -> LoadedNetwork:
    """Load a network from the folder that a training left it in."""
    from gatehub.backbone.device import find_device
    from gatehub.training.methods.trained_network import read_network

    if backbone is not None or weights is not None:
        raise typer.BadParameter(
            f"'{place}' holds a network with all of its weights; leave --backbone and --weights "
            "out."
        )
    return read_network(place).load(find_device(device))


def open_networks(
    places: Sequence[str], *, backbone: str | None, weights: Path | None, device: str
) -> dict[str, LoadedNetwork]:
    """Load networks, by their tasks."""
    from gatehub.errors import TrainingError

    networks: dict[str, LoadedNetwork] = {}
    for place in places:
        network = open_network(place, backbone=backbone, weights=weights, device=device)
        if network.task in networks:
            raise TrainingError(
                f"Two of the folders hold a task named '{network.task}'; '{place}' is the second.",
                hint="Name one of them.",
            )
        networks[network.task] = network
    return networks


class Networks:
    """Answers for several networks as an `Engine` does for adapters.

    Args:
        networks: by their tasks.
    """

    def __init__(self, networks: Mapping[str, LoadedNetwork]) -> None:
        self._networks = networks

    def task(self, task: str) -> LoadedNetwork:
        """Return a task's network."""
        return self._networks[task]

    def predict_all(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return logits (B, classes) float32 of each task, by its name."""
        import torch

        with torch.inference_mode():
            return {task: self._answer(self._networks[task], images) for task in tasks}

    def _answer(self, network: LoadedNetwork, images: Tensor) -> Tensor:
        like = next(network.model.parameters())
        logits: Tensor = network.model(images.to(like))
        return logits.float().cpu()
