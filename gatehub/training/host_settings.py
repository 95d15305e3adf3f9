"""The host program's settings and random numbers, set aside while something is trained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gatehub.backbone.torch_settings import pin_settings


@contextmanager
def set_host_aside() -> Iterator[None]:
    """Train as in a program that has set nothing, and leave the host's generators as they were.

    Beside what `pin_settings` sets aside, that is its mode of gradients. Deterministic algorithms
    and lower precision stay as the host has them. Generators are seeded by
    every training; without this, whatever the host draws next would be the same each time.
    As a decorator, it spans a function.
    """
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    devices = [*range(torch.cuda.device_count())] if torch.cuda.is_initialized() else []
    try:
        with (
            pin_settings(algorithms=False),
            torch.enable_grad(),
            torch.random.fork_rng(devices),
        ):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)
