"""Several processes train as one would, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import load_backbone
from gatehub.training.data import load_data
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.training.images import numbered, write_images

# Trains with two processes, and at a signal on standard input does harm to the other one.
PROGRAM = """
import os, signal, sys
from contextlib import contextmanager
import numpy as np
import psutil
import torch
from gatehub.backbone import load_backbone
from gatehub.errors import GatehubError
from gatehub.training.data import load_data
from gatehub.training.parallel import leading
from gatehub.training.parallel.plan import Plan, write_plan
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter

out, photos, harm = sys.argv[1:]
backbone, data = load_backbone("demo"), load_data(photos)
recipe = Recipe(epochs=2, batch_size=5, gate_rate=0.01, head_rate=0.01, seed=1, keep="last",
                averaging=0.0, min_crop=0.9)
plan = Plan(
    backbone="demo", weights=None, digest=backbone.digest, labels=data.labels, train=data.train,
    recipe=recipe, gates="auto", norm="affine", start=None, preprocessing=backbone.preprocessing,
    workers=0, decoded_bytes=0,
)
started, begun = leading._started, []

@contextmanager
def watch(*arguments, **options):
    with started(*arguments, **options) as follower:
        begun.append(follower.process)
        yield follower

leading._started = watch

@contextmanager
def lead():
    with leading.lead(torch.device("cpu"), 2) as team:
        team.tell(*write_plan(plan))
        yield team

class Observer:
    def on_start(self, *arguments, **options): pass
    def on_step(self, step):
        if harm == "kill" and step.done == 2:
            begun[0].kill()
        if harm == "leave" and step.done == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch(self, record, epochs):
        if harm == "vanish":  # the second image of the next batch is the other's
            order = np.random.default_rng((recipe.seed, 2)).permutation(len(data.train))
            data.train.sources[order[1]].unlink()
        if harm == "interrupt":
            both = [psutil.Process(), psutil.Process(begun[0].pid)]
            found = [c for process in both for c in process.net_connections()]
            print({c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}, flush=True)
            raise KeyboardInterrupt

def train(team, **options):
    options |= {"recipe": recipe, "dtype": "float32", "team": team}
    return train_adapter(backbone, data, out, task="pets", **options)

try:
    with lead() as team:
        print(begun[0].pid, flush=True)
        train(team, observer=Observer())
except KeyboardInterrupt:
    harm = ""
    with lead() as team:
        train(team, resume=True)
except GatehubError as error:
    print(error, flush=True)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", *numbered("cat", 10), *numbered("dog", 10))


def run(out: Path, photos: Path, harm: str) -> tuple[int, int, str]:
    """Return the exit status of the first process, the other's number, and what was said."""
    command = [sys.executable, "-c", PROGRAM, str(out), str(photos), harm]
    temporary = out.with_name("temporary")
    temporary.mkdir()
    with subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        other = process.stdout.readline()
        try:
            said, _ = process.communicate(timeout=600)
        finally:
            process.kill()
    # Nothing is left there, however it ended.
    temporary.rmdir()
    return process.returncode, int(other), said.decode()


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow  # in every run two that are launched do: tests/cli/test_devices.py
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_two_processes_train_as_one_does(photos: Path, tmp_path: Path) -> None:
    """An interrupted run too, when it goes on. Batches of five are not divided evenly."""
    recipe = Recipe(
        epochs=2,
        batch_size=5,
        gate_rate=0.01,
        head_rate=0.01,
        seed=1,
        keep="last",
        averaging=0.0,
        min_crop=0.9,
    )
    backbone, data = load_backbone("demo"), load_data(photos)
    alone = train_adapter(
        backbone, data, tmp_path / "one", task="pets", recipe=recipe, dtype="float32"
    ).adapter
    status, other, said = run(tmp_path / "two", photos, "interrupt")
    # Nobody elsewhere can connect to them.
    assert (status, said) == (0, "{'127.0.0.1'}\n")
    assert not is_running(other)
    together = Adapter.load(tmp_path / "two")
    moved = {name: (t - 1).abs().max() for name, t in alone.tensors.items() if "gate" in name}
    assert max(moved.values()) > 0.01
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], tensor, rtol=0, atol=2e-3)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert logs[0][0] == logs[1][0]
    for one, two in zip(*logs, strict=True):
        for loss in ("train_loss", "val_loss"):
            assert two[loss] == pytest.approx(one[loss], abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "photos", "two"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("kill", "Process 2 of 2 was killed (signal 9), perhaps for lack of memory. Use fewer"),
        ("vanish", ".png' does not exist"),
        ("leave", ""),
    ],
)
def test_processes_end_together(photos: Path, tmp_path: Path, harm: str, sentence: str) -> None:
    status, other, said = run(tmp_path / "out", photos, harm)
    assert status == (-signal.SIGKILL if harm == "leave" else 0)
    assert sentence in said
    assert len(said.splitlines()) == bool(sentence)
    while is_running(other):  # until it notices, which is a matter of its own clock
        time.sleep(0.05)
    assert (tmp_path / "out.training" / "checkpoint.safetensors").exists() == (harm == "vanish")


def test_each_image_of_a_batch_is_somebodys() -> None:
    batch = list(range(7))
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert sorted(image for share in shares for image in share) == batch
    assert [len(share) for share in shares] == [3, 2, 2]
    assert ALONE.share(batch) == batch
