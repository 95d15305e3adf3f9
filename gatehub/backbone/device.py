"""Where tensors live: the processor, or a GPU."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from gatehub.errors import DeviceError

M = TypeVar("M", bound=nn.Module)


def place(model: M, device: str = "auto") -> M:
    """Move a model to a device, in place.

    Args:
        model: any.
        device: "cpu", "cuda" or "cuda:N"; "auto" takes a GPU if there is one.

    Returns:
        The model.

    Raises:
        DeviceError: no such device here.
    """
    if device == "auto":
        return model.to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"Device '{device}' cannot be used here: {str(error).splitlines()[0]}",
            hint="Use cpu, or auto.",
        ) from error
