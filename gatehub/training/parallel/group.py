"""A process group, as Hugging Face's Accelerate sets it up: who is there, and on which device."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import Store

from gatehub._text import first_line
from gatehub.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import PartialState

# Others wait while the first one fits the probe, measures or saves: hours, on large data.
PATIENCE = timedelta(days=30)
# Where the machine's other programs alone can connect. By default gloo listens where the name of
# the machine points.
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)


def check_accelerate() -> None:
    """Refuse several devices where the package is missing that brings their processes together.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            "Several devices need the package accelerate, which is not installed.",
            hint="pip install 'gatehub[accelerate]'",
        ) from error


@contextmanager
def joined(
    *, cpu: bool, local: bool, store: Store | None = None, rank: int = 0, size: int = 1
) -> Iterator[PartialState]:
    """Join a process group, and leave it at the end of the with block.

    Args:
        cpu: each process computes on the processor, and not on its GPU.
        local: all processes are on this machine; no port is opened to others.
        store: where they meet; None for what a launcher has written into the environment.
        rank: which of them this is, if they meet at a store.
        size: how many there are, if they meet at a store.

    Raises:
        TrainingError: it cannot be joined.
    """
    check_accelerate()
    from accelerate import PartialState
    from accelerate.utils import patch_environment, reduce

    if PartialState._shared_state:
        raise TrainingError(
            "Accelerate is in use in this process already, and a process has one group.",
            hint="Train in a process of its own, with `gatehub train`.",
        )
    settings: dict[str, Any] = {
        # Accelerate would choose a number of threads itself, and divide by what it may not know.
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()),
        # It refuses some GPUs together, for the sake of nccl alone.
        "nccl_p2p_disable": 1,
        "nccl_ib_disable": 1,
        # It would insist on exchanging tensors of the GPU.
        "accelerate_debug_mode": "false",
    }
    if local and _LOOPBACK is not None:
        settings["gloo_socket_ifname"] = os.environ.get("GLOO_SOCKET_IFNAME", _LOOPBACK)
    meeting: dict[str, Any] = {}
    if store is not None:
        meeting = {"store": store, "rank": rank, "world_size": size}
        settings |= {"rank": rank, "world_size": size, "local_rank": rank, "local_world_size": size}
        settings |= {"master_port": 0}  # or Accelerate would write one into the environment
    try:
        with patch_environment(**settings):
            # Sums are made on the processor, and gloo says at once when a process is gone.
            state = PartialState(cpu=cpu, backend="gloo", timeout=PATIENCE, **meeting)
        reduce(torch.zeros(1))  # whoever leaves at once, leaves others that are connected
    except (RuntimeError, ValueError, ImportError) as error:
        _leave()
        raise TrainingError(
            f"The processes of this training cannot come together: {first_line(error)}."
        ) from error
    try:
        yield state
    finally:
        _leave()


def _leave() -> None:
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    # A process has one state for good, and nothing public lets it go.
    PartialState._reset_state()
