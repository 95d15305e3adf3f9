"""What a head is given: the pooled features of the layers that give logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gatehub.errors import TrainingError
from gatehub.training.batches import Batch
from gatehub.training.methods.learner import Learner


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadInputs:
    """What a head was given for some images.

    Args:
        features: (images, features) float32 of each layer that gives logits, by its name.
        targets: (images,) int64, or (images, labels) float32 of 0 and 1.
    """

    features: Mapping[str, NDArray[np.float32]]
    targets: NDArray[Any]

    def take(self, chosen: Sequence[int]) -> HeadInputs:
        """Return those of the images at these places."""
        return HeadInputs(
            features={name: points[chosen] for name, points in self.features.items()},
            targets=self.targets[chosen],
        )


def find_logit_layers(model: Learner) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the head's layers that give one logit for each label, by name in the network.

    Distilled networks have two such layers, and some networks have none.
    """
    own = {id(parameter) for parameter in model.head_parameters().values()}
    return {
        name: module
        for name, module in model.net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and id(module.weight) in own
        and len(module.weight) == len(model.labels)
    }


@contextmanager
def watch_features(model: Learner) -> Iterator[dict[str, Tensor]]:
    """Yield what each such layer was given at the latest pass, (B, features), by its name."""
    features: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        features[name] = given[0].flatten(2).mean(2) if given[0].ndim > 2 else given[0]

    hooks = [
        layer.register_forward_pre_hook(partial(keep, name))
        for name, layer in find_logit_layers(model).items()
    ]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def gather_inputs(model: Learner, batches: Iterable[Batch]) -> HeadInputs:
    """Return what the head of a model is given for images.

    Args:
        model: in evaluation mode.
        batches: from `evaluation_batches`; not looked at where no layer gives logits.

    Raises:
        TrainingError: features that are not finite.
    """
    points: dict[str, list[NDArray[np.float32]]] = {name: [] for name in find_logit_layers(model)}
    targets: list[NDArray[Any]] = []
    device = next(model.parameters()).device
    with watch_features(model) as watched:
        for images, classes in batches if points else ():
            model(images.to(device))
            targets.append(classes.numpy())
            for name, given in watched.items():
                points[name].append(given.float().cpu().numpy())
    features = {name: np.concatenate(found) for name, found in points.items()}
    for name, found in features.items():
        if not np.isfinite(found).all():
            raise TrainingError(
                f"What the backbone gives its layer '{name}' for the training images holds NaN or "
                "infinity; expected finite features.",
                hint="Try the backbone on a few of the images; it may be broken.",
            )
    return HeadInputs(
        features=features, targets=np.concatenate(targets) if targets else np.empty(0)
    )
