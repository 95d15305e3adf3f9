"""Processes that a launcher has started: `accelerate launch`, torchrun, or either over MPI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gatehub.backbone.device import find_device
from gatehub.errors import DeviceError, GatehubError, TrainingError
from gatehub.training.parallel.group import check_accelerate, joined
from gatehub.training.parallel.team import Lost, Team

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def count_launched() -> int:
    """Return how many processes a launcher has started for one run; 1 where none did.

    Raises:
        TrainingError: there are to be several, but this is the only one.
    """
    # Without a place to meet they are several runs, as an array of jobs is.
    if "MASTER_ADDR" not in os.environ:
        return 1
    counts = [int(os.environ[name]) for name in _COUNTS if os.environ.get(name, "").isdigit()]
    if not counts and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise TrainingError(
            "`accelerate launch` was asked for several processes and started one, as it does "
            "where there are no GPUs.",
            hint="Add --multi_gpu to it, which starts them there, too; or give `gatehub train` "
            "alone, with --devices.",
        )
    return counts[0] if counts else 1


@contextmanager
def join_launched(device: str, devices: int) -> Iterator[tuple[Team, torch.device]]:
    """Join the team that a launcher made, for the length of a with block.

    Args:
        device: "cpu", "cuda" for each process's GPU, or "auto".
        devices: how many are asked for; 1 leaves it to the launcher.

    Yields:
        The team as this process sees it, and this process's device.

    Raises:
        TrainingError: the launcher has started another number of processes; or they do not meet.
        DeviceError: a GPU was named for all of them.
    """
    check_accelerate()
    from accelerate.utils import get_cpu_distributed_information, parse_flag_from_env

    if device == "auto" and parse_flag_from_env("ACCELERATE_USE_CPU"):
        device = "cpu"
    found, size = find_device(device), count_launched()
    cpu = found.type == "cpu"
    local = get_cpu_distributed_information().local_world_size == size
    with joined(cpu=cpu, local=local) as state:
        rank = state.process_index
        team = Team(rank, size, explain=_explain if rank == 0 else Lost)
        if rank == 0:  # which alone talks, if all could
            _check_consistency(found, devices, size)
        yield team, found if cpu else state.device


def _check_consistency(device: torch.device, devices: int, size: int) -> None:
    if devices not in (1, size):
        raise TrainingError(
            f"{devices} devices are asked for, but the launcher has started {size} processes.",
            hint="Leave out --devices: the launcher decides.",
        )
    if ":" in str(device):
        raise DeviceError(
            f"{size} processes have been started, and {device} alone is named for them.",
            hint="Use cuda, or auto; the launcher says which GPUs count.",
        )


def _explain() -> GatehubError:
    return TrainingError(
        "The processes of this training have lost each other.",
        hint="See what the others have printed, or their launcher.",
    )
