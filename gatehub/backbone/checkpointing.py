"""Passes through a gated network: none that wants gradients loses those of a checkpointed block.

A block under `torch.utils.checkpoint.checkpoint(..., use_reentrant=True)` runs without gradients,
and runs again with them while they flow back; but only if a tensor that was given to it needs a
gradient, and behind a frozen stem none does. Within the block nothing tells whether the pass around
it wants gradients, so the next layer outside of it is asked.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from gatehub.errors import GateError


class Pass(threading.local):
    """What a thread knows of its pass through one gated network.

    Attributes:
        lost: place of the first layer that ran where its parameters can get no gradient, or None.
    """

    lost: int | None = None

    def __reduce__(self) -> tuple[type[Pass], tuple[()]]:
        """Copy and pickle nothing: a copy's passes are its own."""
        return Pass, ()

    def visit(self, place: int) -> None:
        """Note that something learned runs now, or that the pass ends.

        Args:
            place: in the order of the network's modules.

        Raises:
            GateError: the pass wants gradients, and what ran before will get none.
        """
        if not torch.is_grad_enabled():
            if not _is_never_computed_again():
                self.lost = None
            elif self.lost is None or place < self.lost:
                self.lost = place
            return
        lost, self.lost = self.lost, None
        if lost is not None and lost < place:  # a layer that comes earlier begins another pass
            raise GateError(
                "A block is checkpointed with use_reentrant=True, and nothing that is given to it "
                "needs a gradient, so its gates would get none.",
                hint="Use use_reentrant=False, or give the model images that require gradients. "
                "Where the block is not to learn, tell it so: block.requires_grad_(False).",
            )


def watch_passes(net: nn.Module) -> None:
    """Let a gated network refuse passes in which what it learns would get no gradient.

    Args:
        net: whose parameters require gradients where they are learned.
    """
    within = Pass()
    modules = list(net.modules())
    net.register_forward_pre_hook(partial(_begin, within))
    for place, module in enumerate(modules):
        if _learns(module):
            module.register_forward_pre_hook(partial(_visit, within, place))
    net.register_forward_hook(partial(_end, within, len(modules)))


def _begin(within: Pass, net: nn.Module, given: Any) -> None:
    if not torch.compiler.is_compiling():  # compilers compute a block again by means of their own
        within.lost = None


def _visit(within: Pass, place: int, module: nn.Module, given: Any) -> None:
    if not torch.compiler.is_compiling() and _learns(module):
        within.visit(place)


def _end(within: Pass, place: int, net: nn.Module, given: Any, answer: Any) -> None:
    if not torch.compiler.is_compiling():
        within.visit(place)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _is_never_computed_again() -> bool:
    """Whether the outermost reentrant block under way was given nothing that needs a gradient."""
    given = None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            given = frame.f_locals["args"]
        frame = frame.f_back
    return given is not None and not any(isinstance(v, Tensor) and v.requires_grad for v in given)
