"""Gradient checkpointing, arXiv 1604.06174: blocks keep no activations and are computed twice."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from gatehub.errors import TrainingError


def recompute_blocks(network: nn.Module) -> None:
    """Let a network of timm compute each block again while gradients flow back, in place.

    Raises:
        TrainingError: timm does not offer that for this network.
    """
    try:
        cast(Any, network).set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise TrainingError(
            f"timm offers no gradient checkpointing for {type(network).__name__}.",
            hint="Leave it out; smaller batches and smaller images take less memory, too.",
        ) from error
