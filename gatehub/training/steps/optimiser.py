"""AdamW over a task's three groups: gates, normalisation values and head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gatehub.training.methods.learner import Learner
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices


def make_optimiser(model: Learner, recipe: Recipe, choices: Choices) -> torch.optim.Optimizer:
    """Return AdamW, arXiv 1711.05101, whose groups know their "name" and "peak" rate.

    Gates and normalisation values do not decay towards 0; see `decay_gates`.
    """
    groups = (
        ("gates", model.gate_parameters(), choices.gate_rate, 0.0),
        ("norms", model.norm_parameters(), choices.norm_rate, 0.0),
        ("head", model.head_parameters(), choices.head_rate, recipe.head_decay),
    )
    return torch.optim.AdamW(
        [
            {
                "params": list(parameters.values()),
                "name": name,
                "peak": rate,
                "lr": rate,
                "weight_decay": decay,
            }
            for name, parameters, rate, decay in groups
            if parameters
        ]
    )


def decay_gates(model: Learner, share: float) -> None:
    """Move gates towards the values at which M = 1: weight decay around the backbone.

    Args:
        model: its gates are changed in place.
        share: of their distance, in [0, 1].
    """
    gates = model.gate_parameters()
    with torch.no_grad():
        for name, rest in model.gate_rests().items():
            gates[name].lerp_(torch.full_like(gates[name], rest), share)


def read_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments and step counts, by name."""
    return {
        f"{index}.{key}": value
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_state(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser what `read_state` returned; its rates stay."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
