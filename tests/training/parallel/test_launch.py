"""What a launcher has written into the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace

import pytest
import torch

from gatehub.errors import GatehubError, TrainingError
from gatehub.training.parallel import launch


def set_up(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "MASTER_", "PMI_", "OMPI_", "MV2_", "WORLD_", "LOCAL_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"MASTER_ADDR": "a", "WORLD_SIZE": 1}, 1),
        ({"MASTER_ADDR": "a", "WORLD_SIZE": 4}, 4),
        ({"MASTER_ADDR": "a", "OMPI_COMM_WORLD_SIZE": 3}, 3),
        ({"MASTER_ADDR": "a", "PMI_SIZE": 2, "ACCELERATE_MIXED_PRECISION": "no"}, 2),
        # Runs of an array of jobs, and a shell in which somebody has set a part of it.
        ({"PMI_SIZE": 2}, 1),
        ({"WORLD_SIZE": 2}, 1),
        ({"MASTER_ADDR": "a"}, 1),
        ({"MASTER_ADDR": "a", "WORLD_SIZE": ""}, 1),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, 1),
    ],
)
def test_what_a_launcher_has_started(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, object], count: int
) -> None:
    set_up(monkeypatch, **variables)
    assert launch.count_launched() == count


def test_a_launcher_that_started_one_process_of_several_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_up(monkeypatch, MASTER_ADDR="127.0.0.1", ACCELERATE_MIXED_PRECISION="no")
    with pytest.raises(TrainingError, match=r"and started one, .* Add --multi_gpu to it"):
        launch.count_launched()


@contextmanager
def meeting(rank: int) -> Iterator[SimpleNamespace]:
    """Stands in for a group of two."""
    yield SimpleNamespace(process_index=rank, device=torch.device("cuda", rank))


def test_what_contradicts_the_launcher_is_refused_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, MASTER_ADDR="127.0.0.1", WORLD_SIZE=2)
    monkeypatch.setattr(launch, "find_device", torch.device)
    for rank in (1, 0):
        monkeypatch.setattr(launch, "joined", lambda rank=rank, **options: meeting(rank))
        with launch.join_launched("cuda", 2) as (team, device):
            assert (team.rank, team.size, str(device)) == (rank, 2, f"cuda:{rank}")
        if rank:
            with launch.join_launched("cuda", 3), launch.join_launched("cuda:1", 2):
                continue
        for device, devices, sentence in (
            ("cpu", 3, r"3 devices are asked for, but .* started 2 processes"),
            ("cuda:1", 1, r"2 processes have been started, and cuda:1 alone is"),
        ):
            with (
                pytest.raises(GatehubError, match=sentence),
                launch.join_launched(device, devices),
            ):
                pass


def test_a_group_of_this_machine_alone_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def join(*, cpu: bool, local: bool) -> AbstractContextManager[SimpleNamespace]:
        told.append((cpu, local))
        return meeting(1)

    monkeypatch.setattr(launch, "joined", join)
    set_up(monkeypatch, MASTER_ADDR="a", WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, ACCELERATE_USE_CPU=True)
    with launch.join_launched("auto", 1):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with launch.join_launched("cpu", 1):
        pass
    assert told == [(True, True), (True, False)]
