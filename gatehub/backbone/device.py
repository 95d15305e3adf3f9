"""Where tensors live: the processor, or a GPU."""

from __future__ import annotations

import torch

from gatehub._text import first_line, quote
from gatehub.errors import DeviceError


def find_device(device: str = "auto") -> torch.device:
    """Return a device, once a tensor has been made there.

    Args:
        device: "cpu", "cuda" or "cuda:N"; "auto" takes a GPU if there is one.

    Raises:
        DeviceError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type == "meta":  # it would take the model, and lose its weights
            raise RuntimeError("it holds no values")
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise DeviceError(
            f"Device {quote(str(device))} cannot be used here: {first_line(error)}.",
            hint="Use cpu, or auto.",
        ) from error
    return found
