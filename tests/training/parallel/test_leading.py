"""What is refused before other processes are started, and when they come together."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist

from gatehub.errors import DeviceError, TrainingError
from gatehub.training.parallel.group import joined
from gatehub.training.parallel.leading import check_team, choose_device, lead


def test_what_several_cannot_do_as_one_is_refused() -> None:
    check_team(1, batch_size=1, images=1, norm="stats")
    check_team(2, batch_size=2, images=2, norm="affine")
    with pytest.raises(TrainingError, match="each of 2 devices would see only its share"):
        check_team(2, batch_size=32, images=100, norm="stats")
    with pytest.raises(TrainingError, match="A batch has 3 images, fewer than the 4 devices"):
        check_team(4, batch_size=32, images=3, norm="affine")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu", 3) == torch.device("cpu")
    monkeypatch.setattr("gatehub.training.parallel.leading.find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda", 2) == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="3 devices are asked for, but there are 2 GPUs here"):
        choose_device("cuda", 3)
    with pytest.raises(DeviceError, match="and cuda:1 alone is named"):
        choose_device("cuda:1", 2)


def test_a_follower_that_cannot_begin_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatehub.training.parallel.leading._FOLLOW", "print(); 1 / 0")
    threads = torch.get_num_threads()
    with (
        pytest.raises(TrainingError, match=r"^Process 2 of 2 ended: ZeroDivisionError: division"),
        lead(torch.device("cpu"), 2) as team,
    ):
        team.tell({})
    assert torch.get_num_threads() == threads


def test_a_process_whose_accelerate_is_in_use_is_refused() -> None:
    from accelerate import PartialState

    environment = dict(os.environ)
    mine = PartialState(cpu=True)
    refused = pytest.raises(TrainingError, match="Accelerate is in use in this process already")
    try:
        with refused, joined(cpu=True, local=True):
            pass
        assert PartialState().device == mine.device  # it is left as it was
    finally:
        PartialState._reset_state()
    assert dict(os.environ) == environment


def test_who_does_not_come_together_may_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate remembers what it was told first, and what came of it."""
    from accelerate import PartialState

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere")
    environment = dict(os.environ)
    for _ in range(2):
        store = dist.HashStore()
        with (
            pytest.raises(TrainingError, match=r"cannot come together: .*nowhere"),
            joined(cpu=True, local=True, store=store, rank=0, size=2),
        ):
            pass
        assert not dist.is_initialized()
        assert not PartialState._shared_state
    assert dict(os.environ) == environment
