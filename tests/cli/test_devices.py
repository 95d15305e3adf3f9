"""`gatehub train` on several devices: without the package, and started by a launcher."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from gatehub.adapter import Adapter
from tests.cli.conftest import Gatehub
from tests.training.images import numbered, write_images

OPTIONS = [
    *("--backbone", "demo", "--task", "pets", "--dtype", "float32", "--device", "cpu"),
    *("--epochs", "2", "--batch-size", "5", "--gate-rate", "0.01", "--head-rate", "0.01"),
    *("--seed", "1", "--keep", "last", "--averaging", "0", "--min-crop", "0.9"),
    *("--workers", "0", "--format", "json"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", *numbered("cat", 10), *numbered("dog", 10))


def launch_two(*options: object, folders: tuple[Path, Path]) -> list[tuple[int, str, str]]:
    """Do as torchrun does with two processes; return the status of each, and what it printed.

    Args:
        options: of `gatehub train`.
        folders: where each is started.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        store = TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    command = [sys.executable, "-m", "gatehub.cli", "train", *map(str, options)]
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    try:
        printed = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *said) for p, said in zip(processes, printed, strict=True)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_launched_processes_train_as_one_does(
    gatehub: Gatehub, photos: Path, tmp_path: Path
) -> None:
    one = gatehub("train", *OPTIONS, "--data", photos, "--out", tmp_path / "one").json
    (led, out, said), (followed, *nothing) = launch_two(
        *(*OPTIONS, "--data", photos, "--out", "two"), folders=(tmp_path, tmp_path)
    )
    assert (led, followed) == (0, 0), said
    two = json.loads(out)
    assert nothing == ["", ""]
    assert said.count("Training 'pets' on ") == 1
    assert two.keys() == one.keys()
    alone, together = (Adapter.load(tmp_path / name) for name in ("one", "two"))
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], tensor, rtol=0, atol=2e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "photos", "two"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_a_launched_process_that_fails_says_why(photos: Path, tmp_path: Path) -> None:
    """As on a machine that does not have the images."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (led, out, said), (followed, *rest) = launch_two(
        *(*OPTIONS, "--data", photos.name, "--out", "two"), folders=(tmp_path, elsewhere)
    )
    assert (led, followed, out, rest[0]) == (1, 1, "", "")
    assert said.splitlines()[-2:] == [
        "Error: The processes of this training have lost each other.",
        "Hint: See what the others have printed, or their launcher.",
    ]
    assert re.fullmatch(r"Error: '.*' does not exist\.\nHint: Check the path\.\n", rest[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "photos"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_the_first_launched_process_says_what_it_refuses(photos: Path, tmp_path: Path) -> None:
    (led, out, said), (followed, *nothing) = launch_two(
        *(*OPTIONS, "--data", photos, "--out", "two", "--norm", "stats"),
        folders=(tmp_path, tmp_path),
    )
    assert (led, out, followed, nothing) == (1, "", 3, ["", ""])
    assert "each of 2 devices would see only its share" in said


@pytest.mark.parametrize("launched", [False, True])
def test_devices_without_the_package_are_refused(
    gatehub: Gatehub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, launched: bool
) -> None:
    if launched:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    devices = [] if launched else ["--devices", 2]
    ran = gatehub("train", *OPTIONS, "--data", "none", "--out", tmp_path / "out", *devices)
    assert (ran.status, ran.out, list(tmp_path.iterdir())) == (1, "", [])
    assert ran.err.endswith("is not installed.\nHint: pip install 'gatehub[accelerate]'\n")
