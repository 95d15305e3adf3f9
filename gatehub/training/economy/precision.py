"""Mixed precision: convolutions in half precision, everything that is learned in float32."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub._text import first_line
from gatehub.backbone import Backbone
from gatehub.errors import TrainingError

FLOAT32 = "float32"
PRECISIONS = {FLOAT32: torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class MixedPrecision:
    """How steps compute: under autocast, and in float16 with gradients scaled out of the way of 0.

    Args:
        precision: "float32", "bfloat16" or "float16".
        device: of the model.

    Attributes:
        scaler: of the gradients; it does nothing but in float16.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self._dtype = PRECISIONS[precision]
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def compute(self) -> AbstractContextManager[object]:
        """Return what forward passes run in."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def read_state(self) -> dict[str, Tensor]:
        """Return what a run has to remember to go on bit for bit."""
        state = self.scaler.state_dict()
        return {n: torch.tensor(state[n]) for n in ("scale", "_growth_tracker") if n in state}

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where `read_state` was."""
        if tensors:
            found = {name: tensor.item() for name, tensor in tensors.items()}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **found})


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision in which a device cannot train, by one convolution and its gradient.

    Raises:
        TrainingError: it cannot.
    """
    wanted = PRECISIONS[precision]
    if wanted is torch.float32:
        return
    reason = "it computes in float32 there"
    try:
        ones = torch.ones(1, 1, 1, 1, device=device, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns, and goes on in float32
            with torch.autocast(device.type, dtype=wanted):
                answer = F.conv2d(ones, ones)
        answer.sum().backward()
        if answer.dtype is wanted:
            return
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
    raise TrainingError(
        f"The device {device} cannot train with precision {precision}: {reason}.",
        hint="Use float32, which every device has.",
    )


def check_backbone_precision(backbone: Backbone, precision: str) -> None:
    """Refuse a backbone that was cast, and a precision in which its device cannot train.

    Raises:
        TrainingError: its weights are not float32, or see `check_precision`.
    """
    if cast := {p.dtype for p in backbone.parameters() if p.is_floating_point()} - {torch.float32}:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in cast))
        raise TrainingError(
            f"The backbone {backbone.identity.name} has weights in {found}; expected float32.",
            hint="Load it once more for the training; precision='bfloat16' computes faster where "
            "that is to be had.",
        )
    check_precision(precision, next(backbone.parameters()).device)
