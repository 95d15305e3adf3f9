"""In which dtype a task is computed, and how far its answers may drift there."""

from __future__ import annotations

import torch

from gatehub.adapter.probe import PROBE_TOLERANCE
from gatehub.errors import EngineError

AUTO = "auto"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# As a share of the spread of a task's logits (see `Probe.drift`). bfloat16 has 8 bits.
_TOLERANCES = {torch.float32: PROBE_TOLERANCE, torch.float16: 0.05, torch.bfloat16: 0.15}


def choose_dtypes(dtype: str, device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the dtypes to try for each task, the preferred one first.

    `auto` is bfloat16 where the processor multiplies matrices of it (AMX, or tensor cores), for
    each task whose probe agrees, and float32 otherwise.

    Raises:
        EngineError: no such dtype.
    """
    if dtype == AUTO:
        matrix_units = has_matrix_units(device)
        return (torch.bfloat16, torch.float32) if matrix_units else (torch.float32,)
    if dtype not in DTYPES:
        raise EngineError(f"dtype is {dtype!r}; expected one of {', '.join([AUTO, *DTYPES])}.")
    return (DTYPES[dtype],)


def has_matrix_units(device: torch.device) -> bool:
    """Whether a device has units that multiply matrices of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch's own question, and private: where it is gone, there are none to count on.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(has_amx())


def tolerance(dtype: torch.dtype) -> float:
    """Return how far a task's answers may drift from its probe in a dtype."""
    return _TOLERANCES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
