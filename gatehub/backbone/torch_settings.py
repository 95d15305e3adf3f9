"""The host program's torch settings, set aside while gatehub computes.

What a program sets for its own models (autocast, a default dtype, a default device) would change
ours as well: other answers, other digests, or an error from deep inside torch. Which of the two
context managers is needed depends on what runs inside:

| setting | scope in torch | `pin_thread_settings` | `pin_settings` |
|---|---|---|---|
| autocast, CPU and CUDA | thread | off | off |
| default device | thread | cpu | cpu |
| inference mode | thread | off, without gradients | off, without gradients |
| default dtype | process | as the host has it | float32 |
| deterministic algorithms | process | as the host has it | off |
| float32 precision on the CPU | process | as the host has it | full |

Outside inference mode, the mode of gradients stays as it is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

_DEVICE_TYPES = ("cpu", "cuda")


@contextmanager
def pin_thread_settings() -> Iterator[None]:
    """Set aside what the host has set for this thread; no other thread notices.

    Costs microseconds, so requests can afford it. It is enough where every tensor that is made
    inside has its dtype by name or from another tensor.
    """
    with ExitStack() as pins:
        for kind in _DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                pins.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            pins.enter_context(torch.inference_mode(False))
            pins.enter_context(torch.no_grad())  # which leaving inference mode turns on
        if torch.get_default_device().type != "cpu":
            pins.enter_context(torch.device("cpu"))
        yield


@contextmanager
def pin_settings(*, algorithms: bool = True) -> Iterator[None]:
    """Set aside what the host has set for this thread, and for the whole process.

    It is for timm's and torch's own code, which makes layers and graphs in the default dtype:
    building a backbone or its classifier, exporting a graph. As a decorator, it spans a function.
    torch knows some settings for the whole process only. So where the host has changed those, its
    other threads see torch's own values until the last of these blocks ends: not for what every
    request passes.

    Args:
        algorithms: the last two rows of the table, too. A training leaves them to the host, who
            may want the same adapter twice from a GPU.
    """
    with pin_thread_settings(), _hold(_PROCESS if algorithms else _PROCESS[:1]):
        yield


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


@dataclass(slots=True)
class _Pin:
    """A setting of the process: how it is read and set, what it must be, what the host had.

    Threads share it: the first block takes it, the last one gives it back.
    """

    read: Callable[[], Any]
    write: Callable[[Any], None]
    wanted: Any
    host: Any = None
    blocks: int = 0

    def take(self) -> None:
        if self.blocks == 0:
            self.host = self.read()
            if self.host != self.wanted:
                self.write(self.wanted)
        self.blocks += 1

    def give_back(self) -> None:
        self.blocks -= 1
        # Unless the host has set it anew meanwhile.
        if self.blocks == 0 and self.host != self.wanted and self.read() == self.wanted:
            self.write(self.host)


_LOCK = threading.Lock()


@contextmanager
def _hold(pins: Sequence[_Pin]) -> Iterator[None]:
    with _LOCK:
        for pin in pins:
            pin.take()
    try:
        yield
    finally:
        with _LOCK:
            for pin in pins:
                pin.give_back()


def _determinism() -> _Pin:
    def read() -> tuple[bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def write(value: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(value[0], warn_only=value[1])

    return _Pin(read, write, (False, False))


def _precision() -> tuple[_Pin, ...]:
    operators = [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv")]
    if None in operators:  # before torch 2.9 there was one for all, and none for convolutions
        return (
            _Pin(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        )
    return tuple(
        _Pin(partial(getattr, o, "fp32_precision"), partial(setattr, o, "fp32_precision"), "ieee")
        for o in operators
    )


_PROCESS = (
    _Pin(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _determinism(),
    *_precision(),
)
