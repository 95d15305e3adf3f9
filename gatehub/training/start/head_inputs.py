"""What a head is given: the pooled features of the layers that give logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from gatehub.training.methods.learner import Learner


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
